// SPDX-License-Identifier: Apache-2.0
// Parsing of request bodies into JSON trees: bounded in depth and size, with duplicate keys reported. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

#include "lib/base/result.h"

namespace hawser::schema {

inline constexpr std::size_t kMaxDepth = 100;
inline constexpr std::size_t kMaxYamlNodes = 400'000;  // after aliases are expanded

// Duplicate keys are appended to `duplicates` as `duplicate field "spec.replicas"`; the last one wins.
Result<boost::json::value> parse_json(std::string_view text, std::vector<std::string>& duplicates);
// The first document of `text`, with the meaning plain scalars have for kubectl (YAML 1.1: yes/no, octal 0644, ...).
Result<boost::json::value> parse_yaml(const std::string& text, std::vector<std::string>& duplicates);

}  // namespace hawser::schema
