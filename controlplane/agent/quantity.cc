// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/quantity.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace hawser::agent {
namespace {

using Wide = __int128;

// A suffix is ten_power powers of ten or two_power powers of two.
struct Suffix {
  std::string_view text;
  int ten_power, two_power;
};
constexpr Suffix kSuffixes[] = {
    {"n", -9, 0},  {"u", -6, 0},  {"m", -3, 0},  {"", 0, 0},    {"k", 3, 0},   {"M", 6, 0},
    {"G", 9, 0},   {"T", 12, 0},  {"P", 15, 0},  {"E", 18, 0},  {"Ki", 0, 10}, {"Mi", 0, 20},
    {"Gi", 0, 30}, {"Ti", 0, 40}, {"Pi", 0, 50}, {"Ei", 0, 60},
};

// The power of ten and of two that the text behind the digits stands for; false: nothing known.
bool read_suffix(std::string_view s, int& tens, int& twos) {
  for (const auto& known : kSuffixes) {
    if (known.text != s) continue;
    tens = known.ten_power;
    twos = known.two_power;
    return true;
  }
  if (s.size() < 2 || (s[0] != 'e' && s[0] != 'E')) return false;
  s.remove_prefix(s[1] == '+' ? 2 : 1);
  auto [end, err] = std::from_chars(s.data(), s.data() + s.size(), tens);
  return err == std::errc() && end == s.data() + s.size() && tens > -1000 && tens < 1000;
}

struct Number {
  Wide value = 0;     // at most 18 digits
  int tens = 0;       // times ten to this
  bool more = false;  // and something too small to be held
};

// Takes "12.50" off the front of `s`; false: no digits there.
bool read_number(std::string_view& s, Number& n) {
  constexpr Wide kMostDigits = 100'000'000'000'000'000;  // one more still leaves room for 60 powers of two
  bool point = false, any = false;
  for (; !s.empty(); s.remove_prefix(1)) {
    if (s[0] == '.' && !point) {
      point = true;
      continue;
    }
    if (s[0] < '0' || s[0] > '9') break;
    any = true;
    if (n.value < kMostDigits) {
      n.value = n.value * 10 + (s[0] - '0');
      n.tens -= point ? 1 : 0;
    } else {
      n.more = n.more || s[0] != '0';
      n.tens += point ? 0 : 1;
    }
  }
  return any;
}

// In integers: 1.1 has no exact binary form, and rounding up would show it.
Result<std::int64_t> parse(std::string_view text, int scale_tens) {
  auto rest = text.substr(text.starts_with('-') || text.starts_with('+') ? 1 : 0);
  Number n;
  int tens = 0, twos = 0;
  if (!read_number(rest, n) || !read_suffix(rest, tens, twos))
    return fail(EINVAL, "quantity {:?}: not a number with a suffix like m, k, M, Ki, Mi", text);
  constexpr Wide kMost = std::numeric_limits<std::int64_t>::max();
  Wide v = n.value << twos;
  tens += n.tens + scale_tens;
  for (; tens > 0 && v > 0 && v <= kMost; --tens) v *= 10;
  for (; tens < 0 && v > 0; ++tens) {
    n.more = n.more || v % 10 != 0;
    v /= 10;
  }
  // Rounded up: below zero that is towards it.
  if (text.starts_with('-')) return -static_cast<std::int64_t>(std::min(v, kMost));
  return static_cast<std::int64_t>(std::min(v + (n.more ? 1 : 0), kMost));
}

}  // namespace

Result<std::int64_t> parse_milli(std::string_view text) {
  return parse(text, 3);
}
Result<std::int64_t> parse_units(std::string_view text) {
  return parse(text, 0);
}

}  // namespace hawser::agent
