// SPDX-License-Identifier: Apache-2.0
// NodeFile: what overlayd tells the plugin about this node: <run-dir>/node.json. Written only when the network is
// ready, replaced atomically; its absence means "not ready". Unknown keys are ignored, so either side may be newer.
// Pure but for load().
//
//   {"version":1,"node":"node-1","podCIDRs":["10.244.1.0/24"],"clusterCIDRs":["10.244.0.0/16"],"mtu":1450,
//    "devices":["flannel.1"]}   without which other nodes are out of reach; may be absent
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip.h"

namespace hawser::cni {

struct NodeFile {
  std::string node;
  std::vector<Cidr> pod_cidrs;  // at most one of each family, the primary family first
  std::vector<Cidr> cluster_cidrs;
  int mtu = 0;
  std::vector<std::string> devices;
  bool operator==(const NodeFile&) const = default;

  static Result<NodeFile> parse(std::string_view json);
  static Result<NodeFile> load(const std::string& path);  // ENOENT: the network is not ready
  [[nodiscard]] std::string text() const;
};

}  // namespace hawser::cni
