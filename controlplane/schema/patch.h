// SPDX-License-Identifier: Apache-2.0
// The three patch formats. Pure, any thread. Errors carry the HTTP code: 400 a patch that is malformed, 413 one that is
// too large, 422 one that cannot be applied to this object.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "controlplane/schema/type_table.h"

namespace hawser::schema {

inline constexpr std::size_t kMaxPatchOperations = 10'000;
inline constexpr std::size_t kMaxCopiedBytes = 3 * 1024 * 1024;

// RFC 6902.
Result<boost::json::value> apply_json_patch(boost::json::value document, const boost::json::value& patch);
// RFC 7386.
void apply_merge_patch(boost::json::value& target, const boost::json::value& patch);
// Kubernetes' strategic merge: lists merge by the keys of the table; $patch, $retainKeys, $setElementOrder and
// $deleteFromPrimitiveList are obeyed.
Result<> apply_strategic_patch(const Type& type, boost::json::object& target, const boost::json::object& patch);

}  // namespace hawser::schema
