// SPDX-License-Identifier: Apache-2.0
#include "proxyd/config/value.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace hawser::proxy {
namespace {

// Of a duration, longest first where one begins another.
constexpr std::pair<std::string_view, double> kUnits[] = {{"ms", 1e6}, {"us", 1e3},   {"µs", 1e3}, {"μs", 1e3},
                                                          {"ns", 1},   {"h", 3600e9}, {"m", 60e9}, {"s", 1e9}};
constexpr double kMaxNanos = 9.2e18;

std::string_view trim(std::string_view s) {
  while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
  while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
  return s;
}

// Takes "90.5s" off the front; negative: not one.
double take_part(std::string_view& rest) {
  double n = 0;
  const auto digits = rest.substr(0, rest.find_first_not_of("0123456789."));
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), n, std::chars_format::fixed);
  if (ec != std::errc() || end != digits.data() + digits.size()) return -1;
  rest.remove_prefix(digits.size());
  for (const auto& [unit, nanos] : kUnits) {
    if (!rest.starts_with(unit)) continue;
    rest.remove_prefix(unit.size());
    return n * nanos;
  }
  return -1;
}

}  // namespace

Result<Nanos> parse_duration(std::string_view text) {
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest == "0") return Nanos{0};
  double sum = 0;
  if (rest.empty()) sum = -1;
  while (sum >= 0 && !rest.empty()) {
    const double part = take_part(rest);
    sum = part < 0 ? -1 : sum + part;
  }
  if (sum < 0 || sum > kMaxNanos) return fail(EINVAL, "want a duration such as 30s, 500ms or 1h30m");
  const auto n = static_cast<std::int64_t>(std::llround(sum));
  return Nanos{negative ? -n : n};
}

Result<bool> parse_bool(std::string_view text) {
  for (const char* yes : {"true", "True", "TRUE", "t", "T", "1"})
    if (text == yes) return true;
  for (const char* no : {"false", "False", "FALSE", "f", "F", "0"})
    if (text == no) return false;
  return fail(EINVAL, "want true or false");
}

Result<std::int64_t> parse_int(std::string_view text) {
  std::int64_t n = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() ||
      n < std::numeric_limits<std::int32_t>::min() || n > std::numeric_limits<std::int32_t>::max())
    return fail(EINVAL, "want a whole number");
  return n;
}

Result<> check_text(Type type, std::string_view text) {
  switch (type) {
    case Type::kBool:
      if (auto r = parse_bool(text); !r) return propagate(r);
      return {};
    case Type::kInt:
      if (auto r = parse_int(text); !r) return propagate(r);
      return {};
    case Type::kDuration:
      if (auto r = parse_duration(text); !r) return propagate(r);
      return {};
    case Type::kNumber: {
      double n = 0;
      const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
      if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(n))
        return fail(EINVAL, "want a number");
      return {};
    }
    case Type::kSwitches: {
      const auto at = text.find('=');
      if (at == text.npos || at == 0 || !parse_bool(text.substr(at + 1)))
        return fail(EINVAL, "want Name=true or Name=false");
      return {};
    }
    case Type::kText:
    case Type::kList:
    case Type::kAny:
      return {};
  }
  return {};
}

Value split_list(std::string_view text) {
  Value out;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto part = trim(text.substr(0, comma));
    if (!part.empty()) out.emplace_back(part);
    text = comma == text.npos ? std::string_view() : text.substr(comma + 1);
  }
  return out;
}

}  // namespace hawser::proxy
