// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/service_ip.h"

#include <algorithm>
#include <charconv>

#include <boost/json/serialize.hpp>

#include "lib/base/log.h"
#include "lib/base/random.h"

namespace hawser::apiserver {

using kube::Array;
using kube::FieldError;

namespace {

constexpr std::string_view kIpPrefix = "/allocator/clusterips/";
constexpr std::string_view kPortPrefix = "/allocator/nodeports/";

std::string ip_key(std::string_view ip) {
  return fmt::format("{}{}", kIpPrefix, ip);
}
std::string port_key(std::int64_t port) {
  return fmt::format("{}{}", kPortPrefix, port);
}

std::string_view type_of(const Object& spec) {
  auto t = kube::str(spec, {"type"});
  return t.empty() ? "ClusterIP" : t;
}
bool needs_ip(std::string_view type) {
  return type != "ExternalName";
}
bool needs_ports(const Object& spec) {
  auto t = type_of(spec);
  return t == "NodePort" || (t == "LoadBalancer" && kube::flag(spec, {"allocateLoadBalancerNodePorts"}, true));
}
bool needs_health_port(const Object& spec) {
  return type_of(spec) == "LoadBalancer" && kube::str(spec, {"externalTrafficPolicy"}) == "Local";
}

std::string first_ip(const Object& spec) {
  auto ip = kube::str(spec, {"clusterIP"});
  if (!ip.empty()) return std::string(ip);
  auto& list = kube::arr(spec, {"clusterIPs"});
  return list.empty() || !list[0].is_string() ? std::string() : std::string(list[0].get_string());
}

// The port of `old` with the same protocol and port number: the one a client means when it leaves out nodePort.
std::int64_t node_port_of(const Object& old_spec, const Object& port) {
  for (auto& p : kube::arr(old_spec, {"ports"})) {
    auto& o = kube::as_obj(p);
    if (kube::num(o, {"port"}) == kube::num(port, {"port"}) &&
        kube::str(o, {"protocol"}) == kube::str(port, {"protocol"})) {
      return kube::num(o, {"nodePort"});
    }
  }
  return 0;
}

void inherit_ports(const Object& old_spec, Object& spec) {
  auto* ports = spec.if_contains("ports");
  if (ports == nullptr || !ports->is_array()) return;
  bool wanted = needs_ports(spec);
  for (auto& p : ports->get_array()) {
    if (!p.is_object()) continue;
    auto& port = p.get_object();
    auto before = node_port_of(old_spec, port);
    if (wanted && kube::num(port, {"nodePort"}) == 0 && before != 0) port["nodePort"] = before;
    if (!wanted && type_of(spec) != type_of(old_spec) && kube::num(port, {"nodePort"}) == before)
      port.erase("nodePort");
  }
}

// A field that only some types have goes with the type, unless the client changed it in the same write.
void drop_unchanged(const Object& old_spec, Object& spec, std::string_view key) {
  auto* before = old_spec.if_contains(key);
  auto* now = spec.if_contains(key);
  if (before != nullptr && now != nullptr && *before == *now) spec.erase(key);
}

void inherit_from(const Object& old_spec, Object& spec) {
  bool had = needs_ip(type_of(old_spec));
  bool needs = needs_ip(type_of(spec));
  if (had && needs && first_ip(spec).empty()) {
    for (auto* key : {"clusterIP", "clusterIPs"}) {
      if (auto* v = old_spec.if_contains(key)) spec[key] = *v;
    }
  }
  if (had && !needs && (first_ip(spec).empty() || first_ip(spec) == first_ip(old_spec))) {
    for (auto* key : {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"})
      spec.erase(key);
  }
  inherit_ports(old_spec, spec);
  bool external = type_of(spec) == "NodePort" || type_of(spec) == "LoadBalancer";
  if (!external) drop_unchanged(old_spec, spec, "externalTrafficPolicy");
  if (type_of(spec) != "LoadBalancer") drop_unchanged(old_spec, spec, "allocateLoadBalancerNodePorts");
  auto health = kube::num(old_spec, {"healthCheckNodePort"});
  if (needs_health_port(spec) && health != 0 && kube::num(spec, {"healthCheckNodePort"}) == 0) {
    spec["healthCheckNodePort"] = health;
  }
  if (!needs_health_port(spec)) drop_unchanged(old_spec, spec, "healthCheckNodePort");
}

FieldError invalid_value(std::string field, const Value& value, std::string detail) {
  return {FieldError::Type::kInvalid, std::move(field), boost::json::serialize(value), std::move(detail)};
}

void check_families(const Object& spec, std::vector<FieldError>& failures) {
  auto& families = kube::arr(spec, {"ipFamilies"});
  for (std::size_t i = 0; i < families.size(); ++i) {
    if (families[i] == "IPv4") continue;
    failures.push_back(
        invalid_value(fmt::format("spec.ipFamilies[{}]", i), families[i], "not configured on this cluster"));
  }
  if (kube::str(spec, {"ipFamilyPolicy"}) == "RequireDualStack") {
    failures.push_back(invalid_value("spec.ipFamilyPolicy", spec.at("ipFamilyPolicy"),
                                     "this cluster is not configured for dual-stack services"));
  }
}

void set_family_fields(Object& spec) {
  if (kube::arr(spec, {"ipFamilies"}).empty()) spec["ipFamilies"] = Array{"IPv4"};
  if (kube::str(spec, {"ipFamilyPolicy"}).empty()) spec["ipFamilyPolicy"] = "SingleStack";
  if (kube::str(spec, {"internalTrafficPolicy"}).empty()) spec["internalTrafficPolicy"] = "Cluster";
}

}  // namespace

Result<PortRange> PortRange::parse(std::string_view text) {
  PortRange r;
  auto dash = text.find('-');
  auto number = [](std::string_view s, int& out) {
    auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), out);
    return ec == std::errc() && end == s.data() + s.size();
  };
  if (dash == std::string_view::npos || !number(text.substr(0, dash), r.first) ||
      !number(text.substr(dash + 1), r.last) || r.first < 1 || r.last > 65535 || r.first > r.last) {
    return fail(EINVAL, "node port range '{}': want FIRST-LAST within 1-65535", text);
  }
  return r;
}

void ServiceAllocator::inherit(const Object* old, Object& next) {
  auto& spec = kube::ensure(next, {"spec"});
  if (old != nullptr) inherit_from(kube::obj(*old, {"spec"}), spec);
  auto type = type_of(spec);
  if ((type == "NodePort" || type == "LoadBalancer") && kube::str(spec, {"externalTrafficPolicy"}).empty()) {
    spec["externalTrafficPolicy"] = "Cluster";
  }
  if (type == "LoadBalancer" && !spec.contains("allocateLoadBalancerNodePorts")) {
    spec["allocateLoadBalancerNodePorts"] = true;
  }
  // The old single field and the new list say the same.
  auto ip = first_ip(spec);
  if (ip.empty() || !needs_ip(type)) return;
  if (kube::str(spec, {"clusterIP"}).empty()) spec["clusterIP"] = ip;
  if (kube::arr(spec, {"clusterIPs"}).empty()) spec["clusterIPs"] = Array{Value(ip)};
}

std::set<std::string> ServiceAllocator::keys_of(const Object& service) {
  std::set<std::string> keys;
  auto& spec = kube::obj(service, {"spec"});
  if (needs_ip(type_of(spec))) {
    for (auto& ip : kube::arr(spec, {"clusterIPs"})) {
      if (ip.is_string() && !ip.get_string().empty() && ip != "None") keys.insert(ip_key(ip.get_string()));
    }
  }
  for (auto& p : kube::arr(spec, {"ports"})) {
    if (auto port = kube::num(kube::as_obj(p), {"nodePort"}); port != 0) keys.insert(port_key(port));
  }
  if (auto port = kube::num(spec, {"healthCheckNodePort"}); port != 0) keys.insert(port_key(port));
  return keys;
}

Allocation ServiceAllocator::release(const Object& service) {
  auto keys = keys_of(service);
  return {.claims = {}, .release = {keys.begin(), keys.end()}};
}

std::int64_t ServiceAllocator::pick(std::int64_t count, std::int64_t band, const Allocation& a,
                                    const std::function<std::string(std::int64_t)>& key_of) {
  auto claimed = [&](const std::string& key) {
    return std::ranges::any_of(a.claims, [&](auto& c) { return c.key == key; });
  };
  std::lock_guard l(mu_);
  auto try_range = [&](std::int64_t from, std::int64_t to) -> std::int64_t {
    if (from >= to) return -1;
    auto start = static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(to - from));
    for (std::int64_t i = 0; i < to - from; ++i) {
      auto n = from + (start + i) % (to - from);
      auto key = key_of(n);
      if (!used_.contains(key) && !claimed(key)) return n;
    }
    return -1;
  };
  band = std::min(band, count);
  auto n = try_range(band, count);
  return n >= 0 ? n : try_range(0, band);
}

void ServiceAllocator::allocate_ip(Object& spec, Allocation& a, Failures& failures, kube::Status& full) {
  auto ip = first_ip(spec);
  if (ip == "None") return;
  // The network's own address and the last one are never given out.
  auto count = static_cast<std::int64_t>(std::min<std::uint64_t>(cidr_.size(), 1u << 20)) - 2;
  if (ip.empty()) {
    auto at = [&](std::int64_t n) { return cidr_.addr().plus(static_cast<std::uint64_t>(n) + 1).text(); };
    auto n = pick(count, std::min<std::int64_t>(std::max<std::int64_t>(16, count / 16), 256), a,
                  [&](std::int64_t i) { return ip_key(at(i)); });
    if (n < 0) {
      full = kube::internal_error("failed to allocate a serviceIP: range is full");
      return;
    }
    ip = at(n);
    spec["clusterIP"] = ip;
    spec["clusterIPs"] = Array{Value(ip)};
    a.claims.push_back({ip_key(ip), true, {}});
    return;
  }
  auto& list = spec.at("clusterIPs");
  auto parsed = IpAddr::parse(ip);
  bool inside = parsed && cidr_.contains(*parsed) && *parsed != cidr_.addr() && *parsed != cidr_.last();
  if (!inside) {
    failures.push_back(
        invalid_value("spec.clusterIPs", list,
                      fmt::format("failed to allocate IP {}: the provided IP is not in the valid range. The "
                                  "range of valid IPs is {}",
                                  ip, cidr_.text())));
    return;
  }
  a.claims.push_back({ip_key(parsed->text()), false,
                      invalid_value("spec.clusterIPs", list,
                                    fmt::format("failed to allocate IP {}: provided IP is already allocated", ip))});
}

void ServiceAllocator::claim_port(int port, const std::string& field, const std::set<std::string>& held, Allocation& a,
                                  Failures& failures) {
  auto key = port_key(port);
  if (held.contains(key) || std::ranges::any_of(a.claims, [&](auto& c) { return c.key == key; })) return;
  if (port < ports_.first || port > ports_.last) {
    failures.push_back(invalid_value(
        field, port,
        fmt::format("provided port is not in the valid range. The range of valid ports is {}", ports_.text())));
    return;
  }
  a.claims.push_back({key, false, invalid_value(field, port, "provided port is already allocated")});
}

int ServiceAllocator::pick_port(const Allocation& a) {
  std::int64_t count = ports_.last - ports_.first + 1;
  auto n = pick(count, std::min<std::int64_t>(std::max<std::int64_t>(16, count / 32), 128), a,
                [&](std::int64_t i) { return port_key(ports_.first + i); });
  return n < 0 ? -1 : ports_.first + static_cast<int>(n);
}

void ServiceAllocator::allocate_ports(Object& spec, const std::set<std::string>& held, Allocation& a,
                                      Failures& failures) {
  auto* list = spec.if_contains("ports");
  if (list == nullptr || !list->is_array()) return;
  auto& ports = list->get_array();
  for (std::size_t i = 0; i < ports.size(); ++i) {
    auto port = kube::num(kube::as_obj(ports[i]), {"nodePort"});
    if (port != 0) claim_port(static_cast<int>(port), fmt::format("spec.ports[{}].nodePort", i), held, a, failures);
  }
  std::map<std::int64_t, int> by_port;  // one node port serves TCP and UDP of the same port
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!ports[i].is_object()) continue;
    auto& port = ports[i].get_object();
    auto& same = by_port[kube::num(port, {"port"})];
    if (auto given = kube::num(port, {"nodePort"}); given != 0) {
      same = static_cast<int>(given);
      continue;
    }
    if (same == 0) {
      same = pick_port(a);
      if (same < 0) {
        failures.push_back(invalid_value(fmt::format("spec.ports[{}].nodePort", i), 0,
                                         "failed to allocate a nodePort: range is full"));
        return;
      }
      a.claims.push_back({port_key(same), true, {}});
    }
    port["nodePort"] = same;
  }
}

void ServiceAllocator::allocate_health_port(Object& spec, const std::set<std::string>& held, Allocation& a,
                                            Failures& failures) {
  auto port = static_cast<int>(kube::num(spec, {"healthCheckNodePort"}));
  if (port != 0) {
    claim_port(port, "spec.healthCheckNodePort", held, a, failures);
    return;
  }
  port = pick_port(a);
  if (port < 0) {
    failures.push_back(invalid_value("spec.healthCheckNodePort", 0, "failed to allocate a nodePort: range is full"));
    return;
  }
  spec["healthCheckNodePort"] = port;
  a.claims.push_back({port_key(port), true, {}});
}

Expected<Allocation> ServiceAllocator::allocate(const Object* old, Object& next) {
  Allocation a;
  Failures failures;
  kube::Status full{.code = 0};
  auto& spec = kube::ensure(next, {"spec"});
  auto held = old == nullptr ? std::set<std::string>() : keys_of(*old);
  if (needs_ip(type_of(spec))) {
    check_families(spec, failures);
    set_family_fields(spec);
    if (first_ip(spec).empty() || !held.contains(ip_key(first_ip(spec)))) allocate_ip(spec, a, failures, full);
  }
  if (needs_ports(spec)) allocate_ports(spec, held, a, failures);
  if (needs_health_port(spec)) allocate_health_port(spec, held, a, failures);
  if (!failures.empty()) return std::unexpected(kube::invalid("", "Service", kube::name(next), std::move(failures)));
  if (full.code != 0) return std::unexpected(std::move(full));
  auto wanted = keys_of(next);
  std::ranges::set_difference(held, wanted, std::back_inserter(a.release));
  return a;
}

void ServiceAllocator::note_taken(const std::string& key) {
  std::lock_guard l(mu_);
  used_.insert(key);
}

void ServiceAllocator::forget() {
  std::lock_guard l(mu_);
  used_.clear();
}

void ServiceAllocator::on_key(const store::Event& e) {
  if (!e.kv.key.starts_with(kPrefix)) return;
  std::lock_guard l(mu_);
  if (e.type == store::Event::Type::kPut) {
    used_.insert(e.kv.key);
  } else {
    used_.erase(e.kv.key);
  }
}

Result<int> ServiceAllocator::repair(store::Store& s, std::span<const EntryPtr> services) {
  auto got = s.range({.key = std::string(kPrefix), .end = store::prefix_end(std::string(kPrefix))});
  if (!got) return propagate(got, "read the service allocations");
  std::map<std::string, std::string> have;
  for (auto& kv : got->kvs) have[kv.key] = kv.value;
  std::map<std::string, std::string> want;
  for (auto& service : services) {
    for (auto& key : keys_of(*service->object)) {
      auto [it, fresh] = want.emplace(key, service->key);
      if (!fresh) log::error("services {} and {} both hold {}", it->second, service->key, key);
    }
  }
  store::Txn t;
  for (auto& [key, owner] : want) {
    if (auto it = have.find(key); it == have.end() || it->second != owner) {
      t.success.push_back({.type = store::Op::Type::kPut, .key = key, .value = owner});
    }
  }
  for (auto& [key, owner] : have) {
    if (!want.contains(key)) t.success.push_back({.type = store::Op::Type::kDelete, .key = key});
  }
  if (t.success.empty()) return 0;
  auto done = s.txn(t);
  if (!done) return propagate(done, "repair the service allocations");
  return static_cast<int>(t.success.size());
}

}  // namespace hawser::apiserver
