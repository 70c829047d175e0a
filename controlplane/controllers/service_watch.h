// SPDX-License-Identifier: Apache-2.0
// What the EndpointSlice and the Endpoints controller have in common: which Services a changed pod concerns, and the
// endpoints of one Service as the caches show them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/service_endpoints.h"

namespace hawser::controllers {

// Calls `due` with the keys of the Services whose endpoints may change, on informer threads.
void watch_service_inputs(Caches& caches, const std::function<void(const std::string&)>& due);

struct ServiceView {
  std::vector<ObjectPtr> pods;  // those the selector matches
  std::vector<ServiceEndpoint> endpoints;
};
[[nodiscard]] ServiceView view_service(Caches& caches, const Object& service);

}  // namespace hawser::controllers
