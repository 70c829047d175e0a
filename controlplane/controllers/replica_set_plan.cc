// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/replica_set_plan.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

#include "controlplane/controllers/ownership.h"
#include "lib/base/time_text.h"
#include "lib/kube/selector.h"

namespace hawser::controllers {
namespace {

std::vector<ObjectPtr> active_of(std::span<const ObjectPtr> pods) {
  std::vector<ObjectPtr> out;
  for (const ObjectPtr& p : pods)
    if (is_active(*p)) out.push_back(p);
  return out;
}

int phase_order(const Object& pod) {
  const std::string_view phase = kube::str(pod, {"status", "phase"});
  if (phase == "Running") return 2;
  if (phase == "Unknown") return 1;
  return 0;
}

std::int64_t deletion_cost(const Object& pod) {
  const std::string_view s = annotation(pod, "controller.kubernetes.io/pod-deletion-cost");
  std::int64_t cost = 0;
  std::from_chars(s.data(), s.data() + s.size(), cost);
  return cost;
}

// Sorts first what is to go first. Each element says "smaller goes first".
using Rank = std::tuple<bool, int, bool, std::int64_t, int, std::int64_t, std::int64_t, std::int64_t, std::string>;

Rank rank_of(const Object& pod, const std::map<std::string_view, int>& per_node) {
  const std::string_view node = kube::str(pod, {"spec", "nodeName"});
  const auto on_node = per_node.find(node);
  const auto since = is_ready(pod) ? ready_since(pod) : std::nullopt;
  const auto created = created_at(pod);
  return {!node.empty(),                                       // unassigned first
          phase_order(pod),                                    // pending, unknown, running
          is_ready(pod),                                       // not ready first
          deletion_cost(pod),                                  // cheap first
          on_node == per_node.end() ? 0 : -on_node->second,    // from the most crowded node first
          since ? -since->time_since_epoch().count() : 0,      // ready for the shortest time first
          -restart_count(pod),                                 // the most restarted first
          created ? -created->time_since_epoch().count() : 0,  // youngest first
          std::string(kube::name(pod))};                       // and always the same choice
}

std::vector<ObjectPtr> choose_removals(std::vector<ObjectPtr> active, std::span<const ObjectPtr> related,
                                       std::size_t n) {
  if (n >= active.size()) return active;
  std::map<std::string_view, int> per_node;
  for (const ObjectPtr& p : related)
    if (is_active(*p)) ++per_node[kube::str(*p, {"spec", "nodeName"})];
  std::vector<std::pair<Rank, ObjectPtr>> ranked;
  ranked.reserve(active.size());
  for (ObjectPtr& p : active) {
    Rank r = rank_of(*p, per_node);
    ranked.emplace_back(std::move(r), std::move(p));
  }
  std::ranges::sort(ranked, {}, &std::pair<Rank, ObjectPtr>::first);
  std::vector<ObjectPtr> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(ranked[i].second);
  return out;
}

Array failure_conditions(const Object& rs, const std::optional<ReplicaFailure>& failure, WallTime now) {
  Array out;
  const Object* before = nullptr;
  for (const Value& c : kube::arr(rs, {"status", "conditions"})) {
    if (kube::str(kube::as_obj(c), {"type"}) == "ReplicaFailure")
      before = &kube::as_obj(c);
    else
      out.push_back(c);
  }
  if (!failure) return out;
  if (before != nullptr && kube::str(*before, {"reason"}) == failure->reason) {
    out.push_back(*before);
    return out;
  }
  Object c;
  c["type"] = "ReplicaFailure";
  c["status"] = "True";
  c["reason"] = text(failure->reason);
  c["message"] = text(failure->message);
  c["lastTransitionTime"] = text(rfc3339(now));
  out.push_back(std::move(c));
  return out;
}

}  // namespace

ReplicaSetPlan plan_replicas(const ReplicaSetObserved& in) {
  ReplicaSetPlan plan;
  if (kube::deleting(in.replica_set)) return plan;
  std::vector<ObjectPtr> active = active_of(in.pods);
  const auto want =
      static_cast<std::size_t>(std::max<std::int64_t>(0, kube::num(in.replica_set, {"spec", "replicas"}, 1)));
  if (active.size() < want)
    plan.create = static_cast<int>(want - active.size());
  else if (const std::size_t surplus = active.size() - want; surplus > 0)
    plan.remove = choose_removals(std::move(active), in.related, surplus);
  return plan;
}

ReplicaSetStatus plan_status(const ReplicaSetObserved& in, const std::optional<ReplicaFailure>& failure) {
  ReplicaSetStatus out;
  const Object& rs = in.replica_set;
  const Nanos min_ready = std::chrono::seconds(kube::num(rs, {"spec", "minReadySeconds"}));
  const auto template_labels = kube::LabelSelector::from_map(kube::obj(rs, {"spec", "template", "metadata", "labels"}));
  std::int64_t replicas = 0, labeled = 0, ready = 0, available = 0;
  for (const ObjectPtr& p : in.pods) {
    if (!is_active(*p)) continue;
    ++replicas;
    if (template_labels.matches(labels(*p))) ++labeled;
    if (!is_ready(*p)) continue;
    ++ready;
    if (is_available(*p, min_ready, in.now)) {
      ++available;
    } else if (const auto since = ready_since(*p)) {
      const Nanos left = *since + min_ready - in.now;
      if (!out.recheck || left < *out.recheck) out.recheck = left;
    }
  }
  Object status;
  status["replicas"] = replicas;
  if (labeled != 0) status["fullyLabeledReplicas"] = labeled;
  if (ready != 0) status["readyReplicas"] = ready;
  if (available != 0) status["availableReplicas"] = available;
  status["observedGeneration"] = kube::num(rs, {"metadata", "generation"});
  Array conditions = failure_conditions(rs, failure, in.now);
  if (!conditions.empty()) status["conditions"] = std::move(conditions);
  if (status != kube::obj(rs, {"status"})) out.status = std::move(status);
  return out;
}

Object pod_from_template(const Object& replica_set) {
  const Object& tmpl = kube::obj(replica_set, {"spec", "template"});
  Object meta;
  for (const char* field : {"labels", "annotations", "finalizers"})
    if (const Value* v = kube::find(tmpl, {"metadata", field}); v != nullptr && !v->is_null()) meta[field] = *v;
  meta["generateName"] = text(std::string(kube::name(replica_set)) + "-");
  meta["namespace"] = text(kube::ns(replica_set));
  meta["ownerReferences"] = Array{controller_reference("apps/v1", "ReplicaSet", replica_set)};
  Object pod;
  pod["apiVersion"] = "v1";
  pod["kind"] = "Pod";
  pod["metadata"] = std::move(meta);
  pod["spec"] = kube::obj(tmpl, {"spec"});
  return pod;
}

}  // namespace hawser::controllers
