// SPDX-License-Identifier: Apache-2.0
// Content negotiation: what a client sent (Content-Type) and what it wants back (Accept). We answer in JSON and YAML,
// and take protobuf bodies too (proto_body.h). Pure, any thread. Source: "Kubernetes API concepts", alternate
// representations.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "controlplane/schema/schema.h"
#include "lib/http/message.h"

namespace hawser::apiserver {

// How an object or list is shown.
enum class Shape { kObject, kTable, kPartial };
struct Accepted {
  bool yaml = false;
  Shape shape = Shape::kObject;
  std::string meta_version = "v1";  // of meta.k8s.io, for Table and PartialObjectMetadata
};

// The first acceptable of the Accept header's choices. `shapes`: Table and PartialObjectMetadata can be served here.
// 406 otherwise.
[[nodiscard]] kube::Expected<Accepted> negotiate(std::string_view accept, bool shapes);

// The version ("v2", "v2beta1") of aggregated discovery that the client prefers, if it asks for one before plain JSON.
[[nodiscard]] std::optional<std::string> aggregated_discovery(std::string_view accept);

// Whether `accept` names `type` (without parameters).
[[nodiscard]] bool accepts(std::string_view accept, std::string_view type);

// JSON (also when nothing is said) or YAML; 415 for anything else.
[[nodiscard]] kube::Expected<schema::MediaType> body_type(std::string_view content_type);
[[nodiscard]] kube::Expected<kube::PatchType> patch_type(std::string_view content_type);

}  // namespace hawser::apiserver
