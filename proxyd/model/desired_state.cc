// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/desired_state.h"

#include <algorithm>

#include <sys/socket.h>

#include "proxyd/model/options.h"

namespace hawser::proxy {
namespace {

Frontend base_frontend(const Service& s, const ServicePort& p, const Selection& sel, int family) {
  return {.family = family,
          .protocol = p.protocol,
          .port = p.port,
          .affinity_seconds = s.affinity_seconds,
          .draining = sel.draining};
}

Frontend internal(const Service& s, const ServicePort& p, const Selection& sel, const IpAddr& addr) {
  Frontend f = base_frontend(s, p, sel, addr.family());
  f.addr = addr;
  f.reach = Reach::kInternal;
  f.targets = s.internal_local ? sel.local : sel.cluster;
  f.when_empty = when_empty(sel, s.internal_local);
  return f;
}

Frontend external(const Service& s, const ServicePort& p, const Selection& sel, int family) {
  Frontend f = base_frontend(s, p, sel, family);
  f.reach = s.external_local ? Reach::kExternalLocal : Reach::kExternal;
  f.targets = sel.cluster;
  if (s.external_local) f.local = sel.local;
  f.when_empty = when_empty(sel, s.external_local);
  return f;
}

// The node may use a balancer's address that it has itself: such packets have that address as their source too.
std::vector<Cidr> allowed_sources(const Service& s, const IpAddr& balancer, const NodeInfo& node) {
  std::vector<Cidr> r;
  bool node_too = false;
  for (const Cidr& c : s.source_ranges) {
    if (c.family() != balancer.family()) continue;
    r.push_back(c);
    node_too = node_too || std::ranges::any_of(node.addresses, [&](const IpAddr& a) { return c.contains(a); });
  }
  if (node_too) r.emplace_back(balancer, balancer.bits());
  return without_nested(std::move(r));
}

std::vector<Endpoint> weighted(const Service& s, std::vector<Endpoint> endpoints) {
  for (const auto& w : s.weights) {
    for (Endpoint& e : endpoints) {
      if (e.target.addr == w.addr) e.weight = w.weight;
    }
  }
  return endpoints;
}

void sort_without_doubles(std::vector<IpAddr>& list) {
  std::ranges::sort(list);
  const auto doubles = std::ranges::unique(list);
  list.erase(doubles.begin(), doubles.end());
}

}  // namespace

ServiceState make_service_state(const Service& s, const std::vector<PortEndpoints>& ports, const NodeInfo& node) {
  ServiceState r{.key = s.key};
  for (const auto& [port, unweighted] : ports) {
    std::vector<Endpoint> own;
    if (!s.weights.empty()) own = weighted(s, unweighted);
    const std::vector<Endpoint>& endpoints = s.weights.empty() ? unweighted : own;
    for (const int family : {AF_INET, AF_INET6}) {
      const auto of_family = [&](const IpAddr& a) { return a.family() == family; };
      const bool has_cluster_ip = std::ranges::any_of(s.cluster_ips, of_family);
      if (!has_cluster_ip && std::ranges::none_of(s.external_ips, of_family) &&
          std::ranges::none_of(s.load_balancer_ips, of_family)) {
        continue;
      }
      const Selection sel = select_endpoints(endpoints, node, family);
      for (const IpAddr& a : s.cluster_ips) {
        if (of_family(a)) r.frontends.push_back(internal(s, port, sel, a));
      }
      for (const IpAddr& a : s.external_ips) {
        if (!of_family(a)) continue;
        Frontend& f = r.frontends.emplace_back(external(s, port, sel, family));
        f.addr = a;
      }
      for (const IpAddr& a : s.load_balancer_ips) {
        if (!of_family(a)) continue;
        Frontend& f = r.frontends.emplace_back(external(s, port, sel, family));
        f.addr = a;
        f.limited = s.limited;
        if (s.limited) f.sources = allowed_sources(s, a, node);
      }
      if (port.node_port == 0 || !has_cluster_ip) continue;
      Frontend& f = r.frontends.emplace_back(external(s, port, sel, family));
      f.port = port.node_port;
    }
    for (const Endpoint& e : endpoints) {
      if (e.local) r.local_addrs.push_back(e.target.addr);
    }
  }
  if (!r.frontends.empty()) r.cluster_ips = s.cluster_ips;
  sort_without_doubles(r.cluster_ips);
  sort_without_doubles(r.local_addrs);
  return r;
}

}  // namespace hawser::proxy
