// SPDX-License-Identifier: Apache-2.0
// The CNI specification versions we speak, oldest first, and what each allows. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace hawser::cni {

inline constexpr std::array<std::string_view, 7> kVersions = {"0.1.0", "0.2.0", "0.3.0", "0.3.1",
                                                              "0.4.0", "1.0.0", "1.1.0"};

[[nodiscard]] inline bool known_version(std::string_view v) {
  return std::ranges::find(kVersions, v) != kVersions.end();
}
// Both known.
[[nodiscard]] inline bool at_least(std::string_view version, std::string_view wanted) {
  return std::ranges::find(kVersions, version) >= std::ranges::find(kVersions, wanted);
}

}  // namespace hawser::cni
