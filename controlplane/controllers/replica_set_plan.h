// SPDX-License-Identifier: Apache-2.0
// ReplicaSet, the pure part: how many pods to make, which to remove, and the status that the pods add up to.
// Source: "ReplicaSet" of the Kubernetes documentation (pod deletion order, adoption).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

struct ReplicaSetObserved {
  const Object& replica_set;
  std::span<const ObjectPtr> pods;     // owned by it, in any phase
  std::span<const ObjectPtr> related;  // active pods of every ReplicaSet with the same owner: they rank pods by node
  WallTime now;
};

struct ReplicaSetPlan {
  int create = 0;
  std::vector<ObjectPtr> remove;
};
[[nodiscard]] ReplicaSetPlan plan_replicas(const ReplicaSetObserved& in);

// What managing the pods ran into, for the ReplicaFailure condition.
struct ReplicaFailure {
  std::string reason;  // "FailedCreate" or "FailedDelete"
  std::string message;
};
// The new status, or nothing if the stored one already says it. `recheck`: when the next pod becomes available by time
// alone.
struct ReplicaSetStatus {
  std::optional<Object> status;
  std::optional<Nanos> recheck;
};
[[nodiscard]] ReplicaSetStatus plan_status(const ReplicaSetObserved& in, const std::optional<ReplicaFailure>& failure);

// The pod to create from the template: labels, annotations, finalizers, spec, generateName and owner.
[[nodiscard]] Object pod_from_template(const Object& replica_set);

}  // namespace hawser::controllers
