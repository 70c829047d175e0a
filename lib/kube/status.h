// SPDX-License-Identifier: Apache-2.0
// metav1.Status as a value, and its constructors with the texts kubectl shows. Source: apimachinery api/errors (public
// API).
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/base/result.h"

namespace hawser::kube {

struct FieldError {
  enum class Type { kRequired, kInvalid, kNotSupported, kForbidden, kDuplicate, kTooLong, kNotFound, kTypeInvalid };
  Type type = Type::kInvalid;
  std::string field;                       // "spec.ports[0].port"
  std::string value;                       // offending value as JSON text, may be empty
  std::string detail;                      // "must be between 1 and 65535, inclusive"
  [[nodiscard]] std::string text() const;  // `spec.ports[0].port: Invalid value: 70000: must be ...`
};

struct Status {
  int code = 500;
  std::string reason;  // "NotFound", "Invalid", ...
  std::string message;
  // details{}
  std::string name, group, kind;  // kind holds the plural for NotFound/AlreadyExists/Conflict, the Kind for Invalid
  std::vector<FieldError> causes;
  std::string cause;  // one more cause, which is about no field: "ResourceVersionTooLarge"
  int retry_after_seconds = 0;
  std::string continue_token;  // metadata.continue: where an expired list may go on

  [[nodiscard]] boost::json::object to_json() const;
  static Status from_json(const boost::json::object& o);
  [[nodiscard]] Error to_error() const;
};

template <class T = void>
using Expected = std::expected<T, Status>;

// `services "web" not found`, with the group: `deployments.apps "web" not found`.
Status not_found(std::string_view group, std::string_view plural, std::string_view name);
Status already_exists(std::string_view group, std::string_view plural, std::string_view name);
Status conflict(std::string_view group, std::string_view plural, std::string_view name, std::string_view why);
// `Service "web" is invalid: spec.ports[0].port: Invalid value: ...` (several: `[a, b]`).
Status invalid(std::string_view group, std::string_view kind, std::string_view name, std::vector<FieldError> causes);
Status bad_request(std::string_view message);
Status unauthorized();
Status forbidden(std::string_view group, std::string_view plural, std::string_view name, std::string_view why);
Status method_not_supported(std::string_view group, std::string_view plural, std::string_view verb);
Status expired(std::string_view message);  // 410, reason Expired
Status timeout(std::string_view message, int retry_after_seconds);
Status too_large(std::string_view message);
Status unsupported_media_type(std::string_view message);
Status not_acceptable(std::string_view message);
Status internal_error(std::string_view message);
Status service_unavailable(std::string_view message);
Status too_many_requests(std::string_view message, int retry_after_seconds);

}  // namespace hawser::kube
