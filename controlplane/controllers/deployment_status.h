// SPDX-License-Identifier: Apache-2.0
// The status of a Deployment from its ReplicaSets: counts and the conditions Available, Progressing and ReplicaFailure,
// in the terms that `kubectl rollout status` reads. Pure.
#pragma once

#include <optional>
#include <string>

#include "controlplane/controllers/deployment_sets.h"

namespace hawser::controllers {

struct StatusInput {
  const Object& deployment;
  PlannedSets& sets;
  WallTime now;
  bool created = false;  // this pass makes the new ReplicaSet
  bool found = false;    // this pass adopts an existing ReplicaSet as the new one
};
[[nodiscard]] Object deployment_status(const StatusInput& in);
// Time until the progress deadline passes, from the conditions of `status`; nothing if no deadline runs.
[[nodiscard]] std::optional<Nanos> until_deadline(const Object& deployment, const Object& status, WallTime now);
[[nodiscard]] bool is_complete(const Object& deployment, const Object& status);

}  // namespace hawser::controllers
