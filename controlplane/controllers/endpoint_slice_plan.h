// SPDX-License-Identifier: Apache-2.0
// EndpointSlices, the pure part: from endpoints and the slices that exist to the writes that make them agree, with as
// few changed slices as possible. Applied to its own result it plans nothing. Source: KEP-0752 and "EndpointSlices" of
// the documentation.
//
// One slice holds endpoints of one address family and one set of ports. Endpoints stay in the slice where they are; new
// ones go first into slices that are written anyway, then into the fullest slice that has room for all of them, then
// into new slices. A slice that would be left empty is reused for a new one, else removed; a Service without endpoints
// keeps one empty slice, so that consumers can tell "no endpoints" from "not yet looked at".
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/controllers/service_endpoints.h"

namespace hawser::controllers {

inline constexpr std::string_view kManagedBy = "endpointslice.kubernetes.io/managed-by";
inline constexpr std::string_view kServiceNameLabel = "kubernetes.io/service-name";
inline constexpr std::string_view kHeadlessLabel = "service.kubernetes.io/headless";
inline constexpr std::string_view kTriggerTime = "endpoints.kubernetes.io/last-change-trigger-time";
inline constexpr std::string_view kSliceController = "endpointslice-controller.k8s.io";
inline constexpr std::string_view kMirrorController = "endpointslicemirroring-controller.k8s.io";

struct SliceInput {
  const Object& parent;  // the Service, or the Endpoints that are mirrored
  std::string_view parent_kind = "Service";
  std::string_view managed_by = kSliceController;
  std::span<const ServiceEndpoint> endpoints;
  std::span<const ObjectPtr> slices;  // those that exist, by this controller, for this parent
  std::vector<bool> families_v6;      // families that get an empty slice when there is no endpoint
  std::optional<WallTime> trigger;
  std::size_t per_slice = 100;
};

struct SlicePlan {
  std::vector<Object> create;
  std::vector<Object> update;
  std::vector<ObjectPtr> remove;
};
// To be applied in this order: create, update, remove. Then no endpoint that stays is missing at any moment.
[[nodiscard]] SlicePlan plan_slices(const SliceInput& in);

}  // namespace hawser::controllers
