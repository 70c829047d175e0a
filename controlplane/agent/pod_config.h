// SPDX-License-Identifier: Apache-2.0
// CRI configurations from a pod: its sandbox's and its containers'. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/node_settings.h"
#include "controlplane/agent/pod_env.h"
#include "controlplane/agent/pod_spec.h"

namespace hawser::agent {

struct DnsConfig {
  std::vector<std::string> servers, searches, options;
};
// A resolv.conf's text.
[[nodiscard]] DnsConfig parse_resolv_conf(std::string_view text);
// What the pod's /etc/resolv.conf holds, by dnsPolicy and dnsConfig. `node_dns`: the node's own.
[[nodiscard]] DnsConfig pod_dns(const PodSpec& spec, const NodeSettings& node, const DnsConfig& node_dns);

[[nodiscard]] std::string pod_log_dir(const NodeSettings& node, const PodSpec& spec);

[[nodiscard]] SandboxConfig sandbox_config(const PodSpec& spec, const NodeSettings& node, const DnsConfig& node_dns,
                                           std::uint32_t attempt);

struct ContainerInputs {
  EnvList env;
  std::vector<Mount> mounts;
  std::string image;          // the reference to start from
  std::optional<Image> info;  // what the image says of its user
  std::uint32_t attempt = 0;
  std::chrono::seconds restart_delay{0};
};
// Fails with a text for reason CreateContainerConfigError, e.g. runAsNonRoot and an image that runs as root.
Result<ContainerConfig> container_config(const PodSpec& spec, const ContainerSpec& c, const NodeSettings& node,
                                         ContainerInputs in);

}  // namespace hawser::agent
