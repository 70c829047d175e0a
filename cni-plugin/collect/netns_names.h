// SPDX-License-Identifier: Apache-2.0
// Names of network namespaces that lead nowhere. containerd makes an empty file "cni-<UUID>" in /run/netns, mounts the
// pod's namespace on it and only then records the sandbox; killed in between, or after it has unmounted, it forgets the
// name, and the files pile up. One that is not mounted is nobody's: a sandbox whose name leads nowhere has no network.
//
// Whether a name is mounted can only be said in the runtime's own mount namespace, and elsewhere unlinking would take
// the mount away. The plugin, which the runtime runs in that namespace, leaves word of it and of the folder at each
// ADD. Blocking; any thread.
#pragma once

#include <string>

#include "cni-plugin/collect/sweep.h"

namespace hawser::cni {

// "cni-" and a UUID in lower case, as containerd and the CNI project's Go packages name them.
[[nodiscard]] bool is_runtime_netns_name(std::string_view name);

// For the plugin: `netns` is what the runtime calls the pod's namespace; other forms than the above are passed over.
Result<> note_netns_folder(const std::string& run_dir, const std::string& netns);

// Removes such names older than `grace`: empty, not mounted. Nothing is done where no word was left, or in another
// mount namespace than the runtime's.
void sweep_netns_names(const std::string& run_dir, Nanos grace, Sweep& sweep, Clock& clock = system_clock());

}  // namespace hawser::cni
