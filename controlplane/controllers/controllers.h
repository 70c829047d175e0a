// SPDX-License-Identifier: Apache-2.0
// The makers of all controllers; runner.cc lists them in its table.
#pragma once

#include <memory>

#include "controlplane/controllers/controller.h"

namespace hawser::controllers {

std::unique_ptr<Controller> make_namespace_bootstrap_controller(Context& ctx);
std::unique_ptr<Controller> make_namespace_deletion_controller(Context& ctx);
std::unique_ptr<Controller> make_node_ipam_controller(Context& ctx);
std::unique_ptr<Controller> make_node_lifecycle_controller(Context& ctx);
std::unique_ptr<Controller> make_eviction_controller(Context& ctx);
std::unique_ptr<Controller> make_endpoint_slice_controller(Context& ctx);
std::unique_ptr<Controller> make_endpoints_controller(Context& ctx);
std::unique_ptr<Controller> make_slice_mirror_controller(Context& ctx);
std::unique_ptr<Controller> make_replica_set_controller(Context& ctx);
std::unique_ptr<Controller> make_deployment_controller(Context& ctx);
std::unique_ptr<Controller> make_garbage_collector(Context& ctx);
std::unique_ptr<Controller> make_pod_gc_controller(Context& ctx);

}  // namespace hawser::controllers
