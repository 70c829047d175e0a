// SPDX-License-Identifier: Apache-2.0
#include "controlplane/schema/validate.h"

#include <boost/json/array.hpp>

#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;

bool is_empty(const json::value* v) {
  if (!v || v->is_null()) return true;
  if (const auto* s = v->if_string()) return s->empty();
  if (const auto* a = v->if_array()) return a->empty();
  return false;
}

void check_bound(const Field& f, std::int64_t n, const std::string& path, FieldErrors& e) {
  if (f.bound == Bound::kPort) e.invalid(path, n, check_port_number(n));
  if (f.bound == Bound::kNonNegative && n < 0) e.invalid(path, n, "must be greater than or equal to 0");
  if (f.bound == Bound::kPositive && n <= 0) e.invalid(path, n, "must be greater than 0");
}

void check_enum(const Field& f, const json::value& v, const std::string& path, FieldErrors& e) {
  std::vector<std::string_view> allowed;
  bool found = false;
  for_each_part(f.enum_text, [&](std::string_view part) {
    found = found || part == std::string_view(v.get_string());
    allowed.push_back(part);
  });
  if (!found) e.not_supported(path, v, std::move(allowed));
}

void check_value(const Field& f, const json::value& v, const std::string& path, FieldErrors& e) {
  if (f.base == Base::kObject && v.is_object()) validate_table(*f.type, v.get_object(), path, e);
  if (f.has_enum && v.is_string()) check_enum(f, v, path, e);
  if (f.bound != Bound::kNone && v.is_int64()) check_bound(f, v.get_int64(), path, e);
}

void check_field(const Field& f, const json::value& v, const std::string& path, FieldErrors& e) {
  if (f.shape == Shape::kOne) return check_value(f, v, path, e);
  // Only objects have rules below them, so long lists of strings are not walked.
  if (f.base != Base::kObject) return;
  if (f.shape == Shape::kList && v.is_array())
    for (std::size_t i = 0; i < v.get_array().size(); i++) check_value(f, v.get_array()[i], at(path, i), e);
  if (f.shape == Shape::kMap && v.is_object())
    for (const auto& [key, item] : v.get_object()) check_value(f, item, at_key(path, key), e);
}

// Kinds with rules of their own.
void validate_kind(const Kind& k, const Object& o, FieldErrors& e) {
  if (k.kind == "Pod")
    validate_pod_spec(kube::obj(o, {"spec"}), "spec", e);
  else if (k.kind == "Service")
    validate_service(o, e);
  else if (k.kind == "Deployment" || k.kind == "ReplicaSet")
    validate_workload(k, o, e);
  else if (k.kind == "ConfigMap" || k.kind == "Secret")
    validate_config(k, o, e);
  else if (k.kind == "Endpoints")
    validate_endpoints(o, e);
  else if (k.kind == "EndpointSlice")
    validate_endpoint_slice(o, e);
  else if (k.kind == "Lease")
    validate_lease(o, e);
  else if (k.kind == "Node")
    validate_node(o, e);
  else if (k.kind == "Event")
    validate_event(o, e);
  else if (k.kind == "Binding" && kube::str(o, {"target", "name"}).empty())
    e.required("target.name");
}

void validate_kind_update(const Kind& k, const Object& old, const Object& o, FieldErrors& e) {
  if (k.kind == "Pod")
    validate_pod_update(old, o, e);
  else if (k.kind == "Service")
    validate_service_update(old, o, e);
  else if (k.kind == "Deployment" || k.kind == "ReplicaSet")
    validate_workload_update(old, o, e);
  else if (k.kind == "ConfigMap" || k.kind == "Secret")
    validate_config_update(k, old, o, e);
  else if (k.kind == "EndpointSlice" && !same(old, o, "addressType"))
    e.invalid("addressType", o.contains("addressType") ? o.at("addressType") : json::value(), "field is immutable");
}

// The table's rules for a write of this part: what the other part holds was checked when it was written.
void validate_shape(const Kind& k, const Object& o, bool status, FieldErrors& e) {
  for (const auto& f : TypeTable::get().entry(k).type->fields) {
    if (k.has_status && (f.name == "status") != status && f.name != "metadata") continue;
    const auto* v = o.if_contains(f.name);
    if (f.nonempty && is_empty(v))
      e.required(std::string(f.name));
    else if (v && !v->is_null())
      check_field(f, *v, std::string(f.name), e);
  }
}

}  // namespace

bool same(const Object& a, const Object& b, std::string_view field) {
  const auto* left = a.if_contains(field);
  const auto* right = b.if_contains(field);
  bool no_left = is_empty(left);
  bool no_right = is_empty(right);
  return no_left || no_right ? no_left == no_right : *left == *right;
}

void validate_table(const Type& t, const Object& o, const std::string& path, FieldErrors& e) {
  for (const auto& f : t.fields) {
    const auto* v = o.if_contains(f.name);
    if (f.nonempty && is_empty(v)) {
      e.required(at(path, f.name));
    } else if (v && !v->is_null() && (f.base == Base::kObject || f.has_enum || f.bound != Bound::kNone)) {
      check_field(f, *v, at(path, f.name), e);
    }
  }
}

std::vector<FieldError> validate_create(const Kind& k, const Object& o) {
  FieldErrors e;
  validate_metadata(k, o, e);
  validate_shape(k, o, false, e);
  validate_kind(k, o, e);
  return e.take();
}

std::vector<FieldError> validate_update(const Kind& k, const Object& old, const Object& o,
                                        std::string_view subresource) {
  FieldErrors e;
  validate_metadata_update(old, o, e);
  bool status = subresource == "status";
  validate_shape(k, o, status, e);
  if (status) return e.take();
  // The immutable part of an object is not looked at again: it may be older than a rule.
  if (k.kind != "Pod") validate_kind(k, o, e);
  if (subresource.empty()) validate_kind_update(k, old, o, e);
  return e.take();
}

}  // namespace hawser::schema
