// SPDX-License-Identifier: Apache-2.0
// JSON values as block-style YAML 1.1, keys sorted as Kubernetes' own YAML is. Pure, any thread.
#pragma once

#include <string>

#include <boost/json/value.hpp>

namespace hawser::apiserver {

[[nodiscard]] std::string to_yaml(const boost::json::value& v);

}  // namespace hawser::apiserver
