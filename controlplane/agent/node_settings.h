// SPDX-License-Identifier: Apache-2.0
// What the command line and the machine tell the agent once; constant while it runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hawser::agent {

struct NodeSettings {
  std::string node_name, node_ip;
  std::string root_dir = "/var/lib/hawser-agent";
  std::string pod_log_dir = "/var/log/pods";
  std::string cgroup_parent;  // under which pods get their cgroups; empty: "kubepods"
  std::string cgroup_root = "/sys/fs/cgroup";
  std::vector<std::string> cluster_dns;  // empty: pods use the node's resolver
  std::string cluster_domain = "cluster.local";
  std::string resolv_conf = "/etc/resolv.conf";
  std::string hosts_file = "/etc/hosts";
  int max_pods = 110;
  std::uint16_t port = 10250;
  std::int64_t capacity_milli_cpu = 0;  // read from the machine at start
  std::int64_t capacity_memory_bytes = 0;

  [[nodiscard]] std::string pod_dir(const std::string& uid) const { return root_dir + "/pods/" + uid; }
};

}  // namespace hawser::agent
