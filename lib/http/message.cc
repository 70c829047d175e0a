// SPDX-License-Identifier: Apache-2.0
#include "lib/http/message.h"

#include <algorithm>
#include <cctype>

namespace hawser::http {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// A malformed escape stays as it is.
std::string decode(std::string_view s, bool plus_is_space) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size(); i++) {
    if (s[i] == '%' && i + 2 < s.size() && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
      out += static_cast<char>(hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]));
      i += 2;
    } else {
      out += plus_is_space && s[i] == '+' ? ' ' : s[i];
    }
  }
  return out;
}

// Calls fn(raw name, raw value) for each pair of the query until it returns true.
template <class Fn>
bool any_pair(std::string_view target, Fn fn) {
  auto mark = target.find('?');
  if (mark == target.npos) return false;
  for (auto rest = target.substr(mark + 1); !rest.empty();) {
    auto pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    auto equals = pair.find('=');
    if (fn(pair.substr(0, equals), equals == pair.npos ? std::string_view() : pair.substr(equals + 1))) return true;
  }
  return false;
}

}  // namespace

void Headers::set(std::string_view name, std::string_view value) {
  std::erase_if(list_, [&](const auto& h) { return same_name(h.first, name); });
  add(name, value);
}
void Headers::add(std::string_view name, std::string_view value) {
  list_.emplace_back(name, value);
}
std::string_view Headers::get(std::string_view name) const {
  auto it = std::ranges::find_if(list_, [&](const auto& h) { return same_name(h.first, name); });
  return it == list_.end() ? std::string_view() : std::string_view(it->second);
}

std::string_view Request::path() const {
  return std::string_view(target).substr(0, target.find('?'));
}
std::string Request::query(std::string_view name) const {
  std::string out;
  any_pair(target, [&](std::string_view n, std::string_view v) {
    if (decode(n, true) != name) return false;
    out = decode(v, true);
    return true;
  });
  return out;
}
bool Request::has_query(std::string_view name) const {
  return any_pair(target, [&](std::string_view n, std::string_view) { return decode(n, true) == name; });
}

std::string percent_decode(std::string_view s) {
  return decode(s, false);
}
std::string percent_encode(std::string_view s) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : s) {
    // RFC 3986 section 2.3: unreserved characters.
    if (std::isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  return out;
}

}  // namespace hawser::http
