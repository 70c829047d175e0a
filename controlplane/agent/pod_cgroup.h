// SPDX-License-Identifier: Apache-2.0
// The cgroup of a pod: <cgroup parent>/[burstable|besteffort]/pod<uid>, in every hierarchy of cgroup v1 or in the one
// of v2. The runtime makes it with the pod's first container and leaves it behind.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "controlplane/agent/node_settings.h"

namespace hawser::agent {

// Below the root of a hierarchy.
[[nodiscard]] std::string pod_cgroup(const NodeSettings& node, std::string_view uid, std::string_view qos);
// With what is below it, for a pod of which the runtime has nothing any more. Of an orphan the class is not known, so
// it is looked for in each. A process that is still in it is killed: a runtime that dies between starting one and
// recording it does not know it afterwards, and would leave it for ever. What does not go at once is left to the next
// call.
void remove_pod_cgroups(const NodeSettings& node, std::string_view uid);
// The uids of all pods that have one.
[[nodiscard]] std::set<std::string> pods_with_cgroups(const NodeSettings& node);

}  // namespace hawser::agent
