// SPDX-License-Identifier: Apache-2.0
// Reading Kubernetes objects: short, total accessors over boost::json. A missing field, or one of another type, reads
// as the empty value; validation is the API server's work. Pure, any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

namespace hawser::kube {

using Object = boost::json::object;
using Array = boost::json::array;
using Value = boost::json::value;

// The value at path ("spec", "clusterIP"), or null.
[[nodiscard]] const Value* find(const Object& o, std::initializer_list<std::string_view> path);
[[nodiscard]] std::string_view str(const Object& o, std::initializer_list<std::string_view> path);
[[nodiscard]] std::int64_t num(const Object& o, std::initializer_list<std::string_view> path,
                               std::int64_t otherwise = 0);
[[nodiscard]] bool flag(const Object& o, std::initializer_list<std::string_view> path, bool otherwise = false);
[[nodiscard]] const Object& obj(const Object& o,
                                std::initializer_list<std::string_view> path);  // empty object if missing
[[nodiscard]] const Array& arr(const Object& o,
                               std::initializer_list<std::string_view> path);  // empty array if missing
[[nodiscard]] inline const Object& as_obj(const Value& v);

[[nodiscard]] inline std::string_view name(const Object& o) {
  return str(o, {"metadata", "name"});
}
[[nodiscard]] inline std::string_view ns(const Object& o) {
  return str(o, {"metadata", "namespace"});
}
[[nodiscard]] inline std::string_view uid(const Object& o) {
  return str(o, {"metadata", "uid"});
}
[[nodiscard]] inline std::string_view resource_version(const Object& o) {
  return str(o, {"metadata", "resourceVersion"});
}
[[nodiscard]] inline bool deleting(const Object& o) {
  return find(o, {"metadata", "deletionTimestamp"}) != nullptr;
}
[[nodiscard]] std::string key(const Object& o);  // "namespace/name", or "name" for a cluster-scoped object

// The object at `path` of a mutable object, made where missing.
Object& ensure(Object& o, std::initializer_list<std::string_view> path);

const Object& empty_object();
const Array& empty_array();
inline const Object& as_obj(const Value& v) {
  return v.is_object() ? v.get_object() : empty_object();
}

// The controller owner reference of `o` ({} if none).
[[nodiscard]] const Object& controller_of(const Object& o);

}  // namespace hawser::kube
