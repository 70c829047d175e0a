// SPDX-License-Identifier: Apache-2.0
// Quantities of the API ("500m", "1.5Gi", "1e3") in fixed point: the one reader that the API server, the scheduler and
// the agent share, so that they never disagree about a number. Source: the documentation of Kubernetes'
// resource.Quantity. Pure, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::kube {

// value = nanos / 10^9. Finer parts are rounded away from zero; the magnitude saturates at 2^63-1.
struct Quantity {
  enum class Format : std::uint8_t { kDecimal, kBinary, kExponent };
  __int128 nanos = 0;
  Format format = Format::kDecimal;

  // The error's text is what Kubernetes says.
  static Result<Quantity> parse(std::string_view text);
  [[nodiscard]] std::string text() const;    // canonical: "1000m" is "1"; parsed again it is the same number and text
  [[nodiscard]] std::int64_t value() const;  // rounded up: "100m" is 1, "-1.5" is -1
  [[nodiscard]] std::int64_t milli_value() const;  // in thousandths, rounded up and saturated
};

// For those who need the number alone: "128Mi" -> 134217728, and "1.5" -> 1500.
Result<std::int64_t> quantity_value(std::string_view text);
Result<std::int64_t> quantity_milli_value(std::string_view text);

}  // namespace hawser::kube
