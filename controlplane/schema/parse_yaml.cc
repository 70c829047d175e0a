// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <yaml-cpp/yaml.h>

#include "controlplane/schema/parse.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

constexpr std::array<std::string_view, 11> kTrue{"y",    "Y",    "yes", "Yes", "YES", "true",
                                                 "True", "TRUE", "on",  "On",  "ON"};
constexpr std::array<std::string_view, 11> kFalse{"n",     "N",     "no",  "No",  "NO", "false",
                                                  "False", "FALSE", "off", "Off", "OFF"};
constexpr std::array<std::string_view, 5> kNull{"", "~", "null", "Null", "NULL"};

bool one_of(std::span<const std::string_view> set, std::string_view text) {
  return std::ranges::find(set, text) != set.end();
}

// An integer as YAML 1.1 writes it: 12, -3, 1_000, 0x1f, 0o17, 017, 0b11.
std::optional<json::value> integer(std::string text) {
  std::erase(text, '_');
  bool negative = text.starts_with('-');
  std::string_view digits(text);
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  int base = 10;
  if (digits.starts_with("0x"))
    base = 16;
  else if (digits.starts_with("0b"))
    base = 2;
  else if (digits.starts_with("0o"))
    base = 8;
  if (base != 10)
    digits.remove_prefix(2);
  else if (digits.size() > 1 && digits[0] == '0')
    base = 8;
  std::uint64_t u = 0;
  auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), u, base);
  if (ec != std::errc() || digits.empty() || end != digits.data() + digits.size()) return {};
  if (negative && u > (1ULL << 63)) return {};
  if (negative) return json::value(static_cast<std::int64_t>(0 - u));
  return u >> 63 ? json::value(u) : json::value(static_cast<std::int64_t>(u));
}

std::optional<json::value> floating(std::string text) {
  std::erase(text, '_');
  bool shape = !text.empty() && text.find_first_not_of("0123456789+-.eE") == std::string::npos &&
               text.find_first_of("0123456789") != std::string::npos;
  if (!shape) return {};
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  double d = 0;
  auto [end, ec] = std::from_chars(begin, text.data() + text.size(), d);
  if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(d)) return {};
  return json::value(d);
}

json::value scalar(const YAML::Node& n) {
  const std::string& text = n.Scalar();
  // yaml-cpp tags quoted scalars "!" and plain ones "?"; an explicit tag decides by itself.
  bool plain = n.Tag() == "?" || n.Tag().empty();
  if (!plain && (n.Tag() == "!" || n.Tag() == "tag:yaml.org,2002:str" || n.Tag() == "tag:yaml.org,2002:binary"))
    return json::value(json::string(text));
  if (one_of(kNull, text)) return nullptr;
  if (one_of(kTrue, text)) return true;
  if (one_of(kFalse, text)) return false;
  if (auto i = integer(text)) return *i;
  if (auto f = floating(text)) return *f;
  return json::value(json::string(text));
}

// yaml-cpp passes bytes on as they are; JSON is UTF-8 (RFC 3629: shortest form, no surrogates).
bool is_utf8(std::string_view s) {
  for (std::size_t i = 0; i < s.size();) {
    auto lead = static_cast<unsigned char>(s[i]);
    std::size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (length == 0 || i + length > s.size()) return false;
    std::uint32_t code = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length; k++) {
      auto byte = static_cast<unsigned char>(s[i + k]);
      if (byte >> 6 != 2) return false;
      code = code << 6 | (byte & 0x3f);
    }
    constexpr std::array<std::uint32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
    if (code < kLeast[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    i += length;
  }
  return true;
}

class Converter {
 public:
  explicit Converter(std::vector<std::string>& duplicates) : duplicates_(duplicates) {}

  Result<json::value> convert(const YAML::Node& n, const std::string& path, std::size_t depth) {
    if (depth > kMaxDepth) return fail(0, "nested too deeply");
    if (++nodes_ > kMaxYamlNodes) return fail(0, "document contains excessive aliasing");
    if (!n.IsDefined() || n.IsNull()) return json::value(nullptr);
    if (n.IsScalar() && !is_utf8(n.Scalar())) return fail(0, "yaml: invalid UTF-8");
    if (n.IsScalar()) return scalar(n);
    if (n.IsSequence()) return sequence(n, path, depth);
    json::object out;
    if (auto ok = map(n, path, depth, out); !ok) return propagate(ok);
    return out;
  }

 private:
  Result<json::value> sequence(const YAML::Node& n, const std::string& path, std::size_t depth) {
    json::array out;
    out.reserve(std::min<std::size_t>(n.size(), 1024));
    for (const auto& item : n) {
      auto v = convert(item, fmt::format("{}[{}]", path, out.size()), depth + 1);
      if (!v) return propagate(v);
      out.push_back(std::move(*v));
    }
    return out;
  }

  Result<> map(const YAML::Node& n, const std::string& path, std::size_t depth, json::object& out) {
    json::object merged;  // of "<<" keys; own keys win
    for (const auto& pair : n) {
      if (!pair.first.IsScalar()) return fail(0, "a map key is not a scalar");
      const std::string& key = pair.first.Scalar();
      if (!is_utf8(key)) return fail(0, "yaml: invalid UTF-8");
      auto at = path.empty() ? key : path + "." + key;
      auto v = convert(pair.second, at, depth + 1);
      if (!v) return propagate(v);
      if (key == "<<" && pair.first.Tag() != "!") {
        if (auto ok = merge_key(*v, merged); !ok) return ok;
        continue;
      }
      if (out.contains(key)) duplicates_.push_back("duplicate field \"" + at + "\"");
      out.insert_or_assign(key, std::move(*v));
    }
    for (auto& [key, v] : merged)
      if (!out.contains(key)) out.emplace(key, std::move(v));
    return {};
  }

  static Result<> merge_key(const json::value& v, json::object& merged) {
    if (const auto* list = v.if_array()) {
      for (const auto& item : *list)
        if (auto ok = merge_key(item, merged); !ok) return ok;
      return {};
    }
    const auto* o = v.if_object();
    if (!o) return fail(0, "map merge requires map or sequence of maps as the value");
    for (const auto& [key, item] : *o)
      if (!merged.contains(key)) merged.emplace(key, item);
    return {};
  }

  std::vector<std::string>& duplicates_;
  std::size_t nodes_ = 0;
};

}  // namespace

Result<json::value> parse_yaml(const std::string& text, std::vector<std::string>& duplicates) {
  // yaml-cpp reports errors by exception.
  try {
    return Converter(duplicates).convert(YAML::Load(text), "", 0);
  } catch (const YAML::Exception& e) {
    return fail(0, "error converting YAML to JSON: yaml: line {}: {}", e.mark.line + 1, e.msg);
  }
}

}  // namespace hawser::schema
