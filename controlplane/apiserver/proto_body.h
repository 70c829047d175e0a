// SPDX-License-Identifier: Apache-2.0
// Request bodies in Kubernetes' protobuf form (application/vnd.kubernetes.protobuf): typed Go clients send nothing else
// for built-in kinds, kubectl create from 1.32 on among them, and do not fall back. Answers stay JSON, which every
// client accepts. Field numbers are in proto_fields.txt, types in the schema tables. Pure, any thread. Source:
// apimachinery runtime/serializer/protobuf (envelope), the generated.proto files (numbers).
#pragma once

#include <string_view>

#include "controlplane/schema/schema.h"

namespace hawser::apiserver {

[[nodiscard]] bool is_protobuf(std::string_view content_type);

// The object in its JSON form, apiVersion and kind set. 400 for a malformed body, or a kind that is not in the tables.
[[nodiscard]] kube::Expected<kube::Object> from_protobuf(std::string_view body);

}  // namespace hawser::apiserver
