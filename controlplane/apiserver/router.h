// SPDX-License-Identifier: Apache-2.0
// Router: a request path to what it addresses. Pure, any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "controlplane/schema/schema.h"

namespace hawser::apiserver {

struct Route {
  enum class Type {
    kUnknown,
    kIndex,         // /
    kCoreVersions,  // /api
    kGroups,        // /apis
    kGroup,         // /apis/GROUP
    kResourceList,  // /api/v1, /apis/GROUP/VERSION
    kOpenapiV2,     // /openapi/v2
    kOpenapiV3,     // /openapi/v3[/...]
    kVersion,
    kHealth,  // /healthz, /livez, /readyz, and one check below each
    kMetrics,
    kCustomResources,  // where clients look for custom resource definitions
    kResource,
  };
  Type type = Type::kUnknown;
  std::string group, version;
  std::string rest;                    // kOpenapiV3: the document; kHealth: the endpoint's name
  std::string check;                   // kHealth: one check
  const schema::Kind* kind = nullptr;  // kResource
  std::string ns, name, subresource;
  bool watch_path = false;  // the old form /api/v1/watch/...
};

[[nodiscard]] Route route(std::string_view path);

// A subresource beside status and scale, which the kind's own flags announce.
struct Subresource {
  std::string_view group, plural, name;
  std::string_view kind_group, kind_version, kind;  // of what it takes and gives
  std::span<const std::string_view> verbs;
};
[[nodiscard]] std::span<const Subresource> subresources();

}  // namespace hawser::apiserver
