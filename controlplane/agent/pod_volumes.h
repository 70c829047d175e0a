// SPDX-License-Identifier: Apache-2.0
// A pod's folders and volumes on this node: <root>/pods/<uid>/{volumes,containers,etc-hosts}. prepare_volumes() makes
// them (again: it is idempotent), remove_pod_dir() unmounts and deletes them, volume_mounts() says what a container
// mounts. Blocking file work, one caller per pod at a time.
#pragma once

#include <string>
#include <vector>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/node_settings.h"
#include "controlplane/agent/pod_spec.h"
#include "controlplane/agent/volume_payload.h"

namespace hawser::agent {

// Errors carry the kubelet's wording: `MountVolume.SetUp failed for volume "x" : configmap "y" not found`.
Result<> prepare_volumes(const PodSpec& spec, const NodeSettings& node, const PayloadInputs& in);
// Only the volumes that follow API objects; true if a file changed.
Result<bool> refresh_volumes(const PodSpec& spec, const NodeSettings& node, const PayloadInputs& in);
[[nodiscard]] bool has_payload_volumes(const PodSpec& spec);
Result<> remove_pod_dir(const NodeSettings& node, const std::string& uid);

// The mounts of one container: its volumes, /etc/hosts and the termination message. Makes the files and sub-paths they
// need.
Result<std::vector<Mount>> volume_mounts(const PodSpec& spec, const ContainerSpec& c, std::uint32_t attempt,
                                         const NodeSettings& node, const EnvList& env);
// Where a container's termination message is on this node.
[[nodiscard]] std::string termination_file(const NodeSettings& node, const std::string& uid,
                                           const std::string& container, std::uint32_t attempt);

// /etc/hosts as Kubernetes writes it. `node_hosts`: the node's own file, for pods on the host's network.
[[nodiscard]] std::string hosts_text(const PodSpec& spec, const std::vector<std::string>& pod_ips,
                                     const std::string& node_hosts, const std::string& domain);
Result<> write_hosts(const PodSpec& spec, const NodeSettings& node, const std::vector<std::string>& pod_ips);

}  // namespace hawser::agent
