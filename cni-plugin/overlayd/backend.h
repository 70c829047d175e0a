// SPDX-License-Identifier: Apache-2.0
// Backend: how packets reach the pods of other nodes. The second of two axes; the first, where leases come from, is
// subnet_source.h, and neither names the other. A back end is one row of backends(): what it needs of the underlay and
// what a peer becomes. make_spec() joins the row with the leases; from there on (plan, apply, repair) all are one path.
// Pure, any thread.
//
// Peers of another back end than ours are joined as well where that works in both directions, so that a cluster which
// is being changed node by node stays whole: a host-gw node on our own segment, and VXLAN nodes for a VXLAN node.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cni-plugin/overlayd/lease.h"
#include "cni-plugin/overlayd/overlay_plan.h"

namespace hawser::overlay {

inline constexpr std::string_view kDefaultBackend = "vxlan";
inline constexpr std::uint32_t kDefaultVni = 1;
inline constexpr std::uint16_t kDefaultPort = 8472;  // Linux' own default, and so flannel's

// Bytes that VXLAN adds to an inner packet, which with its own Ethernet header is carried whole.
inline constexpr int kEthernetBytes = 14;
inline constexpr int kUdpBytes = 8;
inline constexpr int kVxlanBytes = 8;
[[nodiscard]] constexpr int vxlan_overhead_bytes(bool underlay_is_v4) {
  constexpr int kIpv4Bytes = 20;
  constexpr int kIpv6Bytes = 40;
  return kEthernetBytes + (underlay_is_v4 ? kIpv4Bytes : kIpv6Bytes) + kUdpBytes + kVxlanBytes;
}

inline constexpr int kSmallestPodMtu = 576;  // what an IPv4 host must accept
inline constexpr int kSmallestMtu = kSmallestPodMtu + vxlan_overhead_bytes(false);

struct Settings {
  std::string backend{kDefaultBackend};
  std::uint32_t vni = kDefaultVni;
  std::uint16_t port = kDefaultPort;
  int mtu = 0;                  // of the underlay, when it is not what the link says; 0: the link's
  bool direct_routing = false;  // vxlan: peers on our segment get a plain route
  bool unreachable_rest = true;
};

// The underlay of one family on this node.
struct Underlay {
  int index = 0;
  int mtu = 0;
  IpAddr address;
  std::vector<netlink::Route> routes;  // those of others, for adjacent()
};
// The most specific route to `address`, or null; `routes` of any family.
[[nodiscard]] const netlink::Route* route_to(const std::vector<netlink::Route>& routes, const IpAddr& address);
// `address` is reached over the underlay's link with no gateway between.
[[nodiscard]] bool adjacent(const Underlay& underlay, const IpAddr& address);

struct Backend {
  std::string_view name;
  bool tunnel = false;  // has a device, with a MAC and a VNI that the lease tells
  bool peers = true;    // false: other nodes' pods are somebody else's business
};
[[nodiscard]] std::span<const Backend> backends();
// Null: there is none of that name.
[[nodiscard]] const Backend* find_backend(std::string_view name);
// "vxlan, host-gw, none"
[[nodiscard]] std::string backend_names();

[[nodiscard]] std::string device_name(int family, std::uint32_t vni);  // "flannel.1", "flannel-v6.1"

// `skipped` gets a sentence for each peer that could not be used (overlapping pod CIDRs, another VNI).
// settings.backend is a row of backends().
[[nodiscard]] OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, const Underlay& underlay,
                                    const Settings& settings, std::vector<std::string>& skipped);

}  // namespace hawser::overlay
