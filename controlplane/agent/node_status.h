// SPDX-License-Identifier: Apache-2.0
// The Node object of this machine: what is read from the machine (read_machine, read_pressure) and the pure building of
// the object's parts from it.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/node_settings.h"
#include "lib/base/clock.h"

namespace hawser::agent {

// The version that clients see of this agent: the Kubernetes minor it behaves like, and who it is.
inline constexpr char kKubeletVersion[] = "v1.33.0+hawser";

struct MachineFacts {
  std::int64_t milli_cpu = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t disk_bytes = 0;
  std::string machine_id, system_uuid, boot_id, kernel, os_image, architecture;
};
// `root_dir`: the folder whose file system counts as the node's disk.
[[nodiscard]] MachineFacts read_machine(const std::string& root_dir);

struct Pressure {
  bool memory = false, disk = false, pids = false;
};
[[nodiscard]] Pressure read_pressure(const std::string& root_dir);

struct NodeInputs {
  MachineFacts machine;
  Pressure pressure;
  RuntimeState runtime;
  std::string runtime_error;  // not empty: the runtime does not answer
  std::vector<Image> images;
};

// metadata and spec for registering.
[[nodiscard]] boost::json::object node_object(const NodeSettings& node, const MachineFacts& machine);
[[nodiscard]] boost::json::object node_labels(const NodeSettings& node, const MachineFacts& machine);
// The status, its conditions without times (see stamp_conditions).
[[nodiscard]] boost::json::object node_status(const NodeSettings& node, const NodeInputs& in);
[[nodiscard]] bool node_ready(const NodeInputs& in);
// Adds heartbeat and transition times; a condition whose status is as in `before` keeps its transition time.
void stamp_conditions(boost::json::object& status, const boost::json::object& before, WallTime now);

}  // namespace hawser::agent
