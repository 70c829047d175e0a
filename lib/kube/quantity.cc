// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/quantity.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <limits>
#include <optional>

namespace hawser::kube {
namespace {

using Wide = __int128;
constexpr Wide kNano = 1'000'000'000;
constexpr Wide kMaxNanos = static_cast<Wide>(std::numeric_limits<std::int64_t>::max()) * kNano;

struct Suffix {
  std::string_view text;
  int power;  // of 10, or of 2 for the binary ones
};
constexpr std::array<Suffix, 10> kDecimal{
    {{"n", -9}, {"u", -6}, {"m", -3}, {"", 0}, {"k", 3}, {"M", 6}, {"G", 9}, {"T", 12}, {"P", 15}, {"E", 18}}};
constexpr std::array<Suffix, 6> kBinary{{{"Ki", 10}, {"Mi", 20}, {"Gi", 30}, {"Ti", 40}, {"Pi", 50}, {"Ei", 60}}};

constexpr std::string_view kFormatWrong =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

struct Scale {
  Quantity::Format format;
  int power;
};
std::optional<Scale> scale_of(std::string_view suffix) {
  for (const auto& s : kDecimal)
    if (s.text == suffix) return Scale{Quantity::Format::kDecimal, s.power};
  for (const auto& s : kBinary)
    if (s.text == suffix) return Scale{Quantity::Format::kBinary, s.power};
  if (suffix.size() < 2 || (suffix[0] != 'e' && suffix[0] != 'E')) return {};
  auto digits = suffix.substr(1);
  if (digits.size() > 1 && digits[0] == '+' && is_digit(digits[1])) digits.remove_prefix(1);
  int power = 0;
  auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), power);
  if (ec != std::errc() || end != digits.data() + digits.size() || power <= -1000 || power >= 1000) return {};
  return Scale{Quantity::Format::kExponent, power};
}

// digits (with one possible point) times the scale, in nanos, rounded up. Exact for any number of digits: a power of
// ten moves the point, a power of two belongs to the unit that each digit counts, and both parts are summed up digit by
// digit.
Wide nanos_of(std::string_view number, Scale scale) {
  const bool binary = scale.format == Quantity::Format::kBinary;
  const Wide unit = binary ? kNano << scale.power : 1;  // at most 90 bits
  const auto dot = std::min(number.find('.'), number.size());
  std::string digits(number.substr(0, dot));
  if (dot < number.size()) digits += number.substr(dot + 1);
  const auto size = static_cast<std::ptrdiff_t>(digits.size());
  const auto point = static_cast<std::ptrdiff_t>(dot) + (binary ? 0 : scale.power + 9);
  auto units_at = [&](std::ptrdiff_t i) {
    return i < 0 || i >= size ? 0 : unit * (digits[static_cast<std::size_t>(i)] - '0');
  };
  Wide whole = 0;
  for (std::ptrdiff_t i = 0; i < point; i++)
    if (whole = whole * 10 + units_at(i); whole > kMaxNanos) return kMaxNanos;
  // From the last digit on: the part below one nano is dropped at each step, which gives the same as dropping it at the
  // end.
  Wide part = 0;
  bool lost = false;
  for (std::ptrdiff_t i = size - 1; i >= point; i--) {
    part += units_at(i);
    lost = lost || part % 10 != 0;
    part /= 10;
  }
  return std::min(whole + part + (lost ? 1 : 0), kMaxNanos);
}

std::string decimal_text(Wide v) {
  std::string out;
  do out.insert(out.begin(), static_cast<char>('0' + static_cast<int>(v % 10)));
  while ((v /= 10) > 0);
  return out;
}

Wide ceil_div(Wide a, Wide b) {
  return a / b + (a % b > 0 ? 1 : 0);
}

}  // namespace

Result<Quantity> Quantity::parse(std::string_view text) {
  if (text.empty()) return fail(0, "{}", kFormatWrong);
  std::size_t at = text[0] == '+' || text[0] == '-' ? 1 : 0;
  std::size_t begin = at;
  int points = 0;
  bool digits = false;
  for (; at < text.size() && (is_digit(text[at]) || text[at] == '.') && points < 2; at++) {
    points += text[at] == '.' ? 1 : 0;
    digits = digits || text[at] != '.';
  }
  if (!digits || points > 1) return fail(0, "{}", kFormatWrong);
  auto number = text.substr(begin, at - begin);
  auto suffix = text.substr(at);
  if (suffix.find_first_not_of("eEinumkKMGTP+-0123456789") != std::string_view::npos)
    return fail(0, "{}", kFormatWrong);
  auto scale = scale_of(suffix);
  if (!scale) return fail(0, "unable to parse quantity's suffix");
  Quantity q{.nanos = nanos_of(number, *scale), .format = scale->format};
  if (text[0] == '-') q.nanos = -q.nanos;
  return q;
}

std::string Quantity::text() const {
  if (nanos == 0) return "0";
  Wide v = nanos < 0 ? -nanos : nanos;
  std::string sign = nanos < 0 ? "-" : "";
  // Binary only where it shows the number exactly and with a suffix: without one it would be read as decimal again,
  // which is what Kubernetes then shows.
  if (format == Format::kBinary && v % (1024 * kNano) == 0) {
    v /= kNano;
    std::size_t steps = 0;
    for (; steps < kBinary.size() && v % 1024 == 0; steps++) v /= 1024;
    return sign + decimal_text(v) + std::string(kBinary[steps - 1].text);
  }
  int power = -9;
  for (; power < 18 && v % 1000 == 0; power += 3) v /= 1000;
  if (format == Format::kExponent && power != 0) return sign + decimal_text(v) + "e" + std::to_string(power);
  return sign + decimal_text(v) + std::string(kDecimal[static_cast<std::size_t>((power + 9) / 3)].text);
}

std::int64_t Quantity::value() const {
  return static_cast<std::int64_t>(ceil_div(nanos, kNano));
}

std::int64_t Quantity::milli_value() const {
  constexpr Wide kMost = std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(std::clamp(ceil_div(nanos, kNano / 1000), -kMost, kMost));
}

Result<std::int64_t> quantity_value(std::string_view text) {
  auto q = Quantity::parse(text);
  if (!q) return propagate(q, "{:?}", text);
  return q->value();
}

Result<std::int64_t> quantity_milli_value(std::string_view text) {
  auto q = Quantity::parse(text);
  if (!q) return propagate(q, "{:?}", text);
  return q->milli_value();
}

}  // namespace hawser::kube
