// SPDX-License-Identifier: Apache-2.0
// What the tests of this folder share: short ways to objects and to error texts. Tests only.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include "controlplane/schema/schema.h"

namespace hawser::schema {

inline const Kind& kind_named(std::string_view name) {
  for (const auto* group : {"", "apps", "discovery.k8s.io", "coordination.k8s.io", "autoscaling"})
    if (const Kind* k = find_kind(group, "v1", name)) return *k;
  ADD_FAILURE() << "no kind " << name;
  return kinds()[0];
}

inline Object parse_object(std::string_view json) {
  boost::system::error_code ec;
  auto v = boost::json::parse(json, ec);
  if (ec || !v.is_object()) {
    ADD_FAILURE() << "not an object: " << json;
    return {};
  }
  return std::move(v.get_object());
}

// The object as the server would hold it before validation; YAML in, defaults filled in.
inline Object object_of(const Kind& k, std::string_view yaml) {
  auto decoded = decode(k, yaml, MediaType::kYaml, FieldValidation::kStrict);
  if (!decoded) {
    ADD_FAILURE() << decoded.error().message;
    return {};
  }
  set_defaults(k, decoded->object);
  return std::move(decoded->object);
}

// All errors, one a line.
inline std::string texts(const std::vector<FieldError>& errors) {
  std::string out;
  for (const auto& e : errors) out += (out.empty() ? "" : "\n") + e.text();
  return out;
}

}  // namespace hawser::schema
