// SPDX-License-Identifier: Apache-2.0
// Kubernetes quantities ("500m", "128Mi", "1e3") as integers, rounded up as the API does. Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::agent {

// In thousandths: "1.5" -> 1500.
Result<std::int64_t> parse_milli(std::string_view text);
// In whole units: "128Mi" -> 134217728, "100m" -> 1.
Result<std::int64_t> parse_units(std::string_view text);

}  // namespace hawser::agent
