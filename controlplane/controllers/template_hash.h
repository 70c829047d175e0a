// SPDX-License-Identifier: Apache-2.0
// The pod-template-hash of a Deployment: a short, stable name for a pod template. Pure, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

// The same for equal templates whatever the order of their fields and whoever wrote them; `collisions` gives the next
// one when two templates meet in one hash. Written with letters that make no words and are valid in names and labels.
[[nodiscard]] std::string template_hash(const Object& pod_template, std::int64_t collisions);

// Equal but for the label pod-template-hash.
[[nodiscard]] bool same_template(const Object& a, const Object& b);

inline constexpr std::string_view kHashLabel = "pod-template-hash";

}  // namespace hawser::controllers
