// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/no_local.h"

#include <set>
#include <utility>

namespace hawser::proxy {

NoLocalEndpoints count_no_local(const DesiredState& s, int family) {
  NoLocalEndpoints out;
  for (const auto& service : s.services) {
    using Port = std::pair<std::uint8_t, std::uint16_t>;
    std::set<Port> internal, external, node_ports;
    for (const Frontend& f : service->frontends) {
      if (f.family != family) continue;
      const Port port{f.protocol, f.port};
      if (f.reach == Reach::kInternal) {
        if (f.targets.empty() && f.when_empty == WhenEmpty::kDrop) internal.insert(port);
      } else if (f.reach == Reach::kExternalLocal && !f.targets.empty() && f.local.empty()) {
        (f.is_node_port() ? node_ports : external).insert(port);
      }
    }
    out.internal += internal.size();
    // A balancer's port has a node port as well.
    out.external += external.empty() ? node_ports.size() : external.size();
  }
  return out;
}

}  // namespace hawser::proxy
