// SPDX-License-Identifier: Apache-2.0
// Deployment, the pure part: from a Deployment, its ReplicaSets and their pods to what is to be written. Applied again
// after every change it converges; applied to its own result it plans nothing. Source: "Deployments" of the Kubernetes
// documentation.
//
// Theory of operation: the ReplicaSet whose template equals the Deployment's is the new one, the others are old. Each
// pass finds or makes the new one, gives it the highest revision, then moves at most one step: scales the whole
// Deployment in proportion if its size changed, else raises the new ReplicaSet as far as maxSurge allows and lowers the
// old ones as far as maxUnavailable allows. Sizes are
// counted from the specs of the ReplicaSets, what exists and is available also from their status, each time the more
// cautious of the two: a pass that is repeated before the pods have followed does not go further than the first one,
// and maxSurge and maxUnavailable hold at every moment.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

struct DeploymentObserved {
  const Object& deployment;
  std::span<const ObjectPtr> replica_sets;  // owned by it
  // Whether an old ReplicaSet still has a pod that may run: Recreate waits for it.
  bool old_pods_run = false;
  WallTime now;
};

struct PlannedEvent {
  std::string reason;
  std::string message;
};

struct DeploymentPlan {
  std::optional<Object> create;      // the new ReplicaSet
  std::vector<Object> update;        // ReplicaSets with another size, revision or annotations
  std::vector<ObjectPtr> remove;     // history beyond revisionHistoryLimit
  std::optional<Object> deployment;  // with another revision annotation
  std::optional<Object> status;      // if it differs from the stored one
  std::vector<PlannedEvent> events;
  std::optional<Nanos> recheck;  // when the progress deadline can pass
};
[[nodiscard]] DeploymentPlan plan_deployment(const DeploymentObserved& in);

// maxSurge and maxUnavailable as pod counts: percentages of `replicas`, surge rounded up and unavailable down, never
// both 0.
struct RollingLimits {
  std::int64_t surge = 0;
  std::int64_t unavailable = 0;
};
[[nodiscard]] RollingLimits rolling_limits(const Object& deployment);

// The ReplicaSet among `sets` that has the Deployment's template (the oldest, if there are several); null if none.
[[nodiscard]] ObjectPtr new_replica_set(const Object& deployment, std::span<const ObjectPtr> sets);

inline constexpr std::string_view kRevision = "deployment.kubernetes.io/revision";
inline constexpr std::string_view kRevisionHistory = "deployment.kubernetes.io/revision-history";
inline constexpr std::string_view kDesiredReplicas = "deployment.kubernetes.io/desired-replicas";
inline constexpr std::string_view kMaxReplicas = "deployment.kubernetes.io/max-replicas";

}  // namespace hawser::controllers
