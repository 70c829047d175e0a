// SPDX-License-Identifier: Apache-2.0
// Endpoints (the older form of EndpointSlices), the pure part. Source: core/v1 Endpoints of the API documentation.
#pragma once

#include <optional>
#include <span>

#include "controlplane/controllers/service_endpoints.h"

namespace hawser::controllers {

struct EndpointsInput {
  const Object& service;
  std::span<const ServiceEndpoint> endpoints;
  const Object* stored = nullptr;  // null: to be created
  std::optional<WallTime> trigger;
  std::size_t limit = 1000;  // addresses; more are cut off and the object is marked
};
// The object to write, or nothing if the stored one already says it. Addresses of the Service's first family only, as
// the API has it; pods that are being deleted are left out unless the Service publishes every address.
[[nodiscard]] std::optional<Object> plan_endpoints(const EndpointsInput& in);

// The endpoints an Endpoints object describes, for mirroring it into EndpointSlices.
[[nodiscard]] std::vector<ServiceEndpoint> mirrored_endpoints(const Object& endpoints);

}  // namespace hawser::controllers
