// SPDX-License-Identifier: Apache-2.0
#include "proxyd/ipvs/plan.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

using netlink::IpvsDestination;
using netlink::IpvsKey;
using netlink::IpvsService;
using netlink::IpvsVerb;

// All that Linux has, up to 6.18; whether this kernel has it is seen when a service is made.
constexpr std::array kSchedulers{"rr",    "wrr", "lc", "wlc", "fo",  "ovf", "lblc",
                                 "lblcr", "dh",  "sh", "mh",  "sed", "nq",  "twos"};

bool drains(const IpvsKey& k) {
  return k.protocol == IPPROTO_TCP;
}

bool has(const std::vector<IpAddr>& sorted, const IpAddr& a) {
  return std::ranges::binary_search(sorted, a);
}

// For schedulers that know no weights, the one of the same kind that does.
std::string weighted(const std::string& scheduler) {
  if (scheduler == "rr") return "wrr";
  return scheduler == "lc" ? "wlc" : scheduler;
}

VirtualService virtual_service(const Frontend& f, const IpvsOptions& o) {
  VirtualService v{.scheduler = o.scheduler, .persistence_seconds = f.affinity_seconds};
  for (const Target& t : f.draining) v.weights[t] = 0;
  // IPVS has one list for all clients. With endpoints here, clients outside need exactly those, so pods and this node
  // get them too; with none, the rules keep clients outside away.
  const bool local = f.reach == Reach::kExternalLocal && !f.local.empty();
  for (const Target& t : local ? f.local : f.targets) ++v.weights[t];
  std::uint32_t least = 0, most = 0;
  for (const auto& [t, w] : v.weights) {
    if (w == 0) continue;
    least = least == 0 ? w : std::min(least, w);
    most = std::max(most, w);
  }
  if (least != most) v.scheduler = weighted(v.scheduler);
  return v;
}

IpvsDestination destination(const Target& t, std::uint32_t weight) {
  return {.address = t.addr, .port = t.port, .weight = weight};
}

IpvsService service(const IpvsKey& k, const VirtualService& v) {
  return {.key = k, .scheduler = v.scheduler, .persistence_seconds = v.persistence_seconds};
}

void plan_destinations(const IpvsKey& key, const VirtualService& have, const VirtualService& want, IpvsPlan& p) {
  for (const auto& [t, w] : want.weights) {
    const auto it = have.weights.find(t);
    if (it == have.weights.end()) {
      // What drains has flows only if it was there before.
      if (w > 0) p.serve.push_back({IpvsVerb::kAdd, key, destination(t, w)});
    } else if (it->second != w) {
      (w > 0 ? p.serve : p.retire).push_back({IpvsVerb::kSet, key, destination(t, w)});
    }
  }
  for (const auto& [t, w] : have.weights) {
    if (want.weights.contains(t)) continue;
    if (!drains(key)) {
      p.retire.push_back({IpvsVerb::kDelete, key, destination(t, 0)});
    } else if (w > 0) {
      p.retire.push_back({IpvsVerb::kSet, key, destination(t, 0)});
    }
  }
}

// 6.1 of "6.1.0-18-amd64"; {0, 0} if it is none.
std::pair<int, int> version_of(std::string_view release) {
  std::pair<int, int> v;
  const char* end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, v.first);
  if (major.ec != std::errc{} || major.ptr == end || *major.ptr != '.') return {};
  std::from_chars(major.ptr + 1, end, v.second);
  return v;
}

}  // namespace

Result<std::string> parse_scheduler(std::string_view name) {
  if (name.empty()) return "rr";
  if (std::ranges::find(kSchedulers, name) != kSchedulers.end()) return std::string(name);
  return fail(EINVAL, "\"{}\", want one of {}", name, fmt::join(kSchedulers, ", "));
}

NodeAddresses node_addresses(std::vector<IpAddr> on_other_links, const TrafficOptions& o) {
  static const std::array kNever{*Cidr::parse("127.0.0.0/8"), *Cidr::parse("::1/128"), *Cidr::parse("fe80::/10")};
  NodeAddresses n{.all = std::move(on_other_links), .node_ports = {}};
  std::ranges::sort(n.all);
  n.all.erase(std::ranges::unique(n.all).begin(), n.all.end());
  for (const IpAddr& a : n.all) {
    const bool never = std::ranges::any_of(kNever, [&](const Cidr& c) { return c.contains(a); });
    if (!never && serves_node_ports(o, a)) n.node_ports.push_back(a);
  }
  return n;
}

std::vector<IpvsKey> keys_of(const Frontend& f, const NodeAddresses& node) {
  if (!f.is_node_port()) return {{f.protocol, f.addr, f.port}};
  std::vector<IpvsKey> out;
  for (const IpAddr& a : node.node_ports)
    if (a.family() == f.family) out.push_back({f.protocol, a, f.port});
  return out;
}

VirtualServices virtual_services(const DesiredState& s, const NodeAddresses& node, const IpvsOptions& o) {
  VirtualServices out;
  for (const auto& svc : s.services) {
    for (const Frontend& f : svc->frontends) {
      for (const IpvsKey& key : keys_of(f, node))
        if (!out.contains(key)) out.emplace(key, virtual_service(f, o));
    }
  }
  return out;
}

std::vector<IpAddr> device_addresses(const DesiredState& s, const NodeAddresses& node) {
  std::vector<IpAddr> out;
  const auto add = [&](const IpAddr& a) {
    if (a && !has(node.all, a)) out.push_back(a);
  };
  for (const auto& svc : s.services) {
    for (const Frontend& f : svc->frontends) add(f.addr);
    for (const IpAddr& a : svc->cluster_ips) add(a);
  }
  std::ranges::sort(out);
  out.erase(std::ranges::unique(out).begin(), out.end());
  return out;
}

TrafficOptions rules_options(TrafficOptions o) {
  o.translate = false;
  o.beside_ipvs = false;
  o.icmp_echo = true;  // the addresses are this node's own: it answers
  return o;
}

ServiceState beside_of(const ServiceState& s, const NodeAddresses& node) {
  ServiceState r = s;
  for (const Frontend& f : r.frontends) {
    if (f.addr && !has(node.all, f.addr)) r.cluster_ips.push_back(f.addr);
  }
  std::ranges::sort(r.cluster_ips);
  r.cluster_ips.erase(std::ranges::unique(r.cluster_ips).begin(), r.cluster_ips.end());
  return r;
}

ServiceState rules_of(const ServiceState& s, const NodeAddresses& node) {
  ServiceState r = beside_of(s, node);
  for (Frontend& f : r.frontends) {
    // Itself, instead of an endpoint: the table's maps then say that there are some, and do not change with them.
    const IpAddr loopback = f.family == AF_INET ? IpAddr::v4(0x7f000001) : *IpAddr::parse("::1");
    const std::vector<Target> some{{f.addr ? f.addr : loopback, f.port}};
    if (!f.targets.empty()) f.targets = some;
    if (!f.local.empty()) f.local = some;
    f.draining.clear();
    f.affinity_seconds = 0;
  }
  return r;
}

IpvsPlan plan_ipvs(const VirtualServices& have, const VirtualServices& want, const std::vector<Cidr>& exclude) {
  static const VirtualService kNone;
  IpvsPlan p;
  for (const auto& [key, w] : want) {
    const auto it = have.find(key);
    if (it == have.end()) {
      p.services.push_back({IpvsVerb::kAdd, service(key, w)});
    } else if (service(key, it->second) != service(key, w)) {
      p.services.push_back({IpvsVerb::kSet, service(key, w)});
    }
    plan_destinations(key, it == have.end() ? kNone : it->second, w, p);
  }
  for (const auto& [key, h] : have) {
    const bool others = std::ranges::any_of(exclude, [&](const Cidr& c) { return c.contains(key.address); });
    if (!want.contains(key) && !others) p.gone.push_back(key);
  }
  return p;
}

Draining draining_of(const VirtualServices& have, const VirtualServices& want) {
  Draining out;
  for (const auto& [key, w] : want) {
    const auto it = have.find(key);
    if (it == have.end()) continue;
    for (const auto& [t, weight] : it->second.weights) {
      if (weight == 0 && !w.weights.contains(t)) out.emplace(key, t);
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> ipvs_sysctls(const IpvsOptions& o, std::string_view release) {
  const auto version = version_of(release);
  std::vector<std::pair<std::string, std::string>> s = {
      {"net.ipv4.ip_forward", "1"},
      // Translated connections are in conntrack: masquerade needs it.
      {"net.ipv4.vs.conntrack", "1"},
      // A flow to a destination that was deleted finds another; a client remembered for one of weight 0 too.
      {"net.ipv4.vs.expire_nodest_conn", "1"},
      {"net.ipv4.vs.expire_quiescent_template", "1"},
  };
  // A client's port used again within two minutes: before 5.9 the kernel dropped the SYN and the client lost a second
  // (kubernetes issue 81775); 0 has it go where the connection before it went. Since then 1, the kernel's own value,
  // places it anew without that.
  if (version >= std::pair(4, 1)) s.emplace_back("net.ipv4.vs.conn_reuse_mode", version >= std::pair(5, 9) ? "1" : "0");
  if (o.strict_arp) {
    s.emplace_back("net.ipv4.conf.all.arp_ignore", "1");
    s.emplace_back("net.ipv4.conf.all.arp_announce", "2");
  }
  return s;
}

}  // namespace hawser::proxy
