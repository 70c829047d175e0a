// SPDX-License-Identifier: Apache-2.0
#include "lib/base/random.h"

#include <array>
#include <string_view>

#include <fmt/format.h>
#include <sys/random.h>

namespace hawser {

void secure_random(std::span<std::uint8_t> out) {
  // Blocks only before the kernel's generator is seeded, early at boot; the only other failure is EINTR (getrandom(2)).
  while (!out.empty()) {
    ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n > 0) out = out.subspan(static_cast<std::size_t>(n));
  }
}

std::uint64_t random_u64() {
  std::array<std::uint8_t, 8> b;
  secure_random(b);
  std::uint64_t v = 0;
  for (auto x : b) v = v << 8 | x;
  return v;
}

double random_unit() {
  return static_cast<double>(random_u64() >> 11) * 0x1p-53;
}

std::string uuid_v4() {
  std::array<std::uint8_t, 16> b;
  secure_random(b);
  b[6] = static_cast<std::uint8_t>((b[6] & 0x0f) | 0x40);  // RFC 9562 section 5.4: version 4,
  b[8] = static_cast<std::uint8_t>((b[8] & 0x3f) | 0x80);  // variant 10
  std::string out;
  for (std::size_t i = 0; i < b.size(); i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    fmt::format_to(std::back_inserter(out), "{:02x}", b[i]);
  }
  return out;
}

std::string name_suffix(std::size_t length) {
  static constexpr std::string_view kAlphabet = "bcdfghjklmnpqrstvwxz2456789";
  // Bytes above the last whole multiple would favour the first letters.
  static constexpr unsigned kLimit = 256 / kAlphabet.size() * kAlphabet.size();
  std::string out;
  while (out.size() < length) {
    std::array<std::uint8_t, 16> b;
    secure_random(b);
    for (auto x : b)
      if (x < kLimit && out.size() < length) out += kAlphabet[x % kAlphabet.size()];
  }
  return out;
}

Nanos with_jitter(Nanos base, double factor) {
  return base + Nanos(static_cast<std::int64_t>(static_cast<double>(base.count()) * factor * random_unit()));
}

}  // namespace hawser
