// SPDX-License-Identifier: Apache-2.0
// Random values from the kernel's generator, fit for keys and names. Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lib/base/clock.h"

namespace hawser {

void secure_random(std::span<std::uint8_t> out);
[[nodiscard]] std::uint64_t random_u64();
[[nodiscard]] double random_unit();  // [0, 1)
[[nodiscard]] std::string uuid_v4();
// The end of a generated Kubernetes name: no vowels, no 0, 1 or 3, so that no word can come out of it (apimachinery
// util/rand).
[[nodiscard]] std::string name_suffix(std::size_t length = 5);
// `base` longer by up to `factor` of itself: with_jitter(1s, 0.5) is in [1s, 1.5s).
[[nodiscard]] Nanos with_jitter(Nanos base, double factor);

}  // namespace hawser
