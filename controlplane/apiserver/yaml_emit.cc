// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/yaml_emit.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace hawser::apiserver {

namespace json = boost::json;

namespace {

// Words that YAML 1.1 reads as something else than a string.
constexpr std::array<std::string_view, 9> kReserved = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};

bool is_plain(std::string_view s) {
  if (s.empty() || std::isalpha(static_cast<unsigned char>(s[0])) == 0) return false;
  auto safe = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/'; };
  if (!std::ranges::all_of(s, safe)) return false;
  return std::ranges::none_of(kReserved, [&](std::string_view word) {
    return std::ranges::equal(word, s, [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
  });
}

// A JSON string is a double-quoted YAML scalar.
std::string scalar(const json::value& v) {
  if (v.is_string() && is_plain(v.get_string())) return std::string(v.get_string());
  return json::serialize(v);
}

void emit(std::string& out, const json::value& v, int indent);

void emit_object(std::string& out, const json::object& o, int indent) {
  std::map<std::string_view, const json::value*> sorted;
  for (auto& [key, value] : o) sorted[key] = &value;
  bool first = true;
  for (auto& [key, value] : sorted) {
    if (!first) out.append(static_cast<std::size_t>(indent), ' ');
    first = false;
    out += scalar(json::string(key));
    out += ':';
    bool nested =
        (value->is_object() && !value->get_object().empty()) || (value->is_array() && !value->get_array().empty());
    if (!nested) {
      out += ' ';
      emit(out, *value, indent);
      continue;
    }
    out += '\n';
    // Lists sit at their key's own depth.
    int inner = value->is_object() ? indent + 2 : indent;
    out.append(static_cast<std::size_t>(inner), ' ');
    emit(out, *value, inner);
  }
}

void emit_array(std::string& out, const json::array& a, int indent) {
  bool first = true;
  for (auto& v : a) {
    if (!first) out.append(static_cast<std::size_t>(indent), ' ');
    first = false;
    out += "- ";
    emit(out, v, indent + 2);
  }
}

// Writes `v` at the current column, which is `indent`, and ends the line.
void emit(std::string& out, const json::value& v, int indent) {
  if (v.is_object() && !v.get_object().empty()) return emit_object(out, v.get_object(), indent);
  if (v.is_array() && !v.get_array().empty()) return emit_array(out, v.get_array(), indent);
  out += scalar(v);
  out += '\n';
}

}  // namespace

std::string to_yaml(const json::value& v) {
  std::string out;
  emit(out, v, 0);
  return out;
}

}  // namespace hawser::apiserver
