// SPDX-License-Identifier: Apache-2.0
// FieldErrors: collects what is wrong with an object, field by field. Pure, one validation's own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "controlplane/schema/names.h"
#include "lib/kube/status.h"

namespace hawser::schema {

class FieldErrors {
 public:
  using Type = kube::FieldError::Type;
  // The offending value, from whatever the caller has at hand.
  struct Offender {
    boost::json::value v;
    Offender(std::string_view s) : v(boost::json::string(s)) {}
    Offender(const std::string& s) : v(boost::json::string(s)) {}
    Offender(const char* s) : v(boost::json::string(s)) {}
    Offender(std::int64_t n) : v(n) {}
    Offender(std::nullptr_t) : v(nullptr) {}
    Offender(const boost::json::value& other) : v(other) {}
    Offender(const boost::json::object& o) : v(o) {}
    Offender(const boost::json::array& a) : v(a) {}
    [[nodiscard]] std::string text() const { return boost::json::serialize(v); }
  };

  void required(std::string path, std::string detail = {}) {
    add(Type::kRequired, std::move(path), {}, std::move(detail));
  }
  void invalid(std::string path, const Offender& v, std::string detail) {
    add(Type::kInvalid, std::move(path), v.text(), std::move(detail));
  }
  void invalid(std::string path, const Offender& v, const Reasons& reasons) {
    for (const auto& r : reasons) invalid(path, v, r);
  }
  void forbidden(std::string path, std::string detail) {
    add(Type::kForbidden, std::move(path), {}, std::move(detail));
  }
  void duplicate(std::string path, const Offender& v) { add(Type::kDuplicate, std::move(path), v.text(), {}); }
  void not_found(std::string path, const Offender& v) { add(Type::kNotFound, std::move(path), v.text(), {}); }
  void too_long(std::string path, std::string detail) { add(Type::kTooLong, std::move(path), {}, std::move(detail)); }
  // `allowed` in the order Kubernetes prints it: sorted.
  void not_supported(std::string path, const Offender& v, std::vector<std::string_view> allowed) {
    std::ranges::sort(allowed);
    std::string list;
    for (auto a : allowed) list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", a);
    add(Type::kNotSupported, std::move(path), v.text(), "supported values: " + list);
  }

  [[nodiscard]] bool empty() const { return list_.empty(); }
  [[nodiscard]] std::vector<kube::FieldError> take() { return std::move(list_); }

 private:
  void add(Type type, std::string path, std::string v, std::string detail) {
    list_.push_back({.type = type, .field = std::move(path), .value = std::move(v), .detail = std::move(detail)});
  }
  std::vector<kube::FieldError> list_;
};

}  // namespace hawser::schema
