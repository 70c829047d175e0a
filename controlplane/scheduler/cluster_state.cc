// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/cluster_state.h"

namespace hawser::scheduler {
namespace {

bool has_affinity(const PodSpec& p) {
  return !p.anti_affinity.empty() || !p.affinity.empty();
}

}  // namespace

void NodeState::add(const PodPtr& pod) {
  for (const auto& [k, n] : pod->requests) requested[k] += n;
  score_cpu += pod->score_cpu;
  score_memory += pod->score_memory;
  if (!pod->owner.empty()) ++per_owner[pod->owner];
  pods[pod->key] = pod;
}

void NodeState::remove(const std::string& key) {
  const auto it = pods.find(key);
  if (it == pods.end()) return;
  const PodSpec& pod = *it->second;
  for (const auto& [k, n] : pod.requests)
    if ((requested[k] -= n) == 0) requested.erase(k);
  score_cpu -= pod.score_cpu;
  score_memory -= pod.score_memory;
  if (!pod.owner.empty() && --per_owner[pod.owner] == 0) per_owner.erase(pod.owner);
  pods.erase(it);
}

void ClusterState::rebuild() {
  known_.clear();
  for (const auto& [name, n] : nodes_)
    if (n.known) known_.push_back(&n);
}

void ClusterState::put_node(const NodeSpec& node) {
  NodeState& n = nodes_[node.name];
  n.spec = node;
  if (n.known) return;
  n.known = true;
  rebuild();
}

void ClusterState::remove_node(const std::string& name) {
  const auto it = nodes_.find(name);
  if (it == nodes_.end()) return;
  it->second.known = false;
  if (it->second.pods.empty()) nodes_.erase(it);
  rebuild();
}

void ClusterState::place(const PodPtr& pod, const std::string& node, bool assumed) {
  remove_pod(pod->key);
  nodes_[node].add(pod);
  placed_[pod->key] = {node, assumed};
  if (has_affinity(*pod)) ++with_affinity_;
}

void ClusterState::put_pod(const PodPtr& pod) {
  place(pod, pod->node_name, false);
}

void ClusterState::assume(const PodPtr& pod, const std::string& node) {
  place(pod, node, true);
}

void ClusterState::remove_pod(const std::string& key) {
  const auto it = placed_.find(key);
  if (it == placed_.end()) return;
  const auto n = nodes_.find(it->second.node);
  if (const auto p = n->second.pods.find(key); p != n->second.pods.end() && has_affinity(*p->second)) --with_affinity_;
  n->second.remove(key);
  if (!n->second.known && n->second.pods.empty()) nodes_.erase(n);
  placed_.erase(it);
}

void ClusterState::forget(const std::string& key) {
  const auto it = placed_.find(key);
  if (it != placed_.end() && it->second.assumed) remove_pod(key);
}

bool ClusterState::is_assumed(const std::string& key, std::string_view uid) const {
  const auto it = placed_.find(key);
  if (it == placed_.end() || !it->second.assumed) return false;
  return nodes_.at(it->second.node).pods.at(key)->uid == uid;
}

const NodeState* ClusterState::node(const std::string& name) const {
  const auto it = nodes_.find(name);
  return it == nodes_.end() ? nullptr : &it->second;
}

}  // namespace hawser::scheduler
