// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/object.h"

#include <cmath>
#include <utility>

namespace hawser::kube {

const Value* find(const Object& o, std::initializer_list<std::string_view> path) {
  const Object* at = &o;
  const Value* found = nullptr;
  for (auto part : path) {
    if (!at) return nullptr;
    found = at->if_contains(part);
    // An explicit null means absent, as Go's decoding has it: clients send "creationTimestamp": null.
    if (!found || found->is_null()) return nullptr;
    at = found->if_object();
  }
  return found;
}

std::string_view str(const Object& o, std::initializer_list<std::string_view> path) {
  const Value* v = find(o, path);
  const auto* s = v ? v->if_string() : nullptr;
  return s ? std::string_view(*s) : std::string_view();
}

std::int64_t num(const Object& o, std::initializer_list<std::string_view> path, std::int64_t otherwise) {
  const Value* v = find(o, path);
  if (!v) return otherwise;
  if (const auto* i = v->if_int64()) return *i;
  // The parser never makes these of small numbers; code that builds an object from an unsigned does.
  if (const auto* u = v->if_uint64(); u && std::in_range<std::int64_t>(*u)) return static_cast<std::int64_t>(*u);
  if (const auto* d = v->if_double(); d && std::abs(*d) < 0x1p53 && std::trunc(*d) == *d)
    return static_cast<std::int64_t>(*d);
  return otherwise;
}

bool flag(const Object& o, std::initializer_list<std::string_view> path, bool otherwise) {
  const Value* v = find(o, path);
  const bool* b = v ? v->if_bool() : nullptr;
  return b ? *b : otherwise;
}

const Object& obj(const Object& o, std::initializer_list<std::string_view> path) {
  const Value* v = find(o, path);
  const auto* found = v ? v->if_object() : nullptr;
  return found ? *found : empty_object();
}

const Array& arr(const Object& o, std::initializer_list<std::string_view> path) {
  const Value* v = find(o, path);
  const auto* found = v ? v->if_array() : nullptr;
  return found ? *found : empty_array();
}

std::string key(const Object& o) {
  auto space = ns(o);
  if (space.empty()) return std::string(name(o));
  std::string out(space);
  out += '/';
  out += name(o);
  return out;
}

Object& ensure(Object& o, std::initializer_list<std::string_view> path) {
  Object* at = &o;
  for (auto part : path) {
    Value& v = (*at)[part];
    if (!v.is_object()) v.emplace_object();
    at = &v.get_object();
  }
  return *at;
}

const Object& empty_object() {
  static const Object empty;
  return empty;
}
const Array& empty_array() {
  static const Array empty;
  return empty;
}

const Object& controller_of(const Object& o) {
  for (const auto& ref : arr(o, {"metadata", "ownerReferences"}))
    if (flag(as_obj(ref), {"controller"})) return as_obj(ref);
  return empty_object();
}

}  // namespace hawser::kube
