// SPDX-License-Identifier: Apache-2.0
// Conform: makes a parsed JSON tree have exactly the shape of its type, as decoding into the Go types does: wrong types
// are an error, nulls and empty optional values disappear, quantities and times become canonical, unknown fields are
// removed and reported. Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "controlplane/schema/type_table.h"

namespace hawser::schema {

// In place. Unknown fields are appended to `unknown` as `unknown field "spec.containers[0].imagee"`. The error's text
// is what follows "cannot be handled as a Pod: ".
Result<> conform(const Type& type, boost::json::object& o, std::vector<std::string>& unknown);

}  // namespace hawser::schema
