// SPDX-License-Identifier: Apache-2.0
// The overlay of one address family as a plan: what should stand (OverlaySpec) against what stands (Observed) gives the
// writes, in an order that never routes a packet to an entry that is not there yet. Pure: no system call, no clock, no
// log.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "cni-plugin/overlayd/lease.h"
#include "lib/netlink/rtnl.h"

namespace hawser::overlay {

// Bytes that the tunnel adds to an inner packet, which with its own Ethernet header is carried whole.
inline constexpr int kEthernetBytes = 14;
inline constexpr int kUdpBytes = 8;
inline constexpr int kVxlanBytes = 8;
[[nodiscard]] constexpr int overhead_bytes(bool underlay_is_v4) {
  constexpr int kIpv4Bytes = 20;
  constexpr int kIpv6Bytes = 40;
  return kEthernetBytes + (underlay_is_v4 ? kIpv4Bytes : kIpv6Bytes) + kUdpBytes + kVxlanBytes;
}

inline constexpr std::uint32_t kDefaultVni = 1;
inline constexpr std::uint16_t kDefaultPort = 8472;  // Linux' own default, and so flannel's

struct Peer {
  std::string node;
  Cidr pod_cidr;
  IpAddr vtep;
  MacAddr mac;
  bool operator==(const Peer&) const = default;
};

struct OverlaySpec {
  int family = 0;
  netlink::LinkSpec device;
  Cidr own_cidr;
  bool unreachable_rest = true;  // addresses of own_cidr that no pod has are refused, not sent up the default route
  std::vector<Peer> peers;
};

struct Settings {
  std::uint32_t vni = kDefaultVni;
  std::uint16_t port = kDefaultPort;
  bool unreachable_rest = true;
};
// The underlay of one family on this node.
struct Underlay {
  int index = 0;
  int mtu = 0;
  IpAddr address;
};

[[nodiscard]] std::string device_name(int family, std::uint32_t vni);  // "flannel.1", "flannel-v6.1"
// The address the device gets, and the next hop peers use for our pods: the pod network's own address.
[[nodiscard]] IpAddr gateway_of(const Cidr& pod_cidr);

// `skipped` gets a sentence for each peer that could not be used (overlapping pod CIDRs, another VNI).
[[nodiscard]] OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, int family,
                                    const Underlay& underlay, const Settings& settings,
                                    std::vector<std::string>& skipped);

struct Observed {
  int device = 0;
  std::vector<netlink::Address> addresses;  // on the device
  std::vector<netlink::Neigh> neighs, fdb;  // on the device
  std::vector<netlink::Route> routes;       // on the device, and every unreachable one of ours
};

using Object = std::variant<netlink::Address, netlink::Neigh, netlink::Route>;
struct Op {
  netlink::Verb verb = netlink::Verb::kReplace;
  Object object;
  [[nodiscard]] std::string text() const;  // "set route 10.244.2.0/24 via 10.244.2.0"
  bool operator==(const Op&) const = default;
};

[[nodiscard]] std::vector<Op> plan(const OverlaySpec& spec, const Observed& observed);

}  // namespace hawser::overlay
