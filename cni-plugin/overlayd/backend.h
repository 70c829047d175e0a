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

// What WireGuard adds, as flannel counts it whatever the underlay: IPv6 header 40, UDP 8, its own 32.
inline constexpr int kWireguardOverheadBytes = 80;

inline constexpr int kSmallestPodMtu = 576;  // what an IPv4 host must accept
inline constexpr int kSmallestMtu = kSmallestPodMtu + vxlan_overhead_bytes(false);

// flannel's "Mode": a device for each family of pods over the underlay of that family, or one device for both, its
// tunnel over what both ends have, over IPv4, or over IPv6.
enum class WireguardMode { kSeparate, kAuto, kIpv4, kIpv6 };
// By flannel's word: "separate", "auto", "ipv4", "ipv6".
[[nodiscard]] std::optional<WireguardMode> parse_wireguard_mode(std::string_view text);

struct WireguardSettings {
  WireguardMode mode = WireguardMode::kSeparate;
  std::uint16_t port = 51820;
  std::uint16_t port_v6 = 51821;  // of the second device, if there are two
  std::uint16_t keepalive_seconds = 0;
  netlink::WgKey preshared_key;  // none: all zero
  std::string key_file = "/run/hawser/wgkey";
  [[nodiscard]] bool one_device() const { return mode != WireguardMode::kSeparate; }
};

struct Settings {
  std::string backend{kDefaultBackend};
  std::uint32_t vni = kDefaultVni;
  std::uint16_t port = kDefaultPort;
  int mtu = 0;                  // of the underlay, when it is not what the link says; 0: the link's
  bool direct_routing = false;  // vxlan: peers on our segment get a plain route
  bool unreachable_rest = true;
  WireguardSettings wireguard;
};

// The underlay of one family of pods on this node.
struct Underlay {
  int pods = 0;  // their family; 0: that of `address`
  int index = 0;
  int mtu = 0;
  IpAddr address;
  std::vector<netlink::Route> routes;  // those of others, for adjacent()
};
// The most specific route to `address`, or null; `routes` of any family.
[[nodiscard]] const netlink::Route* route_to(const std::vector<netlink::Route>& routes, const IpAddr& address);
// `address` is reached over the underlay's link with no gateway between.
[[nodiscard]] bool adjacent(const Underlay& underlay, const IpAddr& address);

enum class DeviceKind {
  kNone,
  kVxlan,     // the lease tells its MAC and VNI
  kWireguard  // the lease tells its public key
};
struct Backend {
  std::string_view name;
  DeviceKind device = DeviceKind::kNone;
  bool peers = true;  // false: other nodes' pods are somebody else's business
  [[nodiscard]] bool tunnel() const { return device != DeviceKind::kNone; }
};
[[nodiscard]] std::span<const Backend> backends();
// Null: there is none of that name.
[[nodiscard]] const Backend* find_backend(std::string_view name);
// "vxlan, host-gw, wireguard, none"
[[nodiscard]] std::string backend_names();

[[nodiscard]] std::string device_name(int family, std::uint32_t vni);             // "flannel.1", "flannel-v6.1"
[[nodiscard]] std::string wireguard_device_name(int family, WireguardMode mode);  // "flannel-wg", "flannel-wg-v6"
[[nodiscard]] std::uint16_t wireguard_port(int family, const WireguardSettings& settings);
// Where `peer` is reached for pods of `family`: of two addresses the one that is more likely to work, as flannel
// chooses: IPv4 unless only IPv6 is public on both sides. Invalid: nowhere.
[[nodiscard]] IpAddr wireguard_address(const Lease& own, const Lease& peer, int family, WireguardMode mode);

// `skipped` gets a sentence for each peer that could not be used (overlapping pod CIDRs, another VNI).
// settings.backend is a row of backends().
[[nodiscard]] OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, const Underlay& underlay,
                                    const Settings& settings, std::vector<std::string>& skipped);

}  // namespace hawser::overlay
