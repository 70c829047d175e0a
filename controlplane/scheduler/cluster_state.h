// SPDX-License-Identifier: Apache-2.0
// ClusterState: nodes and what runs on them, as the scheduler believes it: what the informers say plus the pods it has
// just placed and whose binding is under way ("assumed"). Values only; the caller guards it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/scheduler/pod_spec.h"

namespace hawser::scheduler {

using PodPtr = std::shared_ptr<const PodSpec>;

struct NodeState {
  NodeSpec spec;
  bool known = false;  // false: pods name it, but there is no such node
  Resources requested;
  std::int64_t score_cpu = 0, score_memory = 0;
  std::map<std::string, PodPtr> pods;             // by key
  std::map<std::string, std::int64_t> per_owner;  // pods by owner uid

  void add(const PodPtr& pod);
  void remove(const std::string& key);
};

class ClusterState {
 public:
  void put_node(const NodeSpec& node);
  void remove_node(const std::string& name);
  // A pod that the API shows on `pod->node_name`; confirms an assumed one.
  void put_pod(const PodPtr& pod);
  void remove_pod(const std::string& key);
  void assume(const PodPtr& pod, const std::string& node);
  // Takes an assumed pod off again; a confirmed one stays.
  void forget(const std::string& key);

  [[nodiscard]] bool is_assumed(const std::string& key, std::string_view uid) const;
  [[nodiscard]] bool has_pod(const std::string& key) const { return placed_.contains(key); }
  // Nodes that exist, by name.
  [[nodiscard]] const std::vector<const NodeState*>& nodes() const { return known_; }
  [[nodiscard]] const NodeState* node(const std::string& name) const;
  // Whether any placed pod has (anti-)affinity of its own that a new pod could offend.
  [[nodiscard]] bool any_affinity() const { return with_affinity_ > 0; }

 private:
  struct Placed {
    std::string node;
    bool assumed = false;
  };
  void place(const PodPtr& pod, const std::string& node, bool assumed);
  void rebuild();

  std::map<std::string, NodeState> nodes_;
  std::map<std::string, Placed> placed_;  // by pod key
  std::vector<const NodeState*> known_;   // into nodes_, which keeps its elements in place
  std::size_t with_affinity_ = 0;
};

}  // namespace hawser::scheduler
