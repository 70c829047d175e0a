// SPDX-License-Identifier: Apache-2.0
// Scalars of the API that are more than JSON: times and base64 (quantities: lib/kube/quantity.h). Parsing gives the
// canonical text that is stored, as the Go types do when they are decoded and encoded again. Sources: RFC 3339, RFC
// 4648. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::schema {

// Unix time in microseconds. Accepts what RFC 3339 does.
Result<std::int64_t> parse_time_us(std::string_view text);
[[nodiscard]] std::string time_text(std::int64_t unix_seconds);   // 2024-01-02T03:04:05Z
[[nodiscard]] std::string micro_time_text(std::int64_t unix_us);  // 2024-01-02T03:04:05.000006Z

// Index of the first byte that is not base64, or none.
[[nodiscard]] std::optional<std::size_t> base64_error(std::string_view text);
[[nodiscard]] std::string base64_encode(std::string_view bytes);
// Length of the decoded bytes of valid base64.
[[nodiscard]] std::size_t base64_decoded_size(std::string_view text);

}  // namespace hawser::schema
