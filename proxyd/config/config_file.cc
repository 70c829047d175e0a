// SPDX-License-Identifier: Apache-2.0
// The YAML side of Config: reading, and writing it back.
#include <algorithm>
#include <set>

#include <boost/json/serialize.hpp>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "proxyd/config/config.h"

namespace hawser::proxy {
namespace {

constexpr std::size_t kMaxFileBytes = 1u << 20;

std::unexpected<Error> wrong(const YAML::Node& at, std::string_view field, std::string_view why) {
  return fail(EINVAL, "line {}: {}: {}", at.Mark().line + 1, field, why);
}

bool is_section(std::string_view field) {
  return std::ranges::any_of(settings(), [&](const Setting& s) {
    const std::string_view f = s.field;
    return f.size() > field.size() && f.starts_with(field) && f[field.size()] == '.';
  });
}

class Reader {
 public:
  Result<Config> read(const YAML::Node& root) {
    if (!root.IsMap()) return fail(EINVAL, "line {}: want a mapping of fields", root.Mark().line + 1);
    if (auto r = fields(root, ""); !r) return propagate(r);
    if (version_ != kConfigApiVersion) return fail(EINVAL, "apiVersion: \"{}\", want {}", version_, kConfigApiVersion);
    if (kind_ != kConfigKind) return fail(EINVAL, "kind: \"{}\", want {}", kind_, kConfigKind);
    return std::move(config_);
  }

 private:
  Result<> fields(const YAML::Node& map, const std::string& prefix) {
    std::set<std::string> seen;
    for (const auto& item : map) {
      if (!item.first.IsScalar())
        return wrong(item.first, prefix.empty() ? "a field" : prefix, "a field's name is a text");
      const std::string field = prefix + item.first.Scalar();
      if (!seen.insert(field).second) return wrong(item.first, field, "given twice");
      if (auto r = one(item.first, field, item.second); !r) return r;
    }
    return {};
  }

  Result<> one(const YAML::Node& key, const std::string& field, const YAML::Node& v) {
    if (field == "apiVersion" || field == "kind") {
      if (!v.IsScalar()) return wrong(key, field, "want a text");
      (field == "kind" ? kind_ : version_) = v.Scalar();
      return {};
    }
    if (is_section(field)) {
      if (v.IsNull()) return {};
      return v.IsMap() ? fields(v, field + ".") : wrong(key, field, "want a mapping of fields");
    }
    const Setting* s = find_field(field);
    if (!s) return wrong(key, field, "unknown field");
    if (v.IsNull()) return {};
    return value(*s, key, v);
  }

  Result<> value(const Setting& s, const YAML::Node& key, const YAML::Node& v) {
    Value out;
    if (s.type == Type::kAny) {
      if (v.size() > 0 || v.IsScalar()) out.emplace_back("set");
    } else if (s.type == Type::kList) {
      if (!v.IsSequence()) return wrong(key, s.field, "want a list of texts");
      for (const auto& item : v) {
        if (!item.IsScalar()) return wrong(item, s.field, "want a list of texts");
        out.push_back(item.Scalar());
      }
    } else if (s.type == Type::kSwitches) {
      if (!v.IsMap()) return wrong(key, s.field, "want a mapping of names to true or false");
      for (const auto& item : v) {
        if (!item.first.IsScalar() || !item.second.IsScalar())
          return wrong(item.first, s.field, "want a mapping of names to true or false");
        out.push_back(item.first.Scalar() + "=" + item.second.Scalar());
      }
    } else if (v.IsScalar()) {
      out.push_back(v.Scalar());
    } else {
      return wrong(key, s.field, "want one value");
    }
    for (const auto& text : out)
      if (auto r = check_text(s.type, text); !r)
        return wrong(key, s.field, fmt::format("\"{}\": {}", text, r.error().text));
    if (!out.empty()) config_.set(s.field, std::move(out));
    return {};
  }

  Config config_;
  std::string version_, kind_;
};

boost::json::value json_of(const Setting& s, const Value* v) {
  if (!v) return nullptr;
  if (s.type == Type::kList) return boost::json::array(v->begin(), v->end());
  if (s.type == Type::kSwitches) {
    boost::json::object o;
    for (const std::string& item : *v) {
      const auto at = item.find('=');
      o[item.substr(0, at)] = parse_bool(item.substr(at + 1)).value_or(false);
    }
    return o;
  }
  if (v->empty() || s.type == Type::kAny) return nullptr;
  if (s.type == Type::kBool) return parse_bool(v->front()).value_or(false);
  if (s.type == Type::kInt) return parse_int(v->front()).value_or(0);
  if (s.type == Type::kNumber) return std::stod(v->front());
  return boost::json::value(v->front());
}

}  // namespace

Result<Config> parse_config(const std::string& yaml) {
  if (yaml.size() > kMaxFileBytes) return fail(EFBIG, "longer than 1 MiB");
  try {
    // As kube-proxy does, the first document alone. (LoadAll never ends on some damaged files.)
    const YAML::Node root = YAML::Load(yaml);
    return Reader().read(root);
  } catch (const YAML::Exception& e) {
    return fail(EINVAL, "not YAML: {}", e.what());
  }
}

boost::json::object config_json(const Config& c) {
  boost::json::object out{{"apiVersion", kConfigApiVersion}, {"kind", kConfigKind}};
  for (const Setting& s : settings()) {
    const std::string_view field = s.field;
    if (field.empty() || s.type == Type::kAny) continue;
    const auto dot = field.find('.');
    if (dot == field.npos) {
      out[field] = json_of(s, c.get(field));
    } else {
      auto& section = out[field.substr(0, dot)];
      if (!section.is_object()) section.emplace_object();
      section.get_object()[field.substr(dot + 1)] = json_of(s, c.get(field));
    }
  }
  return out;
}

std::string config_yaml(const Config& c) {
  std::string out;
  for (const auto& [key, value] : config_json(c)) {
    const bool section = value.is_object() && is_section(key);
    out += fmt::format("{}:{}\n", std::string_view(key), section ? "" : " " + boost::json::serialize(value));
    if (!section) continue;
    for (const auto& [name, v] : value.get_object())
      out += fmt::format("  {}: {}\n", std::string_view(name), boost::json::serialize(v));
  }
  return out;
}

}  // namespace hawser::proxy
