// SPDX-License-Identifier: Apache-2.0
// proxyd's JSON answers as text for a terminal. A member that is missing or of another type prints as empty: a newer or
// older proxyd is no reason to fail. Pure.
#pragma once

#include <string>

#include <boost/json/object.hpp>

namespace hawser::cli {

[[nodiscard]] std::string render_services(const boost::json::object& answer);
[[nodiscard]] std::string render_endpoints(const boost::json::object& answer);
[[nodiscard]] std::string render_explain(const boost::json::object& answer);
[[nodiscard]] std::string render_status(const boost::json::object& answer);

// False only if the answer says that model and kernel disagree.
[[nodiscard]] bool agrees(const boost::json::object& answer);

}  // namespace hawser::cli
