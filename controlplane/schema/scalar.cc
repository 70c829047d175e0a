// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/scalar.h"

#include <array>
#include <charconv>
#include <chrono>
#include <limits>

namespace hawser::schema {
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

Wide saturate(Wide v) {
  return v > kMaxNanos ? kMaxNanos : v;
}

// a * 10^power for power >= 0, saturated at the largest quantity.
Wide times_ten(Wide a, int power) {
  for (; power > 0 && a < kMaxNanos; power--) a *= 10;
  return saturate(a);
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
  if (suffix.size() > 1 && (suffix[0] == 'e' || suffix[0] == 'E')) {
    auto digits = suffix.substr(suffix[1] == '+' ? 2 : 1);
    int power = 0;
    auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), power);
    if (ec == std::errc() && end == digits.data() + digits.size() && power > -1000 && power < 1000)
      return Scale{Quantity::Format::kExponent, power};
  }
  return {};
}

// digits (with one possible point) times the scale, in nanos, rounded up.
Wide nanos_of(std::string_view digits, Scale scale) {
  Wide mantissa = 0;
  int exponent = 9;
  bool fraction = false;
  bool lost = false;
  constexpr Wide kRoom = static_cast<Wide>(1) << 100;
  for (char c : digits) {
    if (c == '.') {
      fraction = true;
      continue;
    }
    if (mantissa > kRoom) {  // more digits than any quantity can hold
      lost = lost || c != '0';
      if (!fraction) return kMaxNanos;
      continue;
    }
    mantissa = mantissa * 10 + (c - '0');
    if (fraction) exponent--;
  }
  if (mantissa == 0) return 0;
  if (scale.format == Quantity::Format::kBinary) {
    for (int i = 0; i < scale.power && mantissa < kRoom * (1 << 20); i++) mantissa *= 2;
  } else {
    exponent += scale.power;
  }
  if (exponent >= 0) return times_ten(mantissa, exponent);
  for (; exponent < 0 && mantissa > 0; exponent++) {
    lost = lost || mantissa % 10 != 0;
    mantissa /= 10;
  }
  return saturate(mantissa + (lost ? 1 : 0));
}

std::string decimal_text(Wide v) {
  if (v == 0) return "0";
  std::string out;
  bool negative = v < 0;
  for (Wide n = negative ? -v : v; n > 0; n /= 10)
    out.insert(out.begin(), static_cast<char>('0' + static_cast<int>(n % 10)));
  return negative ? "-" + out : out;
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
  int digits = 0;
  for (; at < text.size() && (is_digit(text[at]) || text[at] == '.'); at++) (text[at] == '.' ? points : digits)++;
  if (digits == 0 || points > 1) return fail(0, "{}", kFormatWrong);
  auto number = text.substr(begin, at - begin);
  auto suffix = text.substr(at);
  for (char c : suffix)
    if (std::string_view("eEinumkKMGTP+-0123456789").find(c) == std::string_view::npos)
      return fail(0, "{}", kFormatWrong);
  auto scale = scale_of(suffix);
  if (!scale) return fail(0, "unable to parse quantity's suffix");
  Quantity q{.nanos = nanos_of(number, *scale), .format = scale->format};
  if (text[0] == '-') q.nanos = -q.nanos;
  return q;
}

std::string Quantity::text() const {
  if (nanos == 0) return "0";
  Wide magnitude = nanos < 0 ? -nanos : nanos;
  std::string sign = nanos < 0 ? "-" : "";
  if (format == Format::kBinary && magnitude >= 1024 * kNano) {
    Wide whole = nanos < 0 ? magnitude / kNano : ceil_div(magnitude, kNano);  // rounded up
    std::size_t steps = 0;
    for (; steps < kBinary.size() && whole % 1024 == 0; steps++) whole /= 1024;
    return sign + decimal_text(whole) + (steps ? std::string(kBinary[steps - 1].text) : "");
  }
  int power = -9;
  Wide v = magnitude;
  for (; power < 18 && v % 1000 == 0; power += 3) v /= 1000;
  if (format == Format::kExponent && power != 0) return sign + decimal_text(v) + "e" + std::to_string(power);
  return sign + decimal_text(v) + std::string(kDecimal[static_cast<std::size_t>((power + 9) / 3)].text);
}

std::int64_t Quantity::value() const {
  return static_cast<std::int64_t>(ceil_div(nanos, kNano));
}

std::int64_t Quantity::milli_value() const {
  Wide v = ceil_div(nanos, kNano / 1000);
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  return v > kMax ? kMax : v < -kMax ? -kMax : static_cast<std::int64_t>(v);
}

namespace {

// The number in text[at, at+width), or -1.
int number_at(std::string_view text, std::size_t at, std::size_t width) {
  if (at + width > text.size()) return -1;
  int v = 0;
  for (char c : text.substr(at, width)) {
    if (!is_digit(c)) return -1;
    v = v * 10 + (c - '0');
  }
  return v;
}

// "Z" or "+hh:mm" as seconds.
std::optional<int> zone_seconds(std::string_view zone) {
  if (zone == "Z" || zone == "z") return 0;
  if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':') return {};
  int hours = number_at(zone, 1, 2);
  int minutes = number_at(zone, 4, 2);
  if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return {};
  return (zone[0] == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
}

}  // namespace

Result<std::int64_t> parse_time_us(std::string_view text) {
  auto bad = [&] {
    return fail(0, "parsing time \"{}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{}\" as \"2006\"", text, text);
  };
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') || text[13] != ':' ||
      text[16] != ':')
    return bad();
  int year = number_at(text, 0, 4), month = number_at(text, 5, 2), day = number_at(text, 8, 2);
  int hour = number_at(text, 11, 2), minute = number_at(text, 14, 2), second = number_at(text, 17, 2);
  std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                   std::chrono::day(static_cast<unsigned>(day))};
  if (year < 0 || month < 0 || day < 0 || !date.ok() || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
      second < 0 || second > 59)
    return bad();
  std::size_t at = 19;
  std::int64_t micros = 0;
  if (text[at] == '.') {
    int digits = 0;
    for (at++; at < text.size() && is_digit(text[at]); at++, digits++)
      if (digits < 6) micros = micros * 10 + (text[at] - '0');
    if (digits == 0) return bad();
    for (; digits < 6; digits++) micros *= 10;
  }
  auto zone = zone_seconds(text.substr(at));
  if (!zone) return bad();
  std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute) * 60'000'000LL + (second - *zone) * 1'000'000LL + micros;
}

std::string time_text(std::int64_t unix_seconds) {
  std::int64_t days = unix_seconds / 86400 - (unix_seconds % 86400 < 0 ? 1 : 0);
  std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
  auto rest = unix_seconds - days * 86400;
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), rest / 3600,
                     rest / 60 % 60, rest % 60);
}

std::string micro_time_text(std::int64_t unix_us) {
  std::int64_t seconds = unix_us / 1'000'000 - (unix_us % 1'000'000 < 0 ? 1 : 0);
  auto text = time_text(seconds);
  text.back() = '.';
  return text + fmt::format("{:06}Z", unix_us - seconds * 1'000'000);
}

std::optional<std::size_t> base64_error(std::string_view text) {
  auto is_code = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || is_digit(c) || c == '+' || c == '/';
  };
  std::size_t count = 0;
  std::size_t padding = 0;
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\n' || text[i] == '\r') continue;
    bool pad = text[i] == '=' && count % 4 >= 2;
    if (!pad && (padding > 0 || !is_code(text[i]))) return i;
    padding += pad ? 1 : 0;
    count++;
    if (pad && count % 4 == 0 && i + 1 < text.size() && text.find_first_not_of("\r\n", i + 1) != std::string_view::npos)
      return i + 1;
  }
  if (count % 4 != 0) return text.size();
  return {};
}

std::string base64_encode(std::string_view bytes) {
  constexpr std::string_view kCode = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    auto byte = [&](std::size_t n) -> unsigned {
      return i + n < bytes.size() ? static_cast<unsigned char>(bytes[i + n]) : 0;
    };
    unsigned group = byte(0) << 16 | byte(1) << 8 | byte(2);
    out += kCode[group >> 18 & 63];
    out += kCode[group >> 12 & 63];
    out += i + 1 < bytes.size() ? kCode[group >> 6 & 63] : '=';
    out += i + 2 < bytes.size() ? kCode[group & 63] : '=';
  }
  return out;
}

std::size_t base64_decoded_size(std::string_view text) {
  std::size_t count = 0;
  std::size_t padding = 0;
  for (char c : text) {
    if (c == '\n' || c == '\r') continue;
    count++;
    padding += c == '=' ? 1 : 0;
  }
  return count / 4 * 3 - std::min(padding, count / 4 * 3);
}

}  // namespace hawser::schema
