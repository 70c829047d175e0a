// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/cycle.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace hawser::scheduler {
namespace {

bool matches(const PodTerm& t, const PodSpec& other) {
  return (t.namespaces.empty() || t.namespaces.contains(other.ns)) && t.selector.matches(other.labels());
}

std::optional<std::int64_t> integer(const std::string& s) {
  std::int64_t n = 0;
  const auto [end, err] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (err != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return n;
}

bool requirement_matches(const NodeRequirement& r, const NodeSpec& node) {
  using Op = NodeRequirement::Op;
  const std::string* have = nullptr;
  if (r.on_name) {
    have = &node.name;
  } else if (const auto it = node.labels.find(r.key); it != node.labels.end()) {
    have = &it->second;
  }
  switch (r.op) {
    case Op::kExists:
      return have != nullptr;
    case Op::kNotExists:
      return have == nullptr;
    case Op::kIn:
      return have != nullptr && std::ranges::find(r.values, *have) != r.values.end();
    case Op::kNotIn:
      return have == nullptr || std::ranges::find(r.values, *have) == r.values.end();
    case Op::kGt:
    case Op::kLt: {
      if (have == nullptr || r.values.size() != 1) return false;
      const auto a = integer(*have), b = integer(r.values[0]);
      return a && b && (r.op == Op::kGt ? *a > *b : *a < *b);
    }
    case Op::kInvalid:
      return false;
  }
  return false;
}

void count_spread(const PodSpec& pod, const ClusterState& state, Cycle& out) {
  for (const SpreadConstraint& c : pod.spread) {
    Cycle::Spread s;
    s.self = c.selector.matches(pod.labels());
    for (const NodeState* n : state.nodes()) {
      // Only nodes the pod could go to count, as the default node inclusion policy has it.
      const std::string* value = topology_value(*n, c.topology_key);
      if (value == nullptr || !node_matches(pod, n->spec)) continue;
      std::int64_t& count = s.counts[*value];
      for (const auto& [k, p] : n->pods)
        if (p->ns == pod.ns && !p->deleting && c.selector.matches(p->labels())) ++count;
    }
    if (!s.counts.empty())
      s.min = std::ranges::min_element(s.counts, {}, [](const auto& e) { return e.second; })->second;
    out.spread.push_back(std::move(s));
  }
}

void prefer(const std::vector<PodTerm>& terms, const PodSpec& other, const NodeState& n, std::int64_t sign,
            Cycle& out) {
  for (const PodTerm& t : terms) {
    const std::string* value = topology_value(n, t.topology_key);
    if (value != nullptr && matches(t, other)) out.preference[{t.topology_key, *value}] += sign * t.weight;
  }
}

void require(const std::vector<PodTerm>& terms, const PodSpec& other, const NodeState& n,
             std::vector<std::set<std::string>>& found) {
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const std::string* value = topology_value(n, terms[i].topology_key);
    if (value != nullptr && matches(terms[i], other)) found[i].insert(*value);
  }
}

void look_at_pods(const PodSpec& pod, const ClusterState& state, Cycle& out) {
  out.affinity.resize(pod.affinity.size());
  out.anti_affinity.resize(pod.anti_affinity.size());
  for (const NodeState* n : state.nodes()) {
    for (const auto& [k, other] : n->pods) {
      require(pod.affinity, *other, *n, out.affinity);
      require(pod.anti_affinity, *other, *n, out.anti_affinity);
      prefer(pod.preferred_affinity_pods, *other, *n, 1, out);
      prefer(pod.preferred_anti_affinity_pods, *other, *n, -1, out);
      for (const PodTerm& t : other->anti_affinity) {
        const std::string* value = topology_value(*n, t.topology_key);
        if (value != nullptr && matches(t, pod)) out.kept_out.emplace(t.topology_key, *value);
      }
    }
  }
  out.first_of_group = !pod.affinity.empty() &&
                       std::ranges::all_of(out.affinity, [](const auto& s) { return s.empty(); }) &&
                       std::ranges::all_of(pod.affinity, [&](const PodTerm& t) { return matches(t, pod); });
}

}  // namespace

const std::string* topology_value(const NodeState& n, const std::string& key) {
  const auto it = n.spec.labels.find(key);
  return it == n.spec.labels.end() ? nullptr : &it->second;
}

bool term_matches(const NodeTerm& term, const NodeSpec& node) {
  return !term.requirements.empty() &&
         std::ranges::all_of(term.requirements, [&](const NodeRequirement& r) { return requirement_matches(r, node); });
}

bool node_matches(const PodSpec& pod, const NodeSpec& node) {
  for (const auto& [k, v] : pod.node_selector) {
    const auto it = node.labels.find(k);
    if (it == node.labels.end() || it->second != v) return false;
  }
  return !pod.has_required_affinity ||
         std::ranges::any_of(pod.required_affinity, [&](const NodeTerm& t) { return term_matches(t, node); });
}

Cycle Cycle::of(const PodSpec& pod, const ClusterState& state) {
  Cycle out;
  if (!pod.spread.empty()) count_spread(pod, state, out);
  const bool own = !pod.affinity.empty() || !pod.anti_affinity.empty() || !pod.preferred_affinity_pods.empty() ||
                   !pod.preferred_anti_affinity_pods.empty();
  if (own || state.any_affinity()) look_at_pods(pod, state, out);
  return out;
}

}  // namespace hawser::scheduler
