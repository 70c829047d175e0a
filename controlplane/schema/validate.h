// SPDX-License-Identifier: Apache-2.0
// The parts of validation, one function a subject. Each appends to `e`; `path` is where the value sits
// ("spec.template.spec"). Objects have passed conform() and set_defaults(). Pure, any thread.
#pragma once

#include <string>
#include <string_view>

#include "controlplane/schema/field_errors.h"
#include "controlplane/schema/type_table.h"

namespace hawser::schema {

// Table rules: required, enums and bounds of every field below `o`.
void validate_table(const Type& t, const Object& o, const std::string& path, FieldErrors& e);

void validate_metadata(const Kind& k, const Object& o, FieldErrors& e);
void validate_metadata_update(const Object& old, const Object& o, FieldErrors& e);
void validate_labels(const Object& labels, const std::string& path, FieldErrors& e);
void validate_annotations(const Object& annotations, const std::string& path, FieldErrors& e);
void validate_label_selector(const Object& selector, const std::string& path, FieldErrors& e);

void validate_pod_spec(const Object& spec, const std::string& path, FieldErrors& e);
void validate_volumes(const Object& spec, const std::string& path, FieldErrors& e);
void validate_containers(const Object& spec, const std::string& path, FieldErrors& e);
void validate_pod_update(const Object& old, const Object& o, FieldErrors& e);

void validate_service(const Object& o, FieldErrors& e);
void validate_service_update(const Object& old, const Object& o, FieldErrors& e);

void validate_workload(const Kind& k, const Object& o, FieldErrors& e);
void validate_workload_update(const Object& old, const Object& o, FieldErrors& e);

void validate_config(const Kind& k, const Object& o, FieldErrors& e);
void validate_config_update(const Kind& k, const Object& old, const Object& o, FieldErrors& e);
void validate_endpoints(const Object& o, FieldErrors& e);
void validate_endpoint_slice(const Object& o, FieldErrors& e);
void validate_lease(const Object& o, FieldErrors& e);
void validate_node(const Object& o, FieldErrors& e);
void validate_event(const Object& o, FieldErrors& e);

// Helpers that several of them use.
inline std::string at(const std::string& path, std::string_view field) {
  return path.empty() ? std::string(field) : path + "." + std::string(field);
}
inline std::string at(const std::string& path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}
// "spec.selector[app.kubernetes.io/name]"
inline std::string at_key(const std::string& path, std::string_view key) {
  return fmt::format("{}[{}]", path, key);
}
// Equality of a field, absent and null being the same.
[[nodiscard]] bool same(const Object& a, const Object& b, std::string_view field);

}  // namespace hawser::schema
