// SPDX-License-Identifier: Apache-2.0
// Where a pod goes: filters, then scores, over the whole cluster. Pure.
#pragma once

#include <cstddef>
#include <string>

#include "controlplane/scheduler/cluster_state.h"

namespace hawser::scheduler {

struct Placement {
  std::string node;    // empty: nowhere
  std::string reason;  // then: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."
};
// `turn` picks among equally good nodes, so that ties go round.
[[nodiscard]] Placement place_pod(const PodSpec& pod, const ClusterState& state, std::size_t turn);

}  // namespace hawser::scheduler
