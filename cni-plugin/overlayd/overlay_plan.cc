// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/overlay_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include <sys/socket.h>

namespace hawser::overlay {
namespace {

using netlink::Address;
using netlink::Neigh;
using netlink::NeighTable;
using netlink::Route;
using netlink::RouteType;
using netlink::Verb;

constexpr std::uint8_t kKernelProtocol = 2;  // RTPROT_KERNEL: routes that follow from addresses
constexpr std::uint32_t kIpv6Metric = 1024;  // what IPv6 gives a route without one

// What one peer needs, in the order in which it is written.
struct Entries {
  Neigh neigh, fdb;
  Route route;
};
Entries entries_of(const Peer& p, int device) {
  IpAddr gateway = gateway_of(p.pod_cidr);
  return {.neigh = {.table = NeighTable::kNeighbor, .link = device, .ip = gateway, .mac = p.mac},
          .fdb = {.table = NeighTable::kFdb, .link = device, .ip = p.vtep, .mac = p.mac},
          .route = {.dst = p.pod_cidr,
                    .link = device,
                    .via = gateway,
                    .onlink = true,
                    .metric = gateway.is_v4() ? 0 : kIpv6Metric}};
}

Route unreachable_route(const Cidr& own) {
  return {.dst = own, .type = RouteType::kUnreachable, .metric = own.addr().is_v4() ? 0 : kIpv6Metric};
}

// Who wrote a route does not matter when taking over from flannel; the rest does.
bool same_route(const Route& a, const Route& b) {
  // IPv6 does not report the onlink flag of every kernel version; a gateway that is the peer's own network address
  // implies it.
  bool onlink = a.onlink == b.onlink || a.dst.family() == AF_INET6;
  return a.dst == b.dst && a.type == b.type && a.link == b.link && a.via == b.via && onlink && a.metric == b.metric;
}

// Routes that are ours to delete: on our device everything but what the kernel derived, elsewhere what carries our
// mark.
bool is_ours(const Route& r, int device) {
  if (r.type == RouteType::kUnicast) return r.link == device && r.protocol != kKernelProtocol;
  return r.protocol == netlink::kRouteProtocol;
}

struct Wanted {
  std::vector<Entries> peers;
  std::vector<Route> local_routes;
};

// Sets first: each overwrites what stands under its key, so a peer that moved is never without its entries.
void plan_sets(const OverlaySpec& spec, const Wanted& want, const Observed& have, std::vector<Op>& ops) {
  const Address own{.link = have.device,
                    .cidr = {gateway_of(spec.own_cidr), spec.own_cidr.addr().bits()},
                    .no_dad = spec.family == AF_INET6};
  if (std::ranges::find(have.addresses, own.cidr, &Address::cidr) == have.addresses.end())
    ops.push_back({Verb::kReplace, own});
  auto set_route = [&](const Route& r) {
    if (std::ranges::none_of(have.routes, [&](const Route& h) { return same_route(h, r); }))
      ops.push_back({Verb::kReplace, r});
  };
  for (const auto& r : want.local_routes) set_route(r);
  const std::set<Neigh> neighs(have.neighs.begin(), have.neighs.end());
  const std::set<Neigh> fdb(have.fdb.begin(), have.fdb.end());
  std::map<Cidr, const Route*> routes;
  for (const auto& r : have.routes) routes[r.dst] = &r;
  for (const auto& e : want.peers) {
    // The route last: with it the kernel starts to look for the gateway's MAC, which must not go out as a query.
    if (!neighs.contains(e.neigh)) ops.push_back({Verb::kReplace, e.neigh});
    if (!fdb.contains(e.fdb)) ops.push_back({Verb::kReplace, e.fdb});
    auto r = routes.find(e.route.dst);
    if (r == routes.end() || !same_route(*r->second, e.route)) ops.push_back({Verb::kReplace, e.route});
  }
}

// Then what nobody wants, in the reverse order.
void plan_deletes(const OverlaySpec& spec, const Wanted& want, const Observed& have, std::vector<Op>& ops) {
  std::set<Cidr> routes;
  std::set<MacAddr> macs;
  std::set<IpAddr> gateways;
  for (const auto& r : want.local_routes) routes.insert(r.dst);
  for (const auto& e : want.peers) {
    routes.insert(e.route.dst);
    macs.insert(e.fdb.mac);
    gateways.insert(e.neigh.ip);
  }
  for (const auto& r : have.routes) {
    bool other_family = r.dst.family() != spec.family;
    if (!other_family && is_ours(r, have.device) && !routes.contains(r.dst)) ops.push_back({Verb::kDelete, r});
  }
  for (const auto& f : have.fdb) {
    if (!macs.contains(f.mac)) ops.push_back({Verb::kDelete, f});
  }
  for (const auto& n : have.neighs) {
    if (n.permanent && !gateways.contains(n.ip)) ops.push_back({Verb::kDelete, n});
  }
  for (const auto& a : have.addresses) {
    bool link_local =
        a.cidr.family() == AF_INET6 && a.cidr.addr().bytes()[0] == 0xfe && a.cidr.addr().bytes()[1] == 0x80;
    if (!link_local && a.cidr.addr() != gateway_of(spec.own_cidr)) ops.push_back({Verb::kDelete, a});
  }
}

}  // namespace

std::string device_name(int family, std::uint32_t vni) {
  return fmt::format("{}.{}", family == AF_INET ? "flannel" : "flannel-v6", vni);
}

IpAddr gateway_of(const Cidr& pod_cidr) {
  return pod_cidr.network().addr();
}

OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, int family, const Underlay& underlay,
                      const Settings& settings, std::vector<std::string>& skipped) {
  OverlaySpec s;
  s.family = family;
  s.own_cidr = own.pod_cidr(family);
  s.unreachable_rest = settings.unreachable_rest;
  s.device = {.name = device_name(family, settings.vni),
              .kind = "vxlan",
              .mtu = underlay.mtu - overhead_bytes(underlay.address.is_v4()),
              .mac = own.vtep(family).mac,
              .up = true,
              .vxlan = {.vni = settings.vni,
                        .port = settings.port,
                        .local = underlay.address,
                        .underlay_index = underlay.index,
                        .learning = false}};
  // In the order of names, so that of two nodes with one pod CIDR the same one wins everywhere.
  std::map<std::string, const Lease*> by_name;
  for (const auto& n : nodes) by_name[n.node] = &n;
  std::map<IpAddr, std::size_t> by_address;  // of s.peers, whose CIDRs are disjoint
  std::map<MacAddr, std::size_t> by_mac;
  for (const auto& [name, n] : by_name) {
    const Vtep& v = n->vtep(family);
    Cidr cidr = n->pod_cidr(family);
    if (name == own.node || !cidr || !v.address || !v.mac || n->backend != "vxlan") continue;
    // Among disjoint ranges only the last one that begins before our end can reach into us.
    auto before = by_address.upper_bound(cidr.last());
    const Peer* clash = before == by_address.begin() ? nullptr : &s.peers[std::prev(before)->second];
    if (v.vni != settings.vni)
      skipped.push_back(fmt::format("node {}: its VNI is {}, ours {}", name, v.vni, settings.vni));
    else if (cidr.overlaps(s.own_cidr))
      skipped.push_back(fmt::format("node {}: its pod CIDR {} overlaps our own {}", name, cidr, s.own_cidr));
    else if (clash && clash->pod_cidr.overlaps(cidr))
      skipped.push_back(fmt::format("node {}: its pod CIDR {} overlaps that of node {}", name, cidr, clash->node));
    else if (by_mac.contains(*v.mac))
      skipped.push_back(
          fmt::format("node {}: its VTEP MAC {} is that of node {}", name, *v.mac, s.peers[by_mac[*v.mac]].node));
    else {
      by_address[cidr.addr()] = by_mac[*v.mac] = s.peers.size();
      s.peers.push_back({.node = name, .pod_cidr = cidr, .vtep = v.address, .mac = *v.mac});
    }
  }
  return s;
}

std::vector<Op> plan(const OverlaySpec& spec, const Observed& observed) {
  Wanted want;
  if (spec.unreachable_rest) want.local_routes.push_back(unreachable_route(spec.own_cidr));
  for (const auto& p : spec.peers) want.peers.push_back(entries_of(p, observed.device));
  std::vector<Op> ops;
  plan_sets(spec, want, observed, ops);
  plan_deletes(spec, want, observed, ops);
  return ops;
}

std::string Op::text() const {
  const char* did = verb == Verb::kDelete ? "delete" : "set";
  if (const auto* a = std::get_if<Address>(&object)) return fmt::format("{} address {}", did, a->cidr);
  if (const auto* n = std::get_if<Neigh>(&object)) {
    if (n->table == NeighTable::kFdb) return fmt::format("{} FDB entry {} -> {}", did, n->mac, n->ip);
    return fmt::format("{} neighbour entry {} -> {}", did, n->ip, n->mac);
  }
  const auto& r = std::get<Route>(object);
  if (r.type != RouteType::kUnicast) return fmt::format("{} unreachable route {}", did, r.dst);
  return fmt::format("{} route {} via {}", did, r.dst, r.via);
}

}  // namespace hawser::overlay
