// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/filters.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace hawser::scheduler {
namespace {

using Reasons = std::vector<std::string>;

bool tolerated(const PodSpec& pod, const Taint& t) {
  return std::ranges::any_of(pod.tolerations, [&](const Toleration& o) { return o.tolerates(t); });
}

Reasons node_unschedulable(const PodSpec& pod, const NodeState& n, const Cycle&) {
  if (!n.spec.unschedulable || tolerated(pod, {"node.kubernetes.io/unschedulable", "", "NoSchedule"})) return {};
  return {"node(s) were unschedulable"};
}

Reasons node_name(const PodSpec& pod, const NodeState& n, const Cycle&) {
  if (pod.node_name.empty() || pod.node_name == n.spec.name) return {};
  return {"node(s) didn't match the requested node name"};
}

Reasons taints(const PodSpec& pod, const NodeState& n, const Cycle&) {
  for (const Taint& t : n.spec.taints)
    if ((t.effect == "NoSchedule" || t.effect == "NoExecute") && !tolerated(pod, t))
      return {fmt::format("node(s) had untolerated taint {{{}: {}}}", t.key, t.value)};
  return {};
}

Reasons node_affinity(const PodSpec& pod, const NodeState& n, const Cycle&) {
  if (node_matches(pod, n.spec)) return {};
  return {"node(s) didn't match Pod's node affinity/selector"};
}

bool collide(const HostPort& a, const HostPort& b) {
  return a.port == b.port && a.protocol == b.protocol && (a.ip.empty() || b.ip.empty() || a.ip == b.ip);
}

Reasons host_ports(const PodSpec& pod, const NodeState& n, const Cycle&) {
  if (pod.host_ports.empty()) return {};
  for (const auto& [key, other] : n.pods)
    for (const HostPort& used : other->host_ports)
      for (const HostPort& wanted : pod.host_ports)
        if (collide(used, wanted)) return {"node(s) didn't have free ports for the requested pod ports"};
  return {};
}

Reasons resources(const PodSpec& pod, const NodeState& n, const Cycle&) {
  Reasons out;
  if (static_cast<std::int64_t>(n.pods.size()) + 1 > n.spec.max_pods) out.emplace_back("Too many pods");
  for (const auto& [name, wanted] : pod.requests) {
    const auto have = n.spec.allocatable.find(name);
    const auto used = n.requested.find(name);
    const std::int64_t free =
        (have == n.spec.allocatable.end() ? 0 : have->second) - (used == n.requested.end() ? 0 : used->second);
    if (wanted > free) out.push_back("Insufficient " + name);
  }
  return out;
}

Reasons topology_spread(const PodSpec& pod, const NodeState& n, const Cycle& cycle) {
  for (std::size_t i = 0; i < pod.spread.size(); ++i) {
    const SpreadConstraint& c = pod.spread[i];
    if (!c.hard) continue;
    const std::string* value = topology_value(n, c.topology_key);
    if (value == nullptr) return {"node(s) didn't match pod topology spread constraints (missing required label)"};
    const auto count = cycle.spread[i].counts.find(*value);
    const std::int64_t here =
        (count == cycle.spread[i].counts.end() ? 0 : count->second) + (cycle.spread[i].self ? 1 : 0);
    if (here - cycle.spread[i].min > c.max_skew) return {"node(s) didn't match pod topology spread constraints"};
  }
  return {};
}

Reasons pod_affinity(const PodSpec& pod, const NodeState& n, const Cycle& cycle) {
  for (const auto& [key, value] : cycle.kept_out)
    if (const std::string* v = topology_value(n, key); v != nullptr && *v == value)
      return {"node(s) didn't satisfy existing pods anti-affinity rules"};
  for (std::size_t i = 0; i < pod.anti_affinity.size(); ++i)
    if (const std::string* v = topology_value(n, pod.anti_affinity[i].topology_key);
        v != nullptr && cycle.anti_affinity[i].contains(*v))
      return {"node(s) didn't match pod anti-affinity rules"};
  for (std::size_t i = 0; i < pod.affinity.size(); ++i) {
    const std::string* v = topology_value(n, pod.affinity[i].topology_key);
    if (v == nullptr || (!cycle.first_of_group && !cycle.affinity[i].contains(*v)))
      return {"node(s) didn't match pod affinity rules"};
  }
  return {};
}

constexpr std::array kFilters{
    Filter{"NodeUnschedulable", node_unschedulable},
    Filter{"NodeName", node_name},
    Filter{"TaintToleration", taints},
    Filter{"NodeAffinity", node_affinity},
    Filter{"NodePorts", host_ports},
    Filter{"NodeResourcesFit", resources},
    Filter{"PodTopologySpread", topology_spread},
    Filter{"InterPodAffinity", pod_affinity},
};

// Share of `resource` in use with the pod on the node, 0..1.
double fraction(const NodeState& n, std::string_view resource, std::int64_t used) {
  const auto it = n.spec.allocatable.find(resource);
  if (it == n.spec.allocatable.end() || it->second <= 0) return 1;
  return std::min(1.0, static_cast<double>(used) / static_cast<double>(it->second));
}

double least_allocated(const PodSpec& pod, const NodeState& n, const Cycle&) {
  const double cpu = fraction(n, "cpu", n.score_cpu + pod.score_cpu);
  const double memory = fraction(n, "memory", n.score_memory + pod.score_memory);
  return 100 * (1 - (cpu + memory) / 2);
}

double balanced(const PodSpec& pod, const NodeState& n, const Cycle&) {
  const double cpu = fraction(n, "cpu", n.score_cpu + pod.score_cpu);
  const double memory = fraction(n, "memory", n.score_memory + pod.score_memory);
  return 100 * (1 - std::abs(cpu - memory) / 2);
}

double preferred_node_affinity(const PodSpec& pod, const NodeState& n, const Cycle&) {
  std::int64_t points = 0;
  for (const NodeTerm& t : pod.preferred_affinity)
    if (term_matches(t, n.spec)) points += t.weight;
  return static_cast<double>(points);
}

double soft_taints(const PodSpec& pod, const NodeState& n, const Cycle&) {
  return static_cast<double>(std::ranges::count_if(
      n.spec.taints, [&](const Taint& t) { return t.effect == "PreferNoSchedule" && !tolerated(pod, t); }));
}

double same_owner(const PodSpec& pod, const NodeState& n, const Cycle&) {
  const auto it = n.per_owner.find(pod.owner);
  return it == n.per_owner.end() ? 0 : static_cast<double>(it->second);
}

double soft_spread(const PodSpec& pod, const NodeState& n, const Cycle& cycle) {
  double total = 0;
  for (std::size_t i = 0; i < pod.spread.size(); ++i) {
    const std::string* value = topology_value(n, pod.spread[i].topology_key);
    const auto count = value == nullptr ? cycle.spread[i].counts.end() : cycle.spread[i].counts.find(*value);
    if (count != cycle.spread[i].counts.end()) total += static_cast<double>(count->second);
  }
  return total;
}

double pod_preference(const PodSpec&, const NodeState& n, const Cycle& cycle) {
  std::int64_t points = 0;
  for (const auto& [where, p] : cycle.preference)
    if (const std::string* v = topology_value(n, where.first); v != nullptr && *v == where.second) points += p;
  return static_cast<double>(points);
}

double image_locality(const PodSpec& pod, const NodeState& n, const Cycle&) {
  return static_cast<double>(
      std::ranges::count_if(pod.images, [&](const std::string& i) { return n.spec.images.contains(i); }));
}

constexpr std::array kScores{
    Score{"NodeResourcesFit", 1, Normalize::kNone, least_allocated},
    Score{"NodeResourcesBalancedAllocation", 1, Normalize::kNone, balanced},
    Score{"NodeAffinity", 2, Normalize::kMore, preferred_node_affinity},
    Score{"TaintToleration", 3, Normalize::kFewer, soft_taints},
    Score{"DefaultSpread", 2, Normalize::kBalance, same_owner},
    Score{"PodTopologySpread", 2, Normalize::kBalance, soft_spread},
    Score{"InterPodAffinity", 2, Normalize::kRange, pod_preference},
    Score{"ImageLocality", 1, Normalize::kMore, image_locality},
};

}  // namespace

std::span<const Filter> filters() {
  return kFilters;
}
std::span<const Score> scores() {
  return kScores;
}

}  // namespace hawser::scheduler
