// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/status.h"

#include <algorithm>
#include <array>

#include <boost/json/array.hpp>

#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

struct TypeNames {
  FieldError::Type type;
  std::string_view reason;  // metav1.CauseType
  std::string_view text;    // field.ErrorType.String()
  bool shows_value;
};
constexpr std::array<TypeNames, 8> kTypes{{
    {FieldError::Type::kRequired, "FieldValueRequired", "Required value", false},
    {FieldError::Type::kInvalid, "FieldValueInvalid", "Invalid value", true},
    {FieldError::Type::kNotSupported, "FieldValueNotSupported", "Unsupported value", true},
    {FieldError::Type::kForbidden, "FieldValueForbidden", "Forbidden", false},
    {FieldError::Type::kDuplicate, "FieldValueDuplicate", "Duplicate value", true},
    {FieldError::Type::kTooLong, "FieldValueTooLong", "Too long", false},
    {FieldError::Type::kNotFound, "FieldValueNotFound", "Not found", true},
    {FieldError::Type::kTypeInvalid, "FieldValueTypeInvalid", "Invalid value", true},
}};

const TypeNames& names_of(FieldError::Type t) {
  return kTypes[static_cast<std::size_t>(t)];
}
static_assert(std::ranges::all_of(kTypes,
                                  [i = 0](const TypeNames& n) mutable { return static_cast<int>(n.type) == i++; }));

// A cause's text without its field, as field.Error.ErrorBody().
std::string body_of(const FieldError& e) {
  const auto& n = names_of(e.type);
  std::string out(n.text);
  if (n.shows_value && !e.value.empty()) out += ": " + e.value;
  if (!e.detail.empty()) out += ": " + e.detail;
  return out;
}

FieldError cause_from_json(const Object& o) {
  FieldError e{.field = std::string(str(o, {"field"}))};
  for (const auto& n : kTypes)
    if (n.reason == str(o, {"reason"})) e.type = n.type;
  // Value and detail cannot be told apart safely in the text; kept together they print the same.
  std::string_view body = str(o, {"message"});
  auto text = names_of(e.type).text;
  if (body.starts_with(text)) body.remove_prefix(text.size());
  if (body.starts_with(": ")) body.remove_prefix(2);
  e.detail = std::string(body);
  return e;
}

// "deployments.apps", as schema.GroupResource and GroupKind print.
std::string qualified(std::string_view group, std::string_view what) {
  return group.empty() ? std::string(what) : fmt::format("{}.{}", what, group);
}

Status simple(int code, std::string_view reason, std::string message) {
  Status s;
  s.code = code;
  s.reason = reason;
  s.message = std::move(message);
  return s;
}

struct Subject {
  std::string_view group, kind, name;
};
Status about(int code, std::string_view reason, std::string message, const Subject& subject) {
  Status s = simple(code, reason, std::move(message));
  s.group = subject.group;
  s.kind = subject.kind;
  s.name = subject.name;
  return s;
}

}  // namespace

std::string FieldError::text() const {
  return field.empty() ? body_of(*this) : field + ": " + body_of(*this);
}

boost::json::object Status::to_json() const {
  Object details;
  if (!name.empty()) details["name"] = name;
  if (!group.empty()) details["group"] = group;
  if (!kind.empty()) details["kind"] = kind;
  if (!causes.empty() || !cause.empty()) {
    Array list;
    if (!cause.empty()) list.push_back(Object{{"reason", cause}, {"message", message}});
    for (const auto& c : causes) {
      Object item{{"reason", names_of(c.type).reason}, {"message", body_of(c)}};
      if (!c.field.empty()) item["field"] = c.field;
      list.push_back(std::move(item));
    }
    details["causes"] = std::move(list);
  }
  if (retry_after_seconds > 0) details["retryAfterSeconds"] = retry_after_seconds;

  Object o{{"kind", "Status"}, {"apiVersion", "v1"}, {"metadata", Object()}};
  if (!continue_token.empty()) o["metadata"].as_object()["continue"] = continue_token;
  o["status"] = code < 400 ? "Success" : "Failure";
  if (!message.empty()) o["message"] = message;
  if (!reason.empty()) o["reason"] = reason;
  if (!details.empty()) o["details"] = std::move(details);
  o["code"] = code;
  return o;
}

Status Status::from_json(const boost::json::object& o) {
  Status s;
  s.code = static_cast<int>(num(o, {"code"}, str(o, {"status"}) == "Success" ? 200 : 500));
  s.reason = str(o, {"reason"});
  s.message = str(o, {"message"});
  s.name = str(o, {"details", "name"});
  s.group = str(o, {"details", "group"});
  s.kind = str(o, {"details", "kind"});
  s.retry_after_seconds = static_cast<int>(num(o, {"details", "retryAfterSeconds"}));
  for (const auto& c : arr(o, {"details", "causes"})) s.causes.push_back(cause_from_json(as_obj(c)));
  return s;
}

Error Status::to_error() const {
  return Error{code, message, reason};
}

Status not_found(std::string_view group, std::string_view plural, std::string_view name) {
  return about(404, "NotFound", fmt::format("{} \"{}\" not found", qualified(group, plural), name),
               {group, plural, name});
}
Status already_exists(std::string_view group, std::string_view plural, std::string_view name) {
  return about(409, "AlreadyExists", fmt::format("{} \"{}\" already exists", qualified(group, plural), name),
               {group, plural, name});
}
Status conflict(std::string_view group, std::string_view plural, std::string_view name, std::string_view why) {
  return about(409, "Conflict",
               fmt::format("Operation cannot be fulfilled on {} \"{}\": {}", qualified(group, plural), name, why),
               {group, plural, name});
}

Status invalid(std::string_view group, std::string_view kind, std::string_view name, std::vector<FieldError> causes) {
  // An aggregate prints each different text once, in brackets when there are several.
  std::vector<std::string> texts;
  for (const auto& c : causes)
    if (auto t = c.text(); std::ranges::find(texts, t) == texts.end()) texts.push_back(std::move(t));
  std::string message = fmt::format("{} \"{}\" is invalid", qualified(group, kind), name);
  if (texts.size() == 1) message += ": " + texts[0];
  if (texts.size() > 1) message += fmt::format(": [{}]", fmt::join(texts, ", "));
  Status s = about(422, "Invalid", std::move(message), {group, kind, name});
  s.causes = std::move(causes);
  return s;
}

Status bad_request(std::string_view message) {
  return simple(400, "BadRequest", std::string(message));
}
Status unauthorized() {
  return simple(401, "Unauthorized", "Unauthorized");
}

Status forbidden(std::string_view group, std::string_view plural, std::string_view name, std::string_view why) {
  std::string subject = qualified(group, plural);
  if (!name.empty()) subject += fmt::format(" \"{}\"", name);
  std::string message =
      plural.empty() ? fmt::format("forbidden: {}", why) : fmt::format("{} is forbidden: {}", subject, why);
  return about(403, "Forbidden", std::move(message), {group, plural, name});
}
Status method_not_supported(std::string_view group, std::string_view plural, std::string_view verb) {
  return about(405, "MethodNotAllowed",
               fmt::format("{} is not supported on resources of kind \"{}\"", verb, qualified(group, plural)),
               {group, plural, ""});
}
Status expired(std::string_view message) {
  return simple(410, "Expired", std::string(message));
}
Status timeout(std::string_view message, int retry_after_seconds) {
  Status s = simple(504, "Timeout", fmt::format("Timeout: {}", message));
  s.retry_after_seconds = retry_after_seconds;
  return s;
}
Status too_large(std::string_view message) {
  return simple(413, "RequestEntityTooLarge", fmt::format("Request entity too large: {}", message));
}
Status unsupported_media_type(std::string_view message) {
  return simple(415, "UnsupportedMediaType", std::string(message));
}
Status not_acceptable(std::string_view message) {
  return simple(406, "NotAcceptable", std::string(message));
}
Status internal_error(std::string_view message) {
  return simple(500, "InternalError", fmt::format("Internal error occurred: {}", message));
}
Status service_unavailable(std::string_view message) {
  return simple(503, "ServiceUnavailable", std::string(message));
}
Status too_many_requests(std::string_view message, int retry_after_seconds) {
  Status s = simple(429, "TooManyRequests", std::string(message));
  s.retry_after_seconds = retry_after_seconds;
  return s;
}

}  // namespace hawser::kube
