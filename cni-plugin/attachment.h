// SPDX-License-Identifier: Apache-2.0
// Attachment: the kernel objects that join one pod interface to the node, in routed mode.
//
//   pod namespace                              node
//   eth0  10.244.1.5/32                        hw<hash>  (no address)
//     default via 169.254.1.1 onlink             10.244.1.5/32 dev hw<hash>
//     169.254.1.1 -> MAC of hw<hash>, permanent  10.244.1.5 -> MAC of eth0, permanent
//
// Neither side ever asks who has an address: both neighbour entries are permanent, so the first packet leaves at once
// and no broadcast exists. IPv6 is the same with fe80::1. Names and MACs follow from owner and address, so nothing has
// to be remembered.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cni-plugin/ipam/record.h"
#include "lib/netlink/rtnl.h"

namespace hawser::cni {

// The node-side name: "hw", 3 characters of the network's hash, 10 of the owner's: 15 in all. The first five are
// host_link_prefix(), by which GC finds a network's links.
inline constexpr std::size_t kHostLinkChars = 15;
[[nodiscard]] std::string host_link_name(std::string_view network, const ipam::Owner& owner);
[[nodiscard]] std::string host_link_prefix(std::string_view network);
[[nodiscard]] bool is_host_link(const netlink::Link& link, std::string_view network);

[[nodiscard]] IpAddr link_local_gateway(int family);  // 169.254.1.1 or fe80::1
[[nodiscard]] MacAddr pod_mac(const IpAddr& first);   // 0a:58 and the last four bytes of the pod's first address
[[nodiscard]] MacAddr host_mac(const IpAddr& first);  // 0e:58 and the same

struct AttachmentSpec {
  std::string host_name;
  std::string ifname;
  int netns_fd = -1;
  int mtu = 0;
  std::optional<MacAddr> mac;                // of the pod; else one from its first address
  std::vector<IpAddr> addresses;             // of the pod; not empty
  std::vector<netlink::Route> extra_routes;  // dst only, through the same gateway
  // Runs when the pod's interface exists and is still down: the place for per-interface sysctls.
  std::function<Result<>()> before_up = [] { return Result<>{}; };
};

[[nodiscard]] MacAddr pod_mac(const AttachmentSpec& spec);

// All or nothing: on failure what was made is gone again. EEXIST: one of the two names is taken.
Result<> attach(netlink::Rtnl& node, netlink::Rtnl& pod, const AttachmentSpec& spec);
// Succeeds if the link is gone afterwards. Everything else hangs on the link and goes with it.
Result<> detach(netlink::Rtnl& node, const std::string& host_name);
// The first difference between kernel and spec as a sentence; empty: all is as it should be.
Result<std::string> attachment_fault(netlink::Rtnl& node, netlink::Rtnl& pod, const AttachmentSpec& spec);

}  // namespace hawser::cni
