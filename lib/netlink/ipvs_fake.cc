// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/ipvs_fake.h"

namespace hawser::netlink {
namespace {

char sign(IpvsVerb v) {
  if (v == IpvsVerb::kAdd) return '+';
  return v == IpvsVerb::kSet ? '=' : '-';
}

std::string service_text(const IpvsService& s) {
  std::string t = fmt::format("{} {}", s.key.text(), s.scheduler);
  if (s.persistence_seconds) t += fmt::format(" persistent {}", s.persistence_seconds);
  return t;
}

std::string destination_text(const IpvsDestination& d) {
  return fmt::format("{} weight {}", d.text(), d.weight);
}

}  // namespace

Result<> FakeIpvs::write(std::string what) {
  if (absent_) return fail(EOPNOTSUPP, "this kernel has no IPVS");
  if (fail_in_ > 0 && --fail_in_ == 0) return fail(EIO, "{}: made to fail", what);
  writes_++;
  log_.push_back(std::move(what));
  return {};
}

Result<std::vector<IpvsService>> FakeIpvs::list_services() {
  if (absent_) return fail(EOPNOTSUPP, "this kernel has no IPVS");
  std::vector<IpvsService> out;
  for (const auto& [key, e] : services_) out.push_back(e.service);
  return out;
}

Result<std::vector<IpvsDestination>> FakeIpvs::list_destinations(const IpvsKey& service) {
  const auto it = services_.find(service);
  if (it == services_.end()) return fail_errno(ESRCH, "destinations of {}", service.text());
  std::vector<IpvsDestination> out;
  for (const auto& [key, d] : it->second.destinations) out.push_back(d);
  return out;
}

Result<> FakeIpvs::change_service(IpvsVerb verb, const IpvsService& s) {
  const bool there = services_.contains(s.key);
  if (verb == IpvsVerb::kAdd && there) return fail_errno(EEXIST, "add IPVS service {}", s.key.text());
  if (verb != IpvsVerb::kAdd && !there) return fail_errno(ESRCH, "IPVS service {}", s.key.text());
  if (verb != IpvsVerb::kDelete && !schedulers_.contains(s.scheduler))
    return fail(EOPNOTSUPP, "this kernel has no scheduler \"{}\"", s.scheduler);
  const bool gone = verb == IpvsVerb::kDelete;
  if (auto r = write(fmt::format("service{} {}", sign(verb), gone ? s.key.text() : service_text(s))); !r) return r;
  if (gone)
    services_.erase(s.key);
  else
    services_[s.key].service = s;
  return {};
}

Result<> FakeIpvs::change_destination(IpvsVerb verb, const IpvsKey& service, const IpvsDestination& d) {
  const auto it = services_.find(service);
  if (it == services_.end()) return fail_errno(ESRCH, "IPVS service {}", service.text());
  auto& all = it->second.destinations;
  const std::pair key{d.address, d.port};
  if (verb == IpvsVerb::kAdd && all.contains(key)) return fail_errno(EEXIST, "add {}", d.text());
  if (verb != IpvsVerb::kAdd && !all.contains(key)) return fail_errno(ENOENT, "{}", d.text());
  const bool gone = verb == IpvsVerb::kDelete;
  if (auto r = write(fmt::format("dest{} {}", sign(verb), gone ? d.text() : destination_text(d))); !r) return r;
  if (gone) {
    all.erase(key);
    return {};
  }
  IpvsDestination& entry = all[key];
  entry.address = d.address;
  entry.port = d.port;
  entry.weight = d.weight;
  return {};
}

Result<> FakeIpvs::set_timeouts(const IpvsTimeouts& t) {
  if (auto r = write(fmt::format("timeouts {} {} {}", t.tcp_seconds, t.tcp_fin_seconds, t.udp_seconds)); !r) return r;
  if (t.tcp_seconds) timeouts_.tcp_seconds = t.tcp_seconds;
  if (t.tcp_fin_seconds) timeouts_.tcp_fin_seconds = t.tcp_fin_seconds;
  if (t.udp_seconds) timeouts_.udp_seconds = t.udp_seconds;
  return {};
}

IpvsDestination& FakeIpvs::destination(const IpvsKey& service, const IpvsDestination& d) {
  return services_.at(service).destinations.at({d.address, d.port});
}

std::string FakeIpvs::list() const {
  std::string out;
  for (const auto& [key, e] : services_) {
    out += service_text(e.service) + "\n";
    for (const auto& [at, d] : e.destinations) out += "  " + destination_text(d) + "\n";
  }
  return out;
}

}  // namespace hawser::netlink
