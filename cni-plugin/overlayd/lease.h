// SPDX-License-Identifier: Apache-2.0
// Lease: what a Node object says about that node's part of the overlay, in flannel's annotations (FEATURES O32), so
// that Hawser and flannel nodes form one overlay. And the reverse: the patch that publishes our own. Pure, any thread.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/ip.h"
#include "lib/kube/object.h"
#include "lib/netlink/wireguard.h"

namespace hawser::overlay {

inline constexpr std::string_view kDefaultAnnotationPrefix = "flannel.alpha.coreos.com";

// The end of a tunnel, one for each address family of the underlay.
struct Vtep {
  IpAddr address;  // invalid: none
  std::optional<MacAddr> mac;
  std::uint32_t vni = 0;
  std::optional<netlink::WgKey> public_key;  // in place of MAC and VNI: WireGuard
  bool operator==(const Vtep&) const = default;
};

// The object in which flannel tells a tunnel's end to others, and its reverse; null: there is nothing to tell.
[[nodiscard]] kube::Value backend_data(const Vtep& v);
void read_backend_data(const kube::Object& data, Vtep& v);

struct Lease {
  std::string node;
  std::vector<Cidr> pod_cidrs;  // at most one of each family
  std::string backend;          // "vxlan"; empty: nothing was published yet
  Vtep v4, v6;
  [[nodiscard]] const Vtep& vtep(int family) const;
  [[nodiscard]] Vtep& vtep(int family);
  [[nodiscard]] Cidr pod_cidr(int family) const;  // invalid: none
  bool operator==(const Lease&) const = default;
};

// Annotations that cannot be read are as if absent: a peer's mistake must not stop the others.
[[nodiscard]] Lease read_lease(const kube::Object& node, std::string_view prefix);
// Leaves of a Node what this header reads; conditions only `with_conditions`. A kubelet's Node is twenty times as
// large.
void trim_node(kube::Object& node, std::string_view prefix, bool with_conditions);
// What annotations `public-ip-overwrite` (flannel's) or `node-public-ip` (k3s') order to be told to peers.
[[nodiscard]] IpAddr overwritten_address(const kube::Object& node, std::string_view prefix, int family);
// The node's InternalIP of that family, or an invalid address.
[[nodiscard]] IpAddr internal_ip(const kube::Object& node, int family);

// A condition of the Node beside NetworkUnavailable.
struct NodeCondition {
  std::string type, status, reason, message;
  bool operator==(const NodeCondition&) const = default;
};

struct Publication {
  Lease lease;
  std::string prefix{kDefaultAnnotationPrefix};
  bool network_available = true;  // set condition NetworkUnavailable=False too
  std::optional<NodeCondition> condition;
};
// The strategic merge patch for nodes/status; nullopt: the node says all that already.
[[nodiscard]] std::optional<kube::Value> publication_patch(const kube::Object& node, const Publication& p,
                                                           WallTime now);

}  // namespace hawser::overlay
