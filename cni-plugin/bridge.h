// SPDX-License-Identifier: Apache-2.0
// Bridge mode: the attachment as the reference plugin `bridge` makes it for flannel (FEATURES C70, C71), for nodes
// whose tools expect a `cni0`.
//
//   pod namespace                      node
//   eth0  10.244.1.5/24                hw<hash>, a port of cni0
//     default via 10.244.1.1           cni0  10.244.1.1/24
//
// The bridge is shared: made by whoever comes first, never removed. Its MAC is set, since a bridge without one changes
// it with its ports. One that has another address of the same family, and none of ours, is refused unless forceAddress
// is set. After a change of the node's subnet it has the gateways of both until the last pod of the former one is gone
// (FEATURES X11). Ours is what is the gateway of a subnet that has a pool in our store; nothing else is removed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cni-plugin/bridge_options.h"
#include "lib/netlink/rtnl.h"

namespace hawser::cni {

struct BridgeAddress {
  Cidr pod;        // with the subnet's prefix
  IpAddr gateway;  // invalid: none
};

struct BridgeSpec {
  BridgeOptions bridge;
  std::string host_name, ifname;
  int netns_fd = -1;
  int mtu = 0;
  std::optional<MacAddr> mac;            // of the pod; else one from its first address
  std::vector<BridgeAddress> addresses;  // not empty
  std::vector<Cidr> routes;              // further destinations, through the gateway of their family
  std::vector<Cidr> former;              // gateways that the bridge had from us for earlier subnets
  std::function<Result<>()> before_up = [] { return Result<>{}; };
};

[[nodiscard]] MacAddr pod_mac(const BridgeSpec& s);
// All or nothing, but for the bridge, which stays. EEXIST: a name is taken; EADDRINUSE: the bridge has another address.
Result<> attach_to_bridge(netlink::Rtnl& node, netlink::Rtnl& pod, const BridgeSpec& spec);
// Takes a former gateway off the bridge. Other addresses of its subnet stay.
Result<> drop_gateway(netlink::Rtnl& node, const std::string& bridge, const Cidr& gateway);
Result<std::string> bridge_fault(netlink::Rtnl& node, netlink::Rtnl& pod, const BridgeSpec& spec);

}  // namespace hawser::cni
