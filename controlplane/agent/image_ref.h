// SPDX-License-Identifier: Apache-2.0
// Image references as Kubernetes reads them: [host[:port]/]path[:tag][@digest]. Source: the distribution reference
// grammar. Pure.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::agent {

// The reference with ":latest" added where it has neither tag nor digest; an error with the kubelet's text where it is
// malformed.
Result<std::string> normal_image_ref(std::string_view ref);
// True for a reference whose tag is "latest", which is pulled always unless the pod says otherwise.
[[nodiscard]] bool is_latest(std::string_view ref);

}  // namespace hawser::agent
