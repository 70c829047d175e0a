// SPDX-License-Identifier: Apache-2.0
// Config: what proxyd was told, by kube-proxy's rules of precedence: a file given with --config is the whole
// configuration, and of the flags beside it only --hostname-override, --master, -v and our own count; without a file
// the flags are. Pure: texts in, values out. Any thread once made.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>

#include "proxyd/config/settings.h"

namespace hawser::proxy {

class Config {
 public:
  // Set to something, or by the table's default; empty if neither.
  [[nodiscard]] const Value* get(std::string_view field) const;
  [[nodiscard]] bool given(std::string_view field) const { return values_.contains(field); }
  // Of a setting that has a default.
  [[nodiscard]] std::string text(std::string_view field) const;
  [[nodiscard]] bool flag(std::string_view field) const;
  [[nodiscard]] std::int64_t number(std::string_view field) const;
  [[nodiscard]] Nanos duration(std::string_view field) const;
  [[nodiscard]] Value list(std::string_view field) const;

  void set(std::string_view field, Value v) { values_[std::string(field)] = std::move(v); }
  // Sentences for the log: what was given and changes nothing, and why.
  std::vector<std::string> notes;

 private:
  std::map<std::string, Value, std::less<>> values_;  // by field, or "--flag" where there is none
};

// The file. Errors name line and field; a field that v1alpha1 does not have, or has twice, is one.
Result<Config> parse_config(const std::string& yaml);

// A flag as it was given: its name without dashes, its text ("true" for a boolean alone).
using GivenFlag = std::pair<std::string, std::string>;
// `file`: the text of --config, if there was one.
Result<Config> resolve_config(const std::optional<std::string>& file, const std::vector<GivenFlag>& flags);

// A command line in Go's spelling as CLI11 reads it: "--cluster_cidr" is --cluster-cidr; "-v=2", "-v2" and "-v 2" are
// --v=2, and "-v" alone is --verbose.
[[nodiscard]] std::vector<std::string> normalize_args(const std::vector<std::string>& args);

// For --write-config-to and /configz: every field with its value or default.
[[nodiscard]] std::string config_yaml(const Config& c);
[[nodiscard]] boost::json::object config_json(const Config& c);

}  // namespace hawser::proxy
