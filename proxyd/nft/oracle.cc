// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/oracle.h"

#include <algorithm>

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

using End = Trace::End;

bool in_any(const std::vector<Cidr>& ranges, const IpAddr& a) {
  return std::ranges::any_of(ranges, [&](const Cidr& c) { return c.contains(a); });
}

bool has_family(const std::vector<Cidr>& ranges, int family) {
  return std::ranges::any_of(ranges, [&](const Cidr& c) { return c.family() == family; });
}

enum class Origin : std::uint8_t { kPod, kOther, kUnknown };

Origin origin(const TrafficOptions& o, const Packet& p) {
  bool pod = false;
  switch (o.detect_local) {
    case DetectLocal::kCidr:
      if (!has_family(o.cluster_cidrs, p.source.family())) return Origin::kUnknown;
      pod = in_any(o.cluster_cidrs, p.source);
      break;
    case DetectLocal::kBridgeInterface:
      pod = p.interface == o.local_interface;
      break;
    case DetectLocal::kInterfacePrefix:
      pod = p.interface.starts_with(o.local_interface);
      break;
    case DetectLocal::kNone:
      return Origin::kUnknown;
  }
  return pod ? Origin::kPod : Origin::kOther;
}

const Frontend* find(const DesiredState& state, const IpAddr& addr, const Packet& p) {
  for (const auto& s : state.services) {
    for (const Frontend& f : s->frontends) {
      if (f.addr == addr && f.family == p.destination.family() && f.protocol == p.protocol &&
          f.port == p.destination_port)
        return &f;
    }
  }
  return nullptr;
}

Expected refused(const Packet& p, bool from_here) {
  if (p.protocol == IPPROTO_TCP) return {.end = End::kReset};
  if (p.protocol != IPPROTO_UDP || !from_here) return {.end = End::kReject};
  return {.end = End::kTranslated, .targets = {{*IpAddr::parse(p.source.is_v4() ? "127.0.0.1" : "::1"), 1}}};
}

Expected at_frontend(const Frontend& f, const TrafficOptions& o, const Packet& p, bool from_here) {
  if (f.limited && !in_any(f.sources, p.source)) return {.end = End::kDrop};
  const bool local_policy = f.reach == Reach::kExternalLocal;
  if (f.targets.empty()) {
    if (!local_policy && f.when_empty == WhenEmpty::kDrop) return {.end = End::kDrop};
    return refused(p, from_here);
  }
  const Origin from = origin(o, p);
  if (local_policy && from != Origin::kPod && !from_here) {
    if (f.local.empty()) return {.end = End::kDrop};
    return {.end = End::kTranslated, .targets = f.local};
  }
  const bool masquerade = f.reach == Reach::kExternal || o.masquerade_all || from == Origin::kOther ||
                          (local_policy && from_here && from != Origin::kPod);
  return {.end = End::kTranslated, .targets = f.targets, .masquerade = masquerade};
}

}  // namespace

Expected expected(const DesiredState& state, const TrafficOptions& o, const Packet& p,
                  const std::function<bool(const IpAddr&)>& is_local) {
  const bool from_here = is_local(p.source);
  const bool icmp = p.protocol == IPPROTO_ICMP || p.protocol == IPPROTO_ICMPV6;
  if (const Frontend* f = icmp ? nullptr : find(state, p.destination, p)) return at_frontend(*f, o, p, from_here);
  const bool cluster_ip = std::ranges::any_of(
      state.services, [&](const auto& s) { return std::ranges::binary_search(s->cluster_ips, p.destination); });
  if (cluster_ip) {
    const int echo = p.destination.is_v4() ? 8 : 128;
    if (icmp && o.icmp_echo && p.destination_port == echo) return {.end = End::kRedirected};
    return refused(p, from_here);
  }
  if (in_any(o.service_cidrs, p.destination)) return {.end = End::kDrop};
  if (!icmp && is_local(p.destination) && serves_node_ports(o, p.destination)) {
    if (const Frontend* f = find(state, IpAddr(), p)) return at_frontend(*f, o, p, from_here);
  }
  return {};
}

bool is_hairpin(const DesiredState& state, const IpAddr& source, const IpAddr& target) {
  return source == target && std::ranges::any_of(state.services, [&](const auto& s) {
           return std::ranges::binary_search(s->local_addrs, target);
         });
}

namespace {

unsigned roll(std::mt19937& random, unsigned n) {
  return static_cast<unsigned>(random() % n);
}
bool one_in(std::mt19937& random, unsigned n) {
  return roll(random, n) == 0;
}

kube::Array texts(const std::vector<std::string>& list) {
  kube::Array a;
  for (const auto& t : list) a.emplace_back(t);
  return a;
}

kube::Object random_port(std::mt19937& random, int number) {
  static constexpr const char* kProtocols[] = {"TCP", "UDP", "SCTP", "TCP", "UDP", "XYZ"};
  kube::Object p{{"name", fmt::format("p{}", roll(random, 3))},
                 {"protocol", kProtocols[roll(random, 6)]},
                 {"port", one_in(random, 30) ? 70000 : static_cast<int>(80 + roll(random, 3))}};
  if (one_in(random, 2)) p["nodePort"] = static_cast<int>(30000 + number * 3 + static_cast<int>(roll(random, 3)));
  return p;
}

kube::Object random_spec(std::mt19937& random, int number) {
  static constexpr const char* kTypes[] = {"ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"};
  static constexpr const char* kPolicy[] = {"Cluster", "Local"};
  static const std::vector<std::string> kRanges = {"192.0.2.0/25", "10.244.0.0/16", "192.0.2.11/32", "nonsense",
                                                   "fd00::/16",    "2001:db8::/64", "0.0.0.0/0",     "10.244.1.0/24"};
  std::vector<std::string> ips = {fmt::format("10.96.0.{}", number)};
  if (one_in(random, 2)) ips.push_back(fmt::format("fd00:96::{:x}", number));
  kube::Object spec{{"type", kTypes[one_in(random, 12) ? 4 : roll(random, 4)]},
                    {"clusterIPs", texts(ips)},
                    {"clusterIP", one_in(random, 20) ? "None" : ips[0]},
                    {"externalTrafficPolicy", kPolicy[roll(random, 2)]},
                    {"internalTrafficPolicy", kPolicy[one_in(random, 4) ? 1 : 0]}};
  if (spec["clusterIP"] == "None") spec["clusterIPs"] = texts({"None"});
  kube::Array ports;
  for (unsigned i = roll(random, 3); i <= 2; ++i) ports.push_back(random_port(random, number));
  spec["ports"] = ports;
  // Some external addresses are claimed by several.
  if (one_in(random, 3)) spec["externalIPs"] = texts({fmt::format("203.0.113.{}", roll(random, 20)), "2001:db8:1::1"});
  std::vector<std::string> ranges;
  for (const auto& r : kRanges) {
    if (one_in(random, 6)) ranges.push_back(r);
  }
  spec["loadBalancerSourceRanges"] = texts(ranges);
  if (one_in(random, 4)) {
    spec["sessionAffinity"] = "ClientIP";
    spec["sessionAffinityConfig"] = kube::Object{{"clientIP", kube::Object{{"timeoutSeconds", 10}}}};
  }
  return spec;
}

kube::Object random_endpoint(std::mt19937& random, bool v4) {
  const unsigned n = roll(random, 12);
  std::string addr =
      v4 ? fmt::format("10.244.{}.{}", 1 + n / 6, n + 1) : fmt::format("fd00:{}::{:x}", 1 + n / 6, n + 1);
  if (one_in(random, 25)) addr = v4 ? "192.0.2.11" : "2001:db8::11";  // on the host's own network
  if (one_in(random, 40)) addr = "no address";
  const bool ready = !one_in(random, 3);
  kube::Object e{{"addresses", texts({addr})},
                 {"nodeName", n < 6 ? "node-1" : "node-2"},
                 {"conditions", kube::Object{{"ready", ready},
                                             {"serving", ready || one_in(random, 2)},
                                             {"terminating", !ready && one_in(random, 2)}}}};
  if (one_in(random, 2)) {
    e["hints"] =
        kube::Object{{"forZones", kube::Array{kube::Object{{"name", one_in(random, 2) ? "zone-1" : "zone-2"}}}}};
  }
  return e;
}

}  // namespace

RandomService random_service(std::mt19937& random, int number) {
  const std::string name = fmt::format("s{:03}", number);
  RandomService r;
  kube::Object ingress_v4{{"ip", fmt::format("203.0.113.{}", 100 + number)}};
  if (one_in(random, 6)) ingress_v4["ipMode"] = "Proxy";
  r.service = std::make_shared<const kube::Object>(kube::Object{
      {"metadata", kube::Object{{"name", name}, {"namespace", "d"}}},
      {"spec", random_spec(random, number)},
      {"status",
       kube::Object{
           {"loadBalancer",
            kube::Object{{"ingress",
                          kube::Array{ingress_v4, kube::Object{{"ip", fmt::format("2001:db8:1::{:x}", number)}}}}}}}}});
  for (unsigned i = 0; i < 3; ++i) {
    const bool v4 = i < 2;
    kube::Array endpoints, ports;
    for (unsigned n = roll(random, 6); n > 0; --n) endpoints.push_back(random_endpoint(random, v4));
    for (int n = 0; n < 3; ++n) {
      for (const char* protocol : {"TCP", "UDP", "SCTP"})
        ports.push_back(kube::Object{{"name", fmt::format("p{}", n)}, {"protocol", protocol}, {"port", 8080 + n}});
    }
    kube::Object annotations;
    if (one_in(random, 3)) annotations["hawser.io/endpoint-weights"] = "10.244.1.1=3,10.244.1.2=0,fd00:1::1=2,x";
    r.slices.push_back(std::make_shared<const kube::Object>(
        kube::Object{{"metadata", kube::Object{{"name", fmt::format("{}-{}", name, i)},
                                               {"namespace", "d"},
                                               {"annotations", annotations},
                                               {"labels", kube::Object{{"kubernetes.io/service-name", name}}}}},
                     {"addressType", v4 ? "IPv4" : "IPv6"},
                     {"ports", ports},
                     {"endpoints", endpoints}}));
  }
  return r;
}

TrafficOptions random_options(std::mt19937& random) {
  TrafficOptions o;
  o.detect_local = static_cast<DetectLocal>(roll(random, 4));
  if (!one_in(random, 4)) o.cluster_cidrs = {*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00::/16")};
  if (one_in(random, 6)) o.cluster_cidrs = {*Cidr::parse("10.244.1.0/24")};
  o.local_interface = o.detect_local == DetectLocal::kInterfacePrefix ? "veth" : "cni0";
  o.masquerade_all = one_in(random, 4);
  o.masquerade_mark = 1u << roll(random, 32);
  if (one_in(random, 2)) o.node_port_addresses = {*Cidr::parse("192.0.2.0/24")};
  if (one_in(random, 4)) o.node_port_addresses.push_back(*Cidr::parse("2001:db8::11/128"));
  o.icmp_echo = one_in(random, 2);
  if (one_in(random, 2)) o.service_cidrs = {*Cidr::parse("10.96.0.0/16"), *Cidr::parse("fd00:96::/112")};
  return o;
}

DesiredStatePtr RandomCluster::next() {
  for (unsigned i = 0; i < 6; ++i) {
    const int number = static_cast<int>(1 + roll(random, 12));
    RandomService now = random_service(random, number);
    if (one_in(random, 5)) now = {};
    RandomService& was = services_[number];
    if (was.service == nullptr && now.service == nullptr) continue;
    tracker.on_service(was.service, now.service);
    for (std::size_t n = 0; n < std::max(was.slices.size(), now.slices.size()); ++n) {
      const auto of = [&](const RandomService& s) { return n < s.slices.size() ? s.slices[n] : nullptr; };
      tracker.on_slice(of(was), of(now));
    }
    was = std::move(now);
  }
  return tracker.take().state;
}

Packet random_packet(std::mt19937& random, const DesiredState& state) {
  static const struct {
    const char *v4, *v6, *interface;
  } kFrom[] = {{"10.244.1.1", "fd00:1::1", "veth1"},    {"10.244.1.2", "fd00:1::2", "cni0"},
               {"10.244.2.7", "fd00:2::7", "eth0"},     {"192.0.2.100", "2001:db8::100", "eth0"},
               {"192.0.2.11", "2001:db8::11", ""},      {"127.0.0.1", "::1", ""},
               {"198.51.100.1", "2001:db8:5::1", "vet"}};
  static constexpr std::uint8_t kProtocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
  static constexpr const char* kNode[] = {"192.0.2.11", "2001:db8::11", "198.51.100.11", "127.0.0.1", "::1"};
  Packet p{.destination = *IpAddr::parse("10.96.0.1"), .protocol = IPPROTO_TCP, .destination_port = 80};
  const ServiceState* s = state.services.empty()
                              ? nullptr
                              : state.services[roll(random, static_cast<unsigned>(state.services.size()))].get();
  if (s != nullptr && !s->frontends.empty()) {
    const Frontend& f = s->frontends[roll(random, static_cast<unsigned>(s->frontends.size()))];
    p.destination = f.addr;
    p.protocol = f.protocol;
    p.destination_port = f.port;
    if (f.is_node_port()) {
      do {
        p.destination = *IpAddr::parse(kNode[roll(random, 5)]);
      } while (p.destination.family() != f.family);
    }
  }
  if (one_in(random, 10)) p.destination_port = static_cast<std::uint16_t>(78 + roll(random, 8));
  if (one_in(random, 10)) p.protocol = kProtocols[roll(random, 3)];
  if (one_in(random, 20)) p.destination = p.destination.plus(1);
  if (one_in(random, 20)) {
    p.protocol = static_cast<std::uint8_t>(p.destination.is_v4() ? 1 : 58);
    p.destination_port = one_in(random, 2) ? 8 : 128;
  }
  const auto& from = kFrom[roll(random, 7)];
  p.source = *IpAddr::parse(p.destination.is_v4() ? from.v4 : from.v6);
  p.interface = from.interface;
  return p;
}

}  // namespace hawser::proxy
