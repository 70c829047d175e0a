// SPDX-License-Identifier: Apache-2.0
#include "proxyd/ipvs/options.h"

#include <algorithm>

namespace hawser::proxy {
namespace {

constexpr Nanos kMinInterval = std::chrono::milliseconds(5);
constexpr Nanos kMaxTimeout = std::chrono::hours(24 * 365);  // the kernel counts jiffies

// 0 leaves the kernel's own.
Result<std::uint32_t> read_timeout(const Config& c, const char* field) {
  const Nanos d = c.duration(field);
  if (d < Nanos{0} || d > kMaxTimeout) return fail(EINVAL, "{}: {}, want 0 to a year", field, c.text(field));
  return static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::seconds>(d).count());
}

}  // namespace

Result<std::optional<IpvsSettings>> ipvs_settings(const Config& c) {
  if (c.text("mode") != "ipvs") return std::nullopt;
  auto s = read_ipvs_section(c);
  if (!s) return propagate(s);
  return std::move(*s);
}

Result<IpvsSettings> read_ipvs_section(const Config& c) {
  IpvsSettings s;
  auto scheduler = parse_scheduler(c.text("ipvs.scheduler"));
  if (!scheduler) return propagate(scheduler, "ipvs.scheduler");
  s.options.scheduler = std::move(*scheduler);
  for (const auto& text : c.list("ipvs.excludeCIDRs")) {
    auto range = Cidr::parse(text);
    if (!range) return propagate(range, "ipvs.excludeCIDRs");
    s.options.exclude.push_back(range->network());
  }
  s.options.strict_arp = c.flag("ipvs.strictARP");
  for (auto [field, out] : {std::pair{"ipvs.tcpTimeout", &s.options.timeouts.tcp_seconds},
                            {"ipvs.tcpFinTimeout", &s.options.timeouts.tcp_fin_seconds},
                            {"ipvs.udpTimeout", &s.options.timeouts.udp_seconds}}) {
    auto t = read_timeout(c, field);
    if (!t) return propagate(t);
    *out = *t;
  }
  s.sync_period = c.duration("ipvs.syncPeriod");
  if (s.sync_period == Nanos{0}) s.sync_period = std::chrono::seconds(30);  // in a file 0 stands for the default
  // kube-proxy's default of a second is for what a sync costs it; here it costs what changed.
  s.min_sync_period = c.given("ipvs.minSyncPeriod") ? c.duration("ipvs.minSyncPeriod") : kMinInterval;
  if (s.sync_period < Nanos{0}) return fail(EINVAL, "ipvs.syncPeriod: must be greater than 0");
  if (s.min_sync_period < Nanos{0}) return fail(EINVAL, "ipvs.minSyncPeriod: must not be below 0");
  if (s.min_sync_period > s.sync_period)
    return fail(EINVAL, "ipvs.minSyncPeriod: must not be greater than ipvs.syncPeriod");
  s.min_sync_period = std::max(s.min_sync_period, kMinInterval);
  return s;
}

}  // namespace hawser::proxy
