// SPDX-License-Identifier: Apache-2.0
// Filters: why a node cannot take a pod, and scores: how well it would. Both are tables of pure functions.
// Texts are those of Kubernetes, because people and tools search for them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/scheduler/cluster_state.h"
#include "controlplane/scheduler/cycle.h"

namespace hawser::scheduler {

struct Filter {
  std::string_view name;
  // Reasons against; none: the node passes.
  std::vector<std::string> (*run)(const PodSpec&, const NodeState&, const Cycle&);
};
// In this order; the first that fails says why, as in Kubernetes.
[[nodiscard]] std::span<const Filter> filters();

enum class Normalize {
  kNone,     // already 0..100
  kMore,     // the largest value is 100
  kFewer,    // none is 100, the largest value is 0
  kBalance,  // 100 * (max + min - value) / max: fewer is better, and a lead of one counts less in a crowd
  kRange,    // the smallest is 0, the largest 100
};
struct Score {
  std::string_view name;
  int weight;
  Normalize normalize;
  double (*run)(const PodSpec&, const NodeState&, const Cycle&);
};
[[nodiscard]] std::span<const Score> scores();

}  // namespace hawser::scheduler
