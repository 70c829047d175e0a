// SPDX-License-Identifier: Apache-2.0
// Which endpoints of a service port get traffic on this node: one pure function for every back end [P06, P22, P23,
// P40-P43].
//
// The Cluster set: ready endpoints, narrowed by hints: if every ready one has a hint for nodes and one names this node,
// those that do; else if every one has a hint for zones and one names this zone, those that do; else all. No ready
// endpoint: those that still serve while they terminate. The Local set: the same two steps among this node's endpoints,
// without hints. The sets fall back apart from each other: ready endpoints elsewhere do not take the Local set's
// terminating ones away.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "proxyd/model/endpoint.h"

namespace hawser::proxy {

struct NodeInfo {
  std::string name;
  std::string zone;                    // label topology.kubernetes.io/zone, may be empty
  std::vector<IpAddr> addresses = {};  // status.addresses
  bool operator==(const NodeInfo&) const = default;
};

// Lists are sorted; an endpoint of weight n is in `cluster` and `local` n times (weights with a common divisor, or too
// large for the kernel, are made smaller together).
struct Selection {
  std::vector<Target> cluster;
  std::vector<Target> local;
  // Get no new connections, but the flows that they have go on: those that serve while they terminate [P74], and those
  // of weight 0.
  std::vector<Target> draining;
  bool operator==(const Selection&) const = default;
};

// Of the endpoints with addresses of `family`. Order of the input is kept.
[[nodiscard]] Selection select_endpoints(std::span<const Endpoint> endpoints, const NodeInfo& node, int family);

// What happens to traffic for which there is no endpoint [P06]: an answer that says so, or, when only other nodes have
// endpoints and the policy keeps it here, silence (another node may answer).
enum class WhenEmpty : std::uint8_t { kReject, kDrop };
[[nodiscard]] WhenEmpty when_empty(const Selection& s, bool local_policy);

}  // namespace hawser::proxy
