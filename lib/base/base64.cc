// SPDX-License-Identifier: Apache-2.0
#include "lib/base/base64.h"

#include <cstdint>

namespace hawser {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    auto group = bytes.substr(i, 3);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; k++)
      bits = bits << 8 | (k < group.size() ? static_cast<std::uint8_t>(group[k]) : 0u);
    for (std::size_t k = 0; k < 4; k++) out += k <= group.size() ? kAlphabet[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int digits = 0;
  int padding = 0;
  for (char c : text) {
    if (c == '\n' || c == '\r' || c == ' ' || c == '\t') continue;
    auto value = kAlphabet.find(c);
    if (c == '=')
      padding++, value = 0;
    else if (value == kAlphabet.npos || padding > 0)
      return fail(EINVAL, "not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (++digits < 4) continue;
    for (int k = 0; k < 3 - padding; k++) out += static_cast<char>(bits >> (16 - 8 * k));
    if (padding > 2) return fail(EINVAL, "not base64");
    digits = 0;
    bits = 0;
  }
  if (digits != 0) return fail(EINVAL, "not base64: cut short");
  return out;
}

}  // namespace hawser
