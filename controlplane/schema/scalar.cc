// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/scalar.h"

#include <algorithm>
#include <chrono>

namespace hawser::schema {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

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
