// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/service_port.h"

#include <algorithm>
#include <charconv>
#include <ranges>
#include <set>
#include <tuple>

#include <fmt/format.h>
#include <netinet/in.h>

#include "proxyd/model/options.h"

namespace hawser::proxy {
namespace {

constexpr std::int64_t kDefaultAffinitySeconds = 10800;
constexpr std::int64_t kMaxAffinitySeconds = 86400;
constexpr std::string_view kSourceRangesAnnotation = "service.beta.kubernetes.io/load-balancer-source-ranges";

std::string_view trimmed(std::string_view s) {
  const auto first = s.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(" \t\n") - first + 1);
}

// Of a list with commas.
void for_each_part(std::string_view text, const std::function<void(std::string_view)>& each) {
  for (const auto part : std::views::split(text, ',')) each(std::string_view(part));
}

struct Reader {
  const kube::Object& o;
  std::vector<std::string>& problems;
  Service s;

  void problem(std::string text) { problems.push_back(fmt::format("Service {}: {}", s.key, text)); }

  // A spec field with addresses, as one list without doubles.
  void add_ip(std::string_view field, std::string_view text, std::vector<IpAddr>& out) {
    auto a = IpAddr::parse(text);
    if (!a) return problem(fmt::format("{}: \"{}\" is not an IP address", field, text));
    if (std::ranges::find(out, *a) == out.end()) out.push_back(*a);
  }

  void read_cluster_ips() {
    for (const auto& v : kube::arr(o, {"spec", "clusterIPs"})) {
      if (v.is_string() && v.get_string() != "None") add_ip("spec.clusterIPs", v.get_string(), s.cluster_ips);
    }
    const auto one = kube::str(o, {"spec", "clusterIP"});
    if (s.cluster_ips.empty() && !one.empty() && one != "None") add_ip("spec.clusterIP", one, s.cluster_ips);
  }

  void read_external_ips() {
    for (const auto& v : kube::arr(o, {"spec", "externalIPs"})) {
      if (v.is_string()) add_ip("spec.externalIPs", v.get_string(), s.external_ips);
    }
    if (kube::str(o, {"spec", "type"}) != "LoadBalancer") return;
    for (const auto& v : kube::arr(o, {"status", "loadBalancer", "ingress"})) {
      const auto& item = kube::as_obj(v);
      const auto ip = kube::str(item, {"ip"});
      if (!ip.empty() && kube::str(item, {"ipMode"}) != "Proxy")
        add_ip("status.loadBalancer.ingress", ip, s.load_balancer_ips);
    }
    // An address that is both is the balancer's, whose source ranges then hold.
    std::erase_if(s.external_ips, [&](const IpAddr& a) {
      return std::ranges::find(s.load_balancer_ips, a) != s.load_balancer_ips.end();
    });
    read_source_ranges();
  }

  // A list of which nothing can be used still limits: to nobody. Serving everybody would be the opposite of what was
  // asked.
  void add_source_range(std::string_view field, std::string_view text) {
    text = trimmed(text);
    s.limited = true;
    auto c = Cidr::parse(text);
    if (!c) return problem(fmt::format("{}: \"{}\" is not a range of addresses", field, text));
    s.source_ranges.push_back(*c);
  }

  void read_source_ranges() {
    for (const auto& v : kube::arr(o, {"spec", "loadBalancerSourceRanges"})) {
      if (v.is_string()) add_source_range("spec.loadBalancerSourceRanges", v.get_string());
    }
    const auto text = trimmed(kube::str(o, {"metadata", "annotations", kSourceRangesAnnotation}));
    if (!s.limited && !text.empty()) {
      for_each_part(text, [&](std::string_view part) { add_source_range(kSourceRangesAnnotation, part); });
    }
    s.source_ranges = without_nested(std::move(s.source_ranges));
  }

  void read_port(const kube::Object& p, std::set<std::tuple<std::uint8_t, std::int64_t>>& seen) {
    ServicePort r;
    r.name = kube::str(p, {"name"});
    const auto proto = kube::str(p, {"protocol"});
    r.protocol = protocol_number(proto.empty() ? "TCP" : proto);
    const std::int64_t port = kube::num(p, {"port"});
    const std::int64_t node_port = kube::num(p, {"nodePort"});
    if (r.protocol == 0) return problem(fmt::format("spec.ports: protocol \"{}\" is not TCP, UDP or SCTP", proto));
    if (port < 1 || port > 65535) return problem(fmt::format("spec.ports: port {} is not between 1 and 65535", port));
    if (node_port < 0 || node_port > 65535)
      return problem(fmt::format("spec.ports: nodePort {} is not between 1 and 65535", node_port));
    if (!seen.emplace(r.protocol, port).second) return problem(fmt::format("spec.ports: port {} is there twice", port));
    r.port = static_cast<std::uint16_t>(port);
    r.node_port = static_cast<std::uint16_t>(node_port);
    s.ports.push_back(std::move(r));
  }

  void read_affinity() {
    if (kube::str(o, {"spec", "sessionAffinity"}) != "ClientIP") return;
    std::int64_t t =
        kube::num(o, {"spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"}, kDefaultAffinitySeconds);
    if (t < 1 || t > kMaxAffinitySeconds) {
      problem(fmt::format("spec.sessionAffinityConfig.clientIP.timeoutSeconds: {} is not between 1 and {}", t,
                          kMaxAffinitySeconds));
      t = kDefaultAffinitySeconds;
    }
    s.affinity_seconds = static_cast<std::uint32_t>(t);
  }

  void read() {
    if (kube::str(o, {"spec", "type"}) == "ExternalName") return;
    read_cluster_ips();
    if (s.cluster_ips.empty()) return;
    read_external_ips();
    std::set<std::tuple<std::uint8_t, std::int64_t>> seen;
    for (const auto& p : kube::arr(o, {"spec", "ports"})) read_port(kube::as_obj(p), seen);
    read_affinity();
    s.weights = parse_weights(o, [&](std::string text) { problem(std::move(text)); });
    s.external_local = kube::str(o, {"spec", "externalTrafficPolicy"}) == "Local";
    s.internal_local = kube::str(o, {"spec", "internalTrafficPolicy"}) == "Local";
    const std::int64_t check = kube::num(o, {"spec", "healthCheckNodePort"});
    if (check > 0 && check <= 65535) s.health_check_node_port = static_cast<std::uint16_t>(check);
  }
};

}  // namespace

std::uint8_t protocol_number(std::string_view name) {
  if (name == "TCP") return IPPROTO_TCP;
  if (name == "UDP") return IPPROTO_UDP;
  if (name == "SCTP") return IPPROTO_SCTP;
  return 0;
}

std::string_view protocol_name(std::uint8_t number) {
  switch (number) {
    case IPPROTO_TCP:
      return "TCP";
    case IPPROTO_UDP:
      return "UDP";
    case IPPROTO_SCTP:
      return "SCTP";
    default:
      return "";
  }
}

std::vector<EndpointWeight> parse_weights(const kube::Object& o, const std::function<void(std::string)>& problem) {
  std::vector<EndpointWeight> r;
  const auto text = trimmed(kube::str(o, {"metadata", "annotations", kWeightsAnnotation}));
  if (text.empty()) return r;
  for_each_part(text, [&](std::string_view part) {
    part = trimmed(part);
    const auto equals = part.find('=');
    const auto addr = IpAddr::parse(trimmed(part.substr(0, equals)));
    const auto number = equals == std::string_view::npos ? std::string_view() : trimmed(part.substr(equals + 1));
    std::uint32_t weight = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), weight);
    if (!addr || number.empty() || error != std::errc() || end != number.data() + number.size() ||
        weight > kMaxWeight) {
      problem(fmt::format("annotation {}: \"{}\" is not address=0..{}", kWeightsAnnotation, part, kMaxWeight));
      return;
    }
    r.push_back({*addr, static_cast<std::uint16_t>(weight)});
  });
  return r;
}

Service parse_service(const kube::Object& o, std::vector<std::string>& problems) {
  Reader r{o, problems, {}};
  r.s.key = kube::key(o);
  r.read();
  return std::move(r.s);
}

}  // namespace hawser::proxy
