// SPDX-License-Identifier: Apache-2.0
// Base64 of RFC 4648 section 4, padded. Pure, any thread.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser {

[[nodiscard]] std::string base64_encode(std::string_view bytes);
// Line breaks and spaces between groups are skipped, as YAML block text has them.
Result<std::string> base64_decode(std::string_view text);

}  // namespace hawser
