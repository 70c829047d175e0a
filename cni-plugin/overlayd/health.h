// SPDX-License-Identifier: Apache-2.0
// /healthz (the process lives), /readyz (503 and the reason until the network is up; with ?verbose a line for each
// peer's data path and each device in need of one), /metrics over plain HTTP.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cni-plugin/overlayd/daemon.h"
#include "lib/http/server.h"

namespace hawser::overlay {

// `bind` is "address:port" ("[::1]:8285"). The server runs until it is destroyed.
Result<std::unique_ptr<http::Server>> serve_health(const std::string& bind, std::function<Status()> status,
                                                   std::function<std::vector<std::string>()> verbose_lines,
                                                   const metrics::Registry& registry);

}  // namespace hawser::overlay
