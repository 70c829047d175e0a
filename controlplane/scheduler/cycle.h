// SPDX-License-Identifier: Apache-2.0
// Cycle: what one scheduling attempt computes once over all nodes, for the filters and scores that look beyond one
// node: topology spread and pod (anti-)affinity. Pure; empty and free for a pod that uses neither.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/scheduler/cluster_state.h"

namespace hawser::scheduler {

struct Cycle {
  struct Spread {
    std::map<std::string, std::int64_t> counts;  // matching pods by topology value
    std::int64_t min = 0;
    bool self = false;  // the pod itself matches
  };
  std::vector<Spread> spread;  // parallel to PodSpec::spread
  // Topology values (key, value) with a pod that matches term i of the required affinity / anti-affinity.
  std::vector<std::set<std::string>> affinity, anti_affinity;
  // Nobody in the cluster matches the required affinity and the pod matches its own: it may be the first.
  bool first_of_group = false;
  // Where a placed pod's own anti-affinity keeps this pod out.
  std::set<std::pair<std::string, std::string>> kept_out;
  // Preferences for and against, in points, by topology key and value.
  std::map<std::pair<std::string, std::string>, std::int64_t> preference;

  static Cycle of(const PodSpec& pod, const ClusterState& state);
};

// The node's value of a topology key; null if it has none.
[[nodiscard]] const std::string* topology_value(const NodeState& n, const std::string& key);
[[nodiscard]] bool node_matches(const PodSpec& pod, const NodeSpec& node);  // nodeSelector and required affinity
[[nodiscard]] bool term_matches(const NodeTerm& term, const NodeSpec& node);

}  // namespace hawser::scheduler
