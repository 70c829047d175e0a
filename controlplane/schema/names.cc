// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/names.h"

#include <algorithm>

#include <fmt/format.h>

namespace hawser::schema {
namespace {

constexpr std::size_t kMaxLabel = 63;
constexpr std::size_t kMaxSubdomain = 253;

bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_lower_or_digit(char c) {
  return is_lower(c) || is_digit(c);
}
bool is_alnum(char c) {
  return is_lower(c) || is_upper(c) || is_digit(c);
}

std::string too_long(std::size_t max) {
  return fmt::format("must be no more than {} characters", max);
}

// [a-z0-9]([-a-z0-9]*[a-z0-9])?
bool is_label(std::string_view s) {
  return !s.empty() && is_lower_or_digit(s.front()) && is_lower_or_digit(s.back()) &&
         std::ranges::all_of(s, [](char c) { return is_lower_or_digit(c) || c == '-'; });
}

bool is_subdomain(std::string_view s) {
  for (;;) {
    auto dot = s.find('.');
    if (!is_label(s.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    s.remove_prefix(dot + 1);
  }
}

// ([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]
bool is_qualified_part(std::string_view s) {
  return !s.empty() && is_alnum(s.front()) && is_alnum(s.back()) &&
         std::ranges::all_of(s, [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

constexpr std::string_view kSubdomainText =
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
constexpr std::string_view kQualifiedText =
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

}  // namespace

Reasons check_dns1123_label(std::string_view s) {
  Reasons out;
  if (s.size() > kMaxLabel) out.push_back(too_long(kMaxLabel));
  if (is_label(s)) return out;
  if (is_subdomain(s)) {
    out.emplace_back("must not contain dots");
    return out;
  }
  out.emplace_back(
      "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
      "with an "
      "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
      "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')");
  return out;
}

Reasons check_dns1123_subdomain(std::string_view s) {
  Reasons out;
  if (s.size() > kMaxSubdomain) out.push_back(too_long(kMaxSubdomain));
  if (!is_subdomain(s)) out.emplace_back(kSubdomainText);
  return out;
}

Reasons check_dns1035_label(std::string_view s) {
  Reasons out;
  if (s.size() > kMaxLabel) out.push_back(too_long(kMaxLabel));
  if (!is_label(s) || !is_lower(s.front()))
    out.emplace_back(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end "
        "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
        "'[a-z]([-a-z0-9]*[a-z0-9])?')");
  return out;
}

Reasons check_qualified_name(std::string_view s) {
  Reasons out;
  auto slash = s.find('/');
  auto name = slash == std::string_view::npos ? s : s.substr(slash + 1);
  if (name.find('/') != std::string_view::npos) {
    out.push_back(
        "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric "
        "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
        "'example.com/MyName')");
    return out;
  }
  if (slash != std::string_view::npos) {
    auto prefix = s.substr(0, slash);
    if (prefix.empty())
      out.emplace_back("prefix part must be non-empty");
    else
      for (auto& r : check_dns1123_subdomain(prefix)) out.push_back("prefix part " + r);
  }
  if (name.empty())
    out.emplace_back("name part must be non-empty");
  else if (name.size() > kMaxLabel)
    out.push_back("name part " + too_long(kMaxLabel));
  if (!is_qualified_part(name)) out.emplace_back(kQualifiedText);
  return out;
}

Reasons check_label_value(std::string_view s) {
  Reasons out;
  if (s.size() > kMaxLabel) out.push_back(too_long(kMaxLabel));
  if (!s.empty() && !is_qualified_part(s))
    out.emplace_back(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        "and end "
        "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
        "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')");
  return out;
}

Reasons check_path_segment(std::string_view s) {
  Reasons out;
  if (s == "." || s == "..") return {fmt::format("may not be '{}'", s)};
  for (char c : {'/', '%'})
    if (s.find(c) != std::string_view::npos) out.push_back(fmt::format("may not contain '{}'", c));
  return out;
}

Reasons check_config_key(std::string_view s) {
  Reasons out;
  if (s.size() > kMaxSubdomain) out.push_back(too_long(kMaxSubdomain));
  if (s.empty() || !std::ranges::all_of(s, [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; }))
    out.emplace_back(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME', "
        " or "
        "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')");
  if (s == ".")
    out.emplace_back("must not be '.'");
  else if (s == "..")
    out.emplace_back("must not be '..'");
  else if (s.starts_with(".."))
    out.emplace_back("must not start with '..'");
  return out;
}

// Since 1.32 any printable ASCII but '=' is allowed; kubectl and images rely on the wider rule.
Reasons check_env_name(std::string_view s) {
  Reasons out;
  if (s.empty() || !std::ranges::all_of(s, [](char c) { return c >= ' ' && c <= '~' && c != '='; }))
    out.emplace_back(
        "a valid environment variable name must consist only of printable ASCII characters other than '='");
  return out;
}

Reasons check_port_name(std::string_view s) {
  Reasons out;
  constexpr std::size_t kMax = 15;
  if (s.size() > kMax) out.push_back(too_long(kMax));
  if (!std::ranges::all_of(s, [](char c) { return is_lower_or_digit(c) || c == '-'; }))
    out.emplace_back("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  if (!std::ranges::any_of(s, is_lower)) out.emplace_back("must contain at least one letter (a-z)");
  if (s.find("--") != std::string_view::npos) out.emplace_back("must not contain consecutive hyphens");
  if (!s.empty() && (s.front() == '-' || s.back() == '-')) out.emplace_back("must not begin or end with a hyphen");
  return out;
}

Reasons check_port_number(std::int64_t port) {
  if (port >= 1 && port <= 65535) return {};
  return {"must be between 1 and 65535, inclusive"};
}

}  // namespace hawser::schema
