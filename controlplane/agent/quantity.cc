// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/quantity.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace hawser::agent {
namespace {

struct Suffix {
  std::string_view text;
  long double factor;
};
constexpr Suffix kSuffixes[] = {
    {"", 1},
    {"n", 1e-9L},
    {"u", 1e-6L},
    {"m", 1e-3L},
    {"k", 1e3L},
    {"M", 1e6L},
    {"G", 1e9L},
    {"T", 1e12L},
    {"P", 1e15L},
    {"E", 1e18L},
    {"Ki", 1024.L},
    {"Mi", 1048576.L},
    {"Gi", 1073741824.L},
    {"Ti", 1099511627776.L},
    {"Pi", 1125899906842624.L},
    {"Ei", 1152921504606846976.L},
};

Result<std::int64_t> parse(std::string_view text, long double scale) {
  auto bad = [&] { return fail(EINVAL, "quantity {:?}: not a number with a suffix like m, k, M, Ki, Mi", text); };
  double number = 0;
  auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (err != std::errc() || !std::isfinite(number)) return bad();
  std::string_view suffix(end, text.data() + text.size() - end);
  for (const auto& s : kSuffixes) {
    if (s.text != suffix) continue;
    long double v = static_cast<long double>(number) * s.factor * scale;
    // 0.1 is not exact in binary: an excess below a millionth is not an excess.
    v = std::ceil(v - 1e-6L);
    if (v > static_cast<long double>(std::numeric_limits<std::int64_t>::max()))
      return std::numeric_limits<std::int64_t>::max();
    return static_cast<std::int64_t>(v);
  }
  return bad();
}

}  // namespace

Result<std::int64_t> parse_milli(std::string_view text) {
  return parse(text, 1000);
}
Result<std::int64_t> parse_units(std::string_view text) {
  return parse(text, 1);
}

}  // namespace hawser::agent
