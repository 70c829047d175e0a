// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/deployment_status.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "lib/base/time_text.h"

namespace hawser::controllers {
namespace {

struct Condition {
  std::string_view type;
  std::string_view status;
  std::string_view reason;
  std::string message;
};

const Object* find_condition(const Array& conditions, std::string_view type) {
  for (const Value& c : conditions)
    if (kube::str(kube::as_obj(c), {"type"}) == type) return &kube::as_obj(c);
  return nullptr;
}

// Sets `c` in `conditions`. A condition that says the same keeps its times, or with `touch` only the time of its last
// change.
void set_condition(Array& conditions, const Condition& c, WallTime now, bool touch = false) {
  Object made;
  made["type"] = text(c.type);
  made["status"] = text(c.status);
  made["reason"] = text(c.reason);
  made["message"] = text(c.message);
  made["lastUpdateTime"] = text(rfc3339(now));
  made["lastTransitionTime"] = text(rfc3339(now));
  for (Value& v : conditions) {
    const Object& before = kube::as_obj(v);
    if (kube::str(before, {"type"}) != c.type) continue;
    const bool same_status = kube::str(before, {"status"}) == c.status;
    if (same_status && kube::str(before, {"reason"}) == c.reason && !touch) return;
    if (same_status)
      if (const Value* t = before.if_contains("lastTransitionTime")) made["lastTransitionTime"] = *t;
    v = std::move(made);
    return;
  }
  conditions.push_back(std::move(made));
}

void remove_condition(Array& conditions, std::string_view type) {
  for (auto it = conditions.begin(); it != conditions.end();)
    it = kube::str(kube::as_obj(*it), {"type"}) == type ? conditions.erase(it) : it + 1;
}

std::optional<std::int64_t> deadline_seconds(const Object& deployment) {
  const Value* v = kube::find(deployment, {"spec", "progressDeadlineSeconds"});
  if (v == nullptr || v->is_null()) return std::nullopt;
  const std::int64_t n = kube::num(deployment, {"spec", "progressDeadlineSeconds"});
  // The largest value means "no deadline" in the API.
  if (n >= std::numeric_limits<std::int32_t>::max()) return std::nullopt;
  return n;
}

// More pods of the new template, fewer of old ones, or more ready or available ones than the stored status says.
bool is_progressing(const Object& before, const Object& status) {
  const auto n = [](const Object& o, std::string_view f) { return kube::num(o, {f}); };
  const auto old_pods = [&](const Object& o) { return n(o, "replicas") - n(o, "updatedReplicas"); };
  return n(status, "updatedReplicas") > n(before, "updatedReplicas") || old_pods(status) < old_pods(before) ||
         n(status, "readyReplicas") > n(before, "readyReplicas") ||
         n(status, "availableReplicas") > n(before, "availableReplicas");
}

std::string subject(const StatusInput& in) {
  if (in.sets.current) return fmt::format("ReplicaSet \"{}\"", kube::name(in.sets.current->object()));
  return fmt::format("Deployment \"{}\"", kube::name(in.deployment));
}

void set_paused(const StatusInput& in, Array& conditions) {
  const Object* cond = find_condition(conditions, "Progressing");
  if (cond != nullptr && kube::str(*cond, {"reason"}) == "ProgressDeadlineExceeded") return;
  const bool paused = kube::flag(in.deployment, {"spec", "paused"});
  const bool was = cond != nullptr && kube::str(*cond, {"reason"}) == "DeploymentPaused";
  if (paused && !was)
    set_condition(conditions, {"Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"}, in.now);
  else if (!paused && was)
    set_condition(conditions, {"Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed"}, in.now);
}

void set_progress(const StatusInput& in, const Object& status, Array& conditions) {
  if (!deadline_seconds(in.deployment)) return remove_condition(conditions, "Progressing");
  set_paused(in, conditions);
  if (kube::flag(in.deployment, {"spec", "paused"})) return;
  if (in.created) {
    set_condition(
        conditions,
        {"Progressing", "True", "NewReplicaSetCreated",
         fmt::format("Created new replica set \"{}\"", in.sets.current ? kube::name(in.sets.current->object()) : "")},
        in.now, true);
    return;
  }
  const Object* cond = find_condition(conditions, "Progressing");
  const std::string_view reason = cond == nullptr ? "" : kube::str(*cond, {"reason"});
  if (in.found && reason != "FoundNewReplicaSet") {
    set_condition(conditions,
                  {"Progressing", "True", "FoundNewReplicaSet",
                   fmt::format("Found new replica set \"{}\"", kube::name(in.sets.current->object()))},
                  in.now);
    return;
  }
  // A rollout that was complete and still is keeps its condition, so that a pod that dies later does not fail the
  // rollout.
  if (kube::num(status, {"replicas"}) == kube::num(status, {"updatedReplicas"}) && reason == "NewReplicaSetAvailable")
    return;
  if (is_complete(in.deployment, status)) {
    set_condition(conditions,
                  {"Progressing", "True", "NewReplicaSetAvailable", subject(in) + " has successfully progressed."},
                  in.now);
  } else if (is_progressing(kube::obj(in.deployment, {"status"}), status)) {
    set_condition(conditions, {"Progressing", "True", "ReplicaSetUpdated", subject(in) + " is progressing."}, in.now,
                  true);
  } else {
    Object probe;
    probe["conditions"] = conditions;
    const auto left = until_deadline(in.deployment, probe, in.now);
    if (left && *left <= Nanos(0))
      set_condition(conditions,
                    {"Progressing", "False", "ProgressDeadlineExceeded", subject(in) + " has timed out progressing."},
                    in.now);
  }
}

void set_failure(const StatusInput& in, Array& conditions) {
  remove_condition(conditions, "ReplicaFailure");
  for (const PlannedSet* s : in.sets.all()) {
    const Object* c = condition(s->object(), "ReplicaFailure");
    if (c == nullptr) continue;
    Object made = *c;
    if (const Value* t = c->if_contains("lastTransitionTime")) made["lastUpdateTime"] = *t;
    conditions.push_back(std::move(made));
    return;
  }
}

}  // namespace

bool is_complete(const Object& deployment, const Object& status) {
  const std::int64_t want = kube::num(deployment, {"spec", "replicas"}, 1);
  return kube::num(status, {"updatedReplicas"}) == want && kube::num(status, {"replicas"}) == want &&
         kube::num(status, {"availableReplicas"}) == want &&
         kube::num(status, {"observedGeneration"}) >= kube::num(deployment, {"metadata", "generation"});
}

std::optional<Nanos> until_deadline(const Object& deployment, const Object& status, WallTime now) {
  const auto seconds = deadline_seconds(deployment);
  if (!seconds || kube::flag(deployment, {"spec", "paused"})) return std::nullopt;
  const Object* cond = find_condition(kube::arr(status, {"conditions"}), "Progressing");
  if (cond == nullptr) return std::nullopt;
  const std::string_view reason = kube::str(*cond, {"reason"});
  if (reason == "NewReplicaSetAvailable" || reason == "ProgressDeadlineExceeded") return std::nullopt;
  const auto from = time_at(*cond, {"lastUpdateTime"});
  if (!from) return std::nullopt;
  return *from + std::chrono::seconds(*seconds) - now;
}

Object deployment_status(const StatusInput& in) {
  std::int64_t pods = 0, ready = 0, available = 0;
  for (const PlannedSet* s : in.sets.all()) {
    pods += s->pods();
    ready += s->ready();
    available += s->available();
  }
  const std::int64_t updated = in.sets.current ? in.sets.current->pods() : 0;
  // Missing ones are those that the ReplicaSets are to have and that are not available.
  const std::int64_t unavailable = std::max<std::int64_t>(0, in.sets.total_size() - available);
  const std::int64_t want = kube::num(in.deployment, {"spec", "replicas"}, 1);

  Object status;
  status["observedGeneration"] = kube::num(in.deployment, {"metadata", "generation"});
  for (const auto& [field, n] : {std::pair("replicas", pods),
                                 {"updatedReplicas", updated},
                                 {"readyReplicas", ready},
                                 {"availableReplicas", available},
                                 {"unavailableReplicas", unavailable}})
    if (n != 0) status[field] = n;
  if (const Value* c = kube::find(in.deployment, {"status", "collisionCount"})) status["collisionCount"] = *c;

  Array conditions = kube::arr(in.deployment, {"status", "conditions"});
  const bool enough = available >= want - rolling_limits(in.deployment).unavailable;
  set_condition(conditions,
                enough
                    ? Condition{"Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."}
                    : Condition{"Available", "False", "MinimumReplicasUnavailable",
                                "Deployment does not have minimum availability."},
                in.now);
  set_failure(in, conditions);
  set_progress(in, status, conditions);
  if (!conditions.empty()) status["conditions"] = std::move(conditions);
  return status;
}

}  // namespace hawser::controllers
