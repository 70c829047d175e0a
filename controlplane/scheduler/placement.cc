// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/placement.h"

#include <algorithm>
#include <map>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "controlplane/scheduler/filters.h"

namespace hawser::scheduler {
namespace {

std::string explain(std::size_t nodes, const std::map<std::string, int>& counts) {
  if (nodes == 0) return "no nodes available to schedule pods";
  std::vector<std::string> parts;
  for (const auto& [reason, n] : counts) parts.push_back(fmt::format("{} {}", n, reason));
  std::ranges::sort(parts);
  return fmt::format("0/{} nodes are available: {}.", nodes, fmt::join(parts, ", "));
}

void normalize(Normalize how, std::vector<double>& values) {
  if (how == Normalize::kNone) return;
  const auto [lo, hi] = std::ranges::minmax_element(values);
  const double min = *lo, max = *hi;
  for (double& v : values) {
    switch (how) {
      case Normalize::kMore:
        v = max == 0 ? 0 : 100 * v / max;
        break;
      case Normalize::kFewer:
        v = max == 0 ? 100 : 100 - 100 * v / max;
        break;
      case Normalize::kBalance:
        v = max == 0 ? 100 : 100 * (max + min - v) / max;
        break;
      case Normalize::kRange:
        v = max == min ? 0 : 100 * (v - min) / (max - min);
        break;
      case Normalize::kNone:
        break;
    }
  }
}

const NodeState* best_of(const PodSpec& pod, const std::vector<const NodeState*>& feasible, const Cycle& cycle,
                         std::size_t turn) {
  if (feasible.size() == 1) return feasible[0];
  std::vector<double> total(feasible.size(), 0), values(feasible.size());
  for (const Score& s : scores()) {
    std::ranges::transform(feasible, values.begin(), [&](const NodeState* n) { return s.run(pod, *n, cycle); });
    normalize(s.normalize, values);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += s.weight * values[i];
  }
  constexpr double kSame = 1e-6;
  const double max = *std::ranges::max_element(total);
  std::vector<const NodeState*> ties;
  std::size_t fewest = ~std::size_t{0};
  for (std::size_t i = 0; i < total.size(); ++i) {
    if (total[i] < max - kSame) continue;
    if (feasible[i]->pods.size() < fewest) {
      ties.clear();
      fewest = feasible[i]->pods.size();
    }
    if (feasible[i]->pods.size() == fewest) ties.push_back(feasible[i]);
  }
  return ties[turn % ties.size()];
}

}  // namespace

Placement place_pod(const PodSpec& pod, const ClusterState& state, std::size_t turn) {
  const Cycle cycle = Cycle::of(pod, state);
  std::vector<const NodeState*> feasible;
  std::map<std::string, int> against;
  for (const NodeState* n : state.nodes()) {
    std::vector<std::string> reasons;
    for (const Filter& f : filters()) {
      reasons = f.run(pod, *n, cycle);
      if (!reasons.empty()) break;
    }
    if (reasons.empty()) feasible.push_back(n);
    for (std::string& r : reasons) ++against[std::move(r)];
  }
  if (feasible.empty()) return {"", explain(state.nodes().size(), against)};
  return {best_of(pod, feasible, cycle, turn)->spec.name, ""};
}

}  // namespace hawser::scheduler
