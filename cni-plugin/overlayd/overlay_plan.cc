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

// What one peer needs, in the order in which it is written; one without a tunnel, or whose tunnel is configured
// elsewhere, has the route alone.
struct Entries {
  bool route_only = false;
  Neigh neigh, fdb;
  Route route;
};
Entries entries_of(const Peer& p, const OverlaySpec& spec, int device) {
  if (p.direct) {
    return {
        .route_only = true,
        .route = {.dst = p.pod_cidr, .link = spec.underlay, .via = p.vtep, .metric = p.vtep.is_v4() ? 0 : kIpv6Metric}};
  }
  if (p.key) {
    const bool v4 = p.pod_cidr.family() == AF_INET;
    return {.route_only = true,
            .route = {.dst = p.pod_cidr, .link = device, .scope_link = v4, .metric = v4 ? 0 : kIpv6Metric}};
  }
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
  return {.dst = own, .type = RouteType::kUnreachable, .metric = kRestMetric};
}

// Who wrote a route does not matter when taking over from flannel; the rest does.
bool same_route(const Route& a, const Route& b) {
  // IPv6 does not report the onlink flag of every kernel version; a gateway that is the peer's own network address
  // implies it.
  bool onlink = a.onlink == b.onlink || a.dst.family() == AF_INET6;
  return a.dst == b.dst && a.type == b.type && a.link == b.link && a.via == b.via && onlink && a.metric == b.metric;
}

// Routes that are ours to delete: on our device everything but what the kernel derived, elsewhere what carries our
// mark, except for the plugin's routes to single pods, which have no gateway.
bool is_ours(const Route& r, int device) {
  if (r.type == RouteType::kUnicast && device != 0 && r.link == device) return r.protocol != kKernelProtocol;
  return r.protocol == netlink::kRouteProtocol && (r.type != RouteType::kUnicast || r.via);
}

struct Wanted {
  std::vector<Entries> peers;
  std::vector<Route> local_routes;
};

// Sets first: each overwrites what stands under its key, so a peer that moved is never without its entries.
void plan_own(const OverlaySpec& spec, const Wanted& want, const Observed& have, std::vector<Op>& ops) {
  const Address own{.link = have.device,
                    .cidr = {gateway_of(spec.own_cidr), spec.own_cidr.addr().bits()},
                    .no_dad = spec.family == AF_INET6};
  if (have.device != 0 && std::ranges::find(have.addresses, own.cidr, &Address::cidr) == have.addresses.end())
    ops.push_back({Verb::kReplace, own});
  for (const auto& r : want.local_routes) {
    if (std::ranges::none_of(have.routes, [&](const Route& h) { return same_route(h, r); }))
      ops.push_back({Verb::kReplace, r});
  }
}

void plan_peers(const Wanted& want, const Observed& have, std::vector<Op>& ops) {
  const std::set<Neigh> neighs(have.neighs.begin(), have.neighs.end());
  const std::set<Neigh> fdb(have.fdb.begin(), have.fdb.end());
  // What the kernel replaces is the route of the same destination and metric.
  std::map<std::pair<Cidr, std::uint32_t>, const Route*> routes;
  for (const auto& r : have.routes) routes[{r.dst, r.metric}] = &r;
  for (const auto& e : want.peers) {
    // The route last: with it the kernel starts to look for the gateway's MAC, which must not go out as a query.
    if (!e.route_only && !neighs.contains(e.neigh)) ops.push_back({Verb::kReplace, e.neigh});
    if (!e.route_only && !fdb.contains(e.fdb)) ops.push_back({Verb::kReplace, e.fdb});
    auto r = routes.find({e.route.dst, e.route.metric});
    if (r == routes.end() || !same_route(*r->second, e.route)) ops.push_back({Verb::kReplace, e.route});
  }
}

// Then what nobody wants, in the reverse order.
void plan_deletes(const OverlaySpec& spec, const Wanted& want, const Observed& have, std::vector<Op>& ops) {
  std::set<std::pair<Cidr, std::uint32_t>> routes;
  std::set<MacAddr> macs;
  std::set<IpAddr> gateways;
  for (const auto& r : want.local_routes) routes.emplace(r.dst, r.metric);
  for (const auto& e : want.peers) {
    routes.emplace(e.route.dst, e.route.metric);
    if (e.route_only) continue;
    macs.insert(e.fdb.mac);
    gateways.insert(e.neigh.ip);
  }
  for (const auto& r : have.routes) {
    bool other_family = r.dst.family() != spec.family;
    if (!other_family && is_ours(r, have.device) && !routes.contains({r.dst, r.metric}))
      ops.push_back({Verb::kDelete, r});
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
    bool others = spec.both_families && a.cidr.family() != spec.family;
    if (!link_local && !others && a.cidr.addr() != gateway_of(spec.own_cidr)) ops.push_back({Verb::kDelete, a});
  }
}

}  // namespace

IpAddr gateway_of(const Cidr& pod_cidr) {
  return pod_cidr.network().addr();
}

std::vector<Op> plan(const OverlaySpec& spec, const Observed& observed) {
  Wanted want;
  if (spec.unreachable_rest) want.local_routes.push_back(unreachable_route(spec.own_cidr));
  for (const auto& p : spec.peers) want.peers.push_back(entries_of(p, spec, observed.device));
  std::vector<Op> ops;
  plan_own(spec, want, observed, ops);
  plan_peers(want, observed, ops);
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
  if (!r.via) return fmt::format("{} route {} into the tunnel", did, r.dst);
  return fmt::format("{} route {} via {}", did, r.dst, r.via);
}

const char* Op::kind() const {
  if (std::holds_alternative<Address>(object)) return "address";
  if (const auto* n = std::get_if<Neigh>(&object)) return n->table == NeighTable::kFdb ? "fdb" : "neighbour";
  return "route";
}

}  // namespace hawser::overlay
