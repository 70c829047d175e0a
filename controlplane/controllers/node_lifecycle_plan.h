// SPDX-License-Identifier: Apache-2.0
// Node lifecycle, the pure part: what a silent or unready node's conditions and taints have to be, when pods leave a
// tainted node, and how fast nodes may be emptied. Source: "Nodes" and "Taints and Tolerations" of the Kubernetes
// documentation.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

inline constexpr std::string_view kTaintNotReady = "node.kubernetes.io/not-ready";
inline constexpr std::string_view kTaintUnreachable = "node.kubernetes.io/unreachable";
inline constexpr Nanos kDefaultToleration = std::chrono::seconds(300);

// The status with every condition the node's agent keeps set to Unknown; nothing if it is so already. For a node that
// has been silent longer than the grace period.
[[nodiscard]] std::optional<Object> silent_status(const Object& node, WallTime now);

enum class Readiness { kReady, kNotReady, kUnknown };
[[nodiscard]] Readiness readiness(const Object& node);

// spec.taints as the conditions and spec.unschedulable ask; nothing if they are so already. Taints of others are kept
// as they are. `evict` allows new NoExecute taints; existing ones stay until the node recovers or `lift` is set.
struct TaintInput {
  const Object& node;
  bool evict = true;
  bool lift = false;
  WallTime now;
};
[[nodiscard]] std::optional<Array> plan_taints(const TaintInput& in);

// When the pod has to leave a node with these taints: nothing = it stays; a time in the past = now. Pods without a
// toleration for not-ready or unreachable have 300 s, as admission would have given them.
[[nodiscard]] std::optional<WallTime> eviction_time(const Object& pod, const Array& taints, WallTime now);

// The Ready condition False for a pod whose node is not ready, so that it leaves its Services; nothing if it is not
// True.
[[nodiscard]] std::optional<Object> pod_status_not_ready(const Object& pod, WallTime now);

// Nobody is evicted when all nodes are gone (more likely it is us who are cut off), nor, in clusters of up to 50 nodes,
// when more than half of three or more nodes are; larger ones go on at a tenth of the speed.
enum class Disruption { kNormal, kPartial, kFull };
[[nodiscard]] Disruption disruption(std::size_t ready, std::size_t not_ready);
// Time between two nodes that get NoExecute taints; nothing: none may.
[[nodiscard]] std::optional<Nanos> eviction_interval(Disruption d, std::size_t nodes);

}  // namespace hawser::controllers
