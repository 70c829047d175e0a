// SPDX-License-Identifier: Apache-2.0
// Subresources that are more than a view of part of the object: scale, binding, eviction. (status and finalize are the
// registry's own.) Blocking, any thread. Source: Kubernetes API reference (autoscaling/v1 Scale, v1 Binding, policy/v1
// Eviction).
#pragma once

#include "controlplane/apiserver/registry.h"

namespace hawser::apiserver {

// The Scale of a Deployment or ReplicaSet. Pure.
[[nodiscard]] Object scale_of(const Object& workload);

Expected<Object> get_scale(Registry& r, const Kind& k, ObjectName at);
// PUT (`sent` is a whole Scale).
Expected<Object> update_scale(Registry& r, const Kind& k, ObjectName at, const Object& sent, const WriteOptions& w);
// PATCH, JSON or merge.
Expected<Object> patch_scale(Registry& r, const Kind& k, ObjectName at, kube::PatchType type, const Value& body,
                             const WriteOptions& w);

// Puts a pod on the node that the Binding names, once.
Expected<> bind_pod(Registry& r, ObjectName at, const Object& binding, const WriteOptions& w);
Expected<> evict_pod(Registry& r, ObjectName at, const Object& eviction, const WriteOptions& w);

}  // namespace hawser::apiserver
