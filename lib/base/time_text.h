// SPDX-License-Identifier: Apache-2.0
// Points in time as RFC 3339 text, always UTC: seconds (metav1.Time) and microseconds (metav1.MicroTime). Pure, any
// thread.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/clock.h"
#include "lib/base/result.h"

namespace hawser {

[[nodiscard]] std::string rfc3339(WallTime t);        // "2026-01-01T00:00:00Z"
[[nodiscard]] std::string rfc3339_micro(WallTime t);  // "2026-01-01T00:00:00.000000Z"
// Either form, with any number of fraction digits and "Z" or "+02:00".
Result<WallTime> parse_rfc3339(std::string_view text);

}  // namespace hawser
