// SPDX-License-Identifier: Apache-2.0
// A pod's status object from what the agent knows. Pure. The rules (phase, conditions, container states) are those that
// the Kubernetes API documents for PodStatus; times of conditions that did not change are kept from the status before.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "controlplane/agent/pod_machine.h"

namespace hawser::agent {

struct StatusInputs {
  std::string host_ip;
  // The newest sandbox's addresses; the node's own for hostNetwork.
  std::vector<std::string> pod_ips;
  std::string runtime_name = "containerd";  // prefix of container ids
  WallTime start_time{};
};

// `before`: the status in the API object (conditions of others in it are kept).
[[nodiscard]] boost::json::object pod_status(const PodSpec& spec, const PodState& state, const Plan& plan,
                                             const StatusInputs& in, const boost::json::object& before);

// "Guaranteed", "Burstable" or "BestEffort".
[[nodiscard]] std::string_view qos_class(const boost::json::object& pod);

}  // namespace hawser::agent
