// SPDX-License-Identifier: Apache-2.0
// What the state of a pod means to controllers. Pure, any thread. Source: "Pod Lifecycle" of the Kubernetes
// documentation.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/base/clock.h"
#include "lib/kube/client.h"
#include "lib/kube/object.h"

namespace hawser::controllers {

using kube::Array;
using kube::Object;
using kube::ObjectPtr;
using kube::Value;

// The condition of type `type` in status.conditions, or null.
[[nodiscard]] const Object* condition(const Object& o, std::string_view type);

[[nodiscard]] bool is_terminal(const Object& pod);  // Succeeded or Failed: no container runs or will run
[[nodiscard]] bool is_active(const Object& pod);    // neither terminal nor being deleted
[[nodiscard]] bool is_ready(const Object& pod);
// When the Ready condition last became what it is; nothing without a readable time.
[[nodiscard]] std::optional<WallTime> ready_since(const Object& pod);
// Ready for at least `min_ready`.
[[nodiscard]] bool is_available(const Object& pod, Nanos min_ready, WallTime now);
// Restarts of all containers together.
[[nodiscard]] std::int64_t restart_count(const Object& pod);

[[nodiscard]] std::optional<WallTime> time_at(const Object& o, std::initializer_list<std::string_view> path);
[[nodiscard]] inline std::optional<WallTime> created_at(const Object& o) {
  return time_at(o, {"metadata", "creationTimestamp"});
}

// An annotation or a label, "" if missing.
[[nodiscard]] std::string_view annotation(const Object& o, std::string_view name);
[[nodiscard]] std::string_view label(const Object& o, std::string_view name);
[[nodiscard]] inline const Object& labels(const Object& o) {
  return kube::obj(o, {"metadata", "labels"});
}

// A JSON string from text (boost::json has no implicit conversion from std types).
[[nodiscard]] inline boost::json::string text(std::string_view s) {
  return boost::json::string(s.data(), s.size());
}

}  // namespace hawser::controllers
