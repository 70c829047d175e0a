// SPDX-License-Identifier: Apache-2.0
// The schema table: every served kind, described once. Decoding, strict validation, defaulting, patches, printed
// tables, OpenAPI v2/v3 (and so kubectl's own validation and `explain`) all follow from it. Pure after start; any
// thread.
//
// The registry (controlplane/apiserver) calls, for a write: decode -> set_defaults -> (system fields) -> validate_* ->
// store.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/kube/client.h"
#include "lib/kube/status.h"

namespace hawser::schema {

using boost::json::value;
using kube::Expected;
using kube::FieldError;
using kube::Object;
using kube::Status;

struct Kind {
  std::string_view group, version, kind, list_kind, plural, singular;
  std::vector<std::string_view> short_names;
  std::vector<std::string_view> categories;  // "all"
  bool namespaced = true;
  bool has_status = false;  // serves /status; spec writes keep status, status writes keep the rest
  bool has_scale = false;
  // metadata.generation counts changes of spec.
  bool has_generation = false;
  // Field selectors beside metadata.name and metadata.namespace: paths such as "spec.nodeName".
  std::vector<std::string_view> selectable;
  [[nodiscard]] std::string group_version() const;  // "v1", "apps/v1"
};

// Every kind, in discovery order.
[[nodiscard]] std::span<const Kind> kinds();
[[nodiscard]] const Kind* find_resource(std::string_view group, std::string_view version, std::string_view plural);
[[nodiscard]] const Kind* find_kind(std::string_view group, std::string_view version, std::string_view kind);

enum class FieldValidation { kIgnore, kWarn, kStrict };
enum class MediaType { kJson, kYaml };
struct Decoded {
  Object object;
  std::vector<std::string> warnings;  // text of `Warning: 299` headers: unknown or duplicate fields
};
// Parses a request body as `k`: checks apiVersion/kind if present (sets them if absent), field types, unknown fields.
// Wrong types are 400 with the field's path; unknown fields follow `mode` (strict: 400 `strict decoding error: unknown
// field "spec.replica"`).
[[nodiscard]] Expected<Decoded> decode(const Kind& k, std::string_view body, MediaType type, FieldValidation mode);

// The same for an object that is parsed already: the result of apply_patch, or what a caller in this process hands in.
// `findings` holds what parsing found (duplicate keys), if anything.
[[nodiscard]] Expected<Decoded> conform(const Kind& k, Object object, FieldValidation mode,
                                        std::vector<std::string> findings = {});

// Fills the defaults of the API documentation, in place.
void set_defaults(const Kind& k, Object& o);

// Metadata and kind-specific rules. Empty: valid.
[[nodiscard]] std::vector<FieldError> validate_create(const Kind& k, const Object& o);
[[nodiscard]] std::vector<FieldError> validate_update(const Kind& k, const Object& old, const Object& o,
                                                      std::string_view subresource);

// original with the patch applied; unknown directives and failed JSON-patch tests are 422/400 as in Kubernetes.
[[nodiscard]] Expected<Object> apply_patch(const Kind& k, kube::PatchType type, const Object& original,
                                           const value& patch);

// metav1.Table for objects of one kind. `include_object`: "None", "Metadata" (default) or "Object". `now` in Unix
// seconds, for ages.
enum class IncludeObject { kNone, kMetadata, kObject };
[[nodiscard]] Object table(const Kind& k, std::span<const kube::ObjectPtr> items, IncludeObject include,
                           std::int64_t now, bool with_columns);

// Documents, built at the first call and kept. v2 as JSON and as gnostic protobuf: asked for as
// application/com.github.proto-openapi.spec.v2@v1.0+protobuf, but that is no valid Content-Type: answer with
// kOpenapiV2ProtobufType.
inline constexpr std::string_view kOpenapiV2ProtobufType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
[[nodiscard]] const std::string& openapi_v2_json();
[[nodiscard]] const std::string& openapi_v2_protobuf();
// The body of /openapi/v3 (paths with hashes) and of /openapi/v3/{api/v1 | apis/G/V}; empty if unknown.
[[nodiscard]] const std::string& openapi_v3_index();
[[nodiscard]] std::string openapi_v3(std::string_view path);

}  // namespace hawser::schema
