// SPDX-License-Identifier: Apache-2.0
// The overlay of one address family as a plan: what should stand (OverlaySpec) against what stands (Observed) gives the
// writes, in an order that never routes a packet to an entry that is not there yet. Pure: no system call, no clock, no
// log.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/netlink/rtnl.h"
#include "lib/netlink/wireguard.h"

namespace hawser::overlay {

// The route that refuses the unused addresses of our own range gives way to everybody else's of the same range, such as
// that of a bridge which has it.
inline constexpr std::uint32_t kRestMetric = 0x7ffffffe;

struct Peer {
  std::string node;
  Cidr pod_cidr;
  IpAddr vtep;
  MacAddr mac;                        // of its tunnel device; not used when `direct`
  bool direct = false;                // a plain route by way of the peer's own address instead of tunnel entries
  std::optional<netlink::WgKey> key;  // WireGuard: the route alone leads into the device, which knows the rest
  bool operator==(const Peer&) const = default;
};

struct OverlaySpec {
  int family = 0;
  netlink::LinkSpec device;  // without a name: this back end has none
  int mtu = 0;               // for pods
  int underlay = 0;
  bool both_families = false;  // the device has the other family's address as well
  Cidr own_cidr;
  bool unreachable_rest = true;  // addresses of own_cidr that no pod has are refused, not sent up the default route
  std::vector<Peer> peers;
};

// The address the device gets, and the next hop peers use for our pods: the pod network's own address.
[[nodiscard]] IpAddr gateway_of(const Cidr& pod_cidr);

struct Observed {
  int device = 0;                           // 0: none
  std::vector<netlink::Address> addresses;  // on the device
  std::vector<netlink::Neigh> neighs, fdb;  // on the device
  std::vector<netlink::Route> routes;       // on the device, unreachable ones, and those by way of a gateway elsewhere
};

using Object = std::variant<netlink::Address, netlink::Neigh, netlink::Route>;
struct Op {
  netlink::Verb verb = netlink::Verb::kReplace;
  Object object;
  [[nodiscard]] std::string text() const;  // "set route 10.244.2.0/24 via 10.244.2.0"
  [[nodiscard]] const char* kind() const;  // "address", "neighbour", "fdb", "route"
  bool operator==(const Op&) const = default;
};

[[nodiscard]] std::vector<Op> plan(const OverlaySpec& spec, const Observed& observed);

}  // namespace hawser::overlay
