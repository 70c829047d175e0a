// SPDX-License-Identifier: Apache-2.0
// Cells of printed tables that are computed, named in types/*.schema as @name. Source of the rules: what `kubectl get`
// shows and its documentation explains. Pure, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <boost/json/value.hpp>

#include "lib/kube/object.h"

namespace hawser::schema {

using CellFunction = boost::json::value (*)(const kube::Object& o, std::int64_t now);
// Null if there is none of that name.
[[nodiscard]] CellFunction find_cell(std::string_view name);

// "5m10s", "3h", "2d4h": as kubectl writes durations.
[[nodiscard]] std::string human_duration(std::int64_t seconds);
// Time since an RFC 3339 time; "<unknown>" for none.
[[nodiscard]] std::string since(std::string_view time, std::int64_t now);

namespace cells {
// In columns_pod.cc.
boost::json::value pod_ready(const kube::Object& o, std::int64_t now);
boost::json::value pod_status(const kube::Object& o, std::int64_t now);
boost::json::value pod_restarts(const kube::Object& o, std::int64_t now);
boost::json::value pod_gates(const kube::Object& o, std::int64_t now);
}  // namespace cells

}  // namespace hawser::schema
