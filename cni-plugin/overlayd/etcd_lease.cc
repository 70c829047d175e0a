// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/etcd_lease.h"

#include <algorithm>
#include <set>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <sys/socket.h>

namespace hawser::overlay {
namespace {

namespace json = boost::json;

constexpr std::size_t kCandidates = 100;  // of free ranges, as flannel: so that nodes that start together rarely clash

std::optional<Cidr> pick_one(const SubnetPool& pool, const std::vector<Cidr>& taken,
                             const std::function<std::size_t(std::size_t)>& pick) {
  std::set<Cidr> used(taken.begin(), taken.end());
  std::vector<Cidr> free;
  for (std::uint64_t n = 0; n < pool.count() && free.size() < kCandidates; n++) {
    if (auto c = pool.at(n); !used.contains(c)) free.push_back(c);
  }
  if (free.empty()) return std::nullopt;
  return free[pick(free.size())];
}

}  // namespace

std::string lease_key(const std::vector<Cidr>& pod_cidrs) {
  std::string key;
  for (const auto& c : pod_cidrs) key += fmt::format("{}{}-{}", key.empty() ? "" : "&", c.addr(), c.prefix());
  return key;
}

std::optional<std::vector<Cidr>> parse_lease_key(std::string_view key) {
  std::vector<Cidr> out;
  while (!key.empty()) {
    const auto end = key.find('&');
    std::string part(key.substr(0, end));
    const auto dash = part.rfind('-');
    if (dash == std::string::npos) return std::nullopt;
    part[dash] = '/';
    auto c = Cidr::parse(part);
    if (!c || c->network() != *c) return std::nullopt;
    if (std::ranges::any_of(out, [&](const Cidr& o) { return o.family() == c->family(); })) return std::nullopt;
    out.push_back(*c);
    key = end == key.npos ? std::string_view() : key.substr(end + 1);
  }
  if (out.empty()) return std::nullopt;
  return out;
}

std::string lease_record(const Lease& l) {
  auto text = [](const IpAddr& a) { return a ? json::value(a.text()) : json::value(nullptr); };
  json::object o{{"PublicIP", text(l.v4.address)},
                 {"PublicIPv6", text(l.v6.address)},
                 {"BackendType", l.backend},
                 {"BackendData", backend_data(l.v4)}};
  if (auto data = backend_data(l.v6); !data.is_null()) o["BackendV6Data"] = std::move(data);
  return json::serialize(o);
}

std::optional<Lease> parse_lease_record(std::string_view key, std::string_view value) {
  auto cidrs = parse_lease_key(key);
  boost::system::error_code ec;
  auto v = json::parse(value, ec);
  if (!cidrs || ec || !v.is_object()) return std::nullopt;
  const auto& o = v.get_object();
  Lease l{.pod_cidrs = std::move(*cidrs), .backend = std::string(kube::str(o, {"BackendType"}))};
  auto v4 = IpAddr::parse(kube::str(o, {"PublicIP"}));
  auto v6 = IpAddr::parse(kube::str(o, {"PublicIPv6"}));
  if (v4 && v4->is_v4()) l.v4.address = *v4;
  if (v6 && v6->is_v6()) l.v6.address = *v6;
  if (!l.v4.address && !l.v6.address) return std::nullopt;
  read_backend_data(kube::obj(o, {"BackendData"}), l.v4);
  read_backend_data(kube::obj(o, {"BackendV6Data"}), l.v6);
  l.node = (l.v4.address ? l.v4.address : l.v6.address).text();
  return l;
}

std::optional<std::vector<Cidr>> pick_free(const NetConf& conf, const std::vector<Cidr>& taken,
                                           const std::function<std::size_t(std::size_t)>& pick) {
  std::vector<Cidr> out;
  for (const auto* pool : {&conf.v4, &conf.v6}) {
    if (!*pool) continue;
    auto c = pick_one(**pool, taken, pick);
    if (!c) return std::nullopt;
    out.push_back(*c);
  }
  return out;
}

}  // namespace hawser::overlay
