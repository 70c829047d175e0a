// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/desired_state.h"

#include <algorithm>

#include <sys/socket.h>

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

}  // namespace

ServiceState make_service_state(const Service& s, const std::vector<PortEndpoints>& ports, const NodeInfo& node) {
  ServiceState r{.key = s.key};
  for (const auto& [port, endpoints] : ports) {
    for (const int family : {AF_INET, AF_INET6}) {
      const auto of_family = [&](const IpAddr& a) { return a.family() == family; };
      const bool has_cluster_ip = std::ranges::any_of(s.cluster_ips, of_family);
      if (!has_cluster_ip && std::ranges::none_of(s.external_ips, of_family)) continue;
      const Selection sel = select_endpoints(endpoints, node, family);
      for (const IpAddr& a : s.cluster_ips) {
        if (of_family(a)) r.frontends.push_back(internal(s, port, sel, a));
      }
      for (const IpAddr& a : s.external_ips) {
        if (!of_family(a)) continue;
        Frontend& f = r.frontends.emplace_back(external(s, port, sel, family));
        f.addr = a;
      }
      if (port.node_port == 0 || !has_cluster_ip) continue;
      Frontend& f = r.frontends.emplace_back(external(s, port, sel, family));
      f.port = port.node_port;
    }
    for (const Endpoint& e : endpoints) {
      if (e.local) r.local_addrs.push_back(e.target.addr);
    }
  }
  std::ranges::sort(r.local_addrs);
  const auto doubles = std::ranges::unique(r.local_addrs);
  r.local_addrs.erase(doubles.begin(), doubles.end());
  return r;
}

}  // namespace hawser::proxy
