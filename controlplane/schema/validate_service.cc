// SPDX-License-Identifier: Apache-2.0
// Rules of Service. Source: the Kubernetes API reference of Service. Ranges (ClusterIP, NodePort) are the allocator's
// business.
#include <set>
#include <string>

#include <boost/json/array.hpp>

#include "controlplane/schema/validate.h"
#include "lib/base/ip.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

constexpr auto kNotAnIp = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

bool balanced_or_node_port(std::string_view type) {
  return type == "NodePort" || type == "LoadBalancer";
}

void validate_port(const Object& p, const std::string& where, bool name_needed, FieldErrors& e) {
  auto name = kube::str(p, {"name"});
  if (name.empty() && name_needed)
    e.required(at(where, "name"));
  else if (!name.empty())
    e.invalid(at(where, "name"), name, check_dns1123_label(name));
  const auto* target = kube::find(p, {"targetPort"});
  if (target && target->is_int64()) e.invalid(at(where, "targetPort"), *target, check_port_number(target->get_int64()));
  if (target && target->is_string()) e.invalid(at(where, "targetPort"), *target, check_port_name(target->get_string()));
  if (auto node = kube::num(p, {"nodePort"}); node != 0)
    e.invalid(at(where, "nodePort"), node, check_port_number(node));
}

void validate_ports(const Object& spec, FieldErrors& e) {
  auto type = kube::str(spec, {"type"});
  const auto& ports = kube::arr(spec, {"ports"});
  bool headless = kube::str(spec, {"clusterIP"}) == "None";
  if (ports.empty() && !headless && type != "ExternalName") e.required("spec.ports");
  std::set<std::string> names, pairs, node_ports;
  for (std::size_t i = 0; i < ports.size(); i++) {
    const auto& p = kube::as_obj(ports[i]);
    auto where = at("spec.ports", i);
    validate_port(p, where, ports.size() > 1, e);
    auto protocol = std::string(kube::str(p, {"protocol"}));
    auto name = kube::str(p, {"name"});
    if (!name.empty() && !names.emplace(name).second) e.duplicate(at(where, "name"), name);
    auto port = kube::num(p, {"port"});
    if (!pairs.emplace(fmt::format("{}/{}", protocol, port)).second)
      e.duplicate(where, Object{{"port", port}, {"protocol", protocol}});
    auto node = kube::num(p, {"nodePort"});
    if (node == 0) continue;
    if (!balanced_or_node_port(type)) e.forbidden(at(where, "nodePort"), "may not be used when `type` is 'ClusterIP'");
    if (!node_ports.emplace(fmt::format("{}/{}", protocol, node)).second) e.duplicate(at(where, "nodePort"), node);
  }
}

void validate_addresses(const Object& spec, FieldErrors& e) {
  auto ip = kube::str(spec, {"clusterIP"});
  auto type = kube::str(spec, {"type"});
  if (!ip.empty() && ip != "None" && !IpAddr::parse(ip)) e.invalid("spec.clusterIPs[0]", ip, kNotAnIp);
  if (ip == "None" && balanced_or_node_port(type))
    e.invalid("spec.clusterIPs[0]", ip, fmt::format("may not be set to 'None' for {} services", type));
  if (type == "ExternalName" && !ip.empty())
    e.forbidden("spec.clusterIPs", "may not be set when `type` is 'ExternalName'");
  const auto& external = kube::arr(spec, {"externalIPs"});
  for (std::size_t i = 0; i < external.size(); i++) {
    if (!external[i].is_string()) continue;
    auto parsed = IpAddr::parse(external[i].get_string());
    if (!parsed) {
      e.invalid(at("spec.externalIPs", i), external[i], kNotAnIp);
      continue;
    }
    bool loopback = parsed->is_v4() ? parsed->bytes()[0] == 127 : parsed->text() == "::1";
    if (loopback)
      e.invalid(at("spec.externalIPs", i), external[i], "may not be in the loopback range (127.0.0.0/8, ::1/128)");
  }
  const auto& ranges = kube::arr(spec, {"loadBalancerSourceRanges"});
  for (std::size_t i = 0; i < ranges.size(); i++) {
    if (ranges[i].is_string() && !Cidr::parse(ranges[i].get_string()))
      e.invalid(at("spec.loadBalancerSourceRanges", i), ranges[i],
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
  }
  if (!ranges.empty() && type != "LoadBalancer")
    e.forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'");
}

void validate_policies(const Object& spec, FieldErrors& e) {
  auto type = kube::str(spec, {"type"});
  auto external = kube::str(spec, {"externalTrafficPolicy"});
  bool outside = balanced_or_node_port(type) || !kube::arr(spec, {"externalIPs"}).empty();
  if (!external.empty() && !outside)
    e.invalid("spec.externalTrafficPolicy", external, "may only be set for externally-accessible services");
  auto check_port = kube::num(spec, {"healthCheckNodePort"});
  bool checks = type == "LoadBalancer" && external == "Local";
  if (check_port != 0 && !checks)
    e.invalid("spec.healthCheckNodePort", check_port,
              "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
  if (const auto* timeout = kube::find(spec, {"sessionAffinityConfig", "clientIP", "timeoutSeconds"})) {
    constexpr std::int64_t kDay = 86400;
    if (timeout->is_int64() && (timeout->get_int64() <= 0 || timeout->get_int64() > kDay))
      e.invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", *timeout,
                fmt::format("must be greater than 0 and less than {}", kDay));
  }
  if (auto d = kube::str(spec, {"trafficDistribution"});
      !d.empty() && d != "PreferClose" && d != "PreferSameZone" && d != "PreferSameNode")
    e.not_supported("spec.trafficDistribution", d, {"PreferClose", "PreferSameNode", "PreferSameZone"});
  if (kube::find(spec, {"allocateLoadBalancerNodePorts"}) && type != "LoadBalancer")
    e.forbidden("spec.allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'");
}

}  // namespace

void validate_service(const Object& o, FieldErrors& e) {
  const auto& spec = kube::obj(o, {"spec"});
  validate_ports(spec, e);
  validate_labels(kube::obj(spec, {"selector"}), "spec.selector", e);
  validate_addresses(spec, e);
  validate_policies(spec, e);
  if (kube::str(spec, {"type"}) != "ExternalName") return;
  auto name = kube::str(spec, {"externalName"});
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.empty())
    e.required("spec.externalName");
  else
    e.invalid("spec.externalName", name, check_dns1123_subdomain(name));
}

void validate_service_update(const Object& old, const Object& o, FieldErrors& e) {
  const auto& before = kube::obj(old, {"spec"});
  const auto& after = kube::obj(o, {"spec"});
  // A service may gain an address (from ExternalName) or give it up (to ExternalName), but not change it.
  auto ip = kube::str(before, {"clusterIP"});
  bool fixed =
      kube::str(before, {"type"}) != "ExternalName" && kube::str(after, {"type"}) != "ExternalName" && !ip.empty();
  if (fixed && kube::str(after, {"clusterIP"}) != ip)
    e.invalid("spec.clusterIPs[0]", kube::str(after, {"clusterIP"}), "may not change once set");
  if (kube::str(before, {"type"}) == "LoadBalancer" && kube::str(after, {"type"}) == "LoadBalancer" &&
      !same(before, after, "loadBalancerClass"))
    e.invalid("spec.loadBalancerClass", kube::str(after, {"loadBalancerClass"}), "may not change once set");
}

}  // namespace hawser::schema
