// SPDX-License-Identifier: Apache-2.0
// Internal to lib/kube: patches as FakeClient needs them. The API server has its own, driven by the schema. Pure.
#pragma once

#include <boost/json/value.hpp>

#include "lib/base/result.h"
#include "lib/kube/client.h"

namespace hawser::kube {

// JSON patch (RFC 6902: add, replace, remove, test), merge patch (RFC 7386), or strategic merge with lists of objects
// merged by their "type" or "name".
Result<> apply_patch(boost::json::value& target, PatchType type, const boost::json::value& patch);

}  // namespace hawser::kube
