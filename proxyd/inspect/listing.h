// SPDX-License-Identifier: Apache-2.0
// Lists for a person: this node's Services, the endpoints of one with the reason why each is used or not, and whether
// the kernel as a whole is as the model wants it. Pure.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/object.hpp>

#include "proxyd/inspect/facts.h"

namespace hawser::proxy {

// {"services": [{"namespace", "name", "frontends": [{"key", "reach", "endpoints", "state", "wanted", "found",
// "agree"}], "endpoints", "ready", "agree"}], "agree"}; of all namespaces if `ns` is empty.
[[nodiscard]] boost::json::object list_services(const Facts& f, std::string_view ns);

// {"service", "endpoints": [{"address", "port", "portName", "protocol", "slices", "ready", "serving", "terminating",
// "local", "weight", "chosen", "share", "why"}], "agree", "wanted", "found"} of one Service that the facts have.
[[nodiscard]] boost::json::object list_endpoints(const Facts& f, const std::string& key);

// {"services", "frontends", "drift": [...], "agree"}
[[nodiscard]] boost::json::object status(const Facts& f);

}  // namespace hawser::proxy
