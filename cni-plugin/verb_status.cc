// SPDX-License-Identifier: Apache-2.0
// STATUS: whether an ADD would succeed now. What is wrong with the node's network as a whole is as bad for the pods
// that are attached: code 51 while there are some, else 50. Addresses that are used up are no concern of theirs:
// always 50.
#include <algorithm>

#include "cni-plugin/call.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

// The node file is written when the network is ready and taken away with it. Its devices can go at any time: somebody
// removes them or sets them down while overlayd, which would put them right, does not run.
Result<std::string> network_fault(const Call& c, netlink::Rtnl& node) {
  const bool own_ranges = !c.conf.ranges.empty() || !c.conf.ipam_type.empty();
  if (!c.node) return own_ranges ? std::string() : c.node_fault;
  for (const auto& name : c.node->devices) {
    auto link = node.get_link(name);
    if (!link && is_not_found(link.error())) return fmt::format("interface {} is missing", name);
    if (!link) return propagate(link);
    if (!link->up) return fmt::format("interface {} is down", name);
    if (!link->carrier) return fmt::format("interface {} has no carrier", name);
  }
  return std::string();
}

}  // namespace

Outcome<std::string> do_status(Call& c) {
  auto node = netlink::KernelRtnl::open();
  if (!node) return as_failure(Code::kNotAvailable, node);
  auto fault = network_fault(c, *node);
  if (!fault) return as_failure(Code::kNotAvailable, fault);
  if (!fault->empty()) {
    auto links = node->list_links();
    if (!links) return as_failure(Code::kNotAvailable, links);
    const auto attached = std::ranges::count_if(*links, [&](const auto& l) { return is_host_link(l, c.conf.name); });
    if (attached == 0) return failure(Code::kNotAvailable, "the network is not ready: {}", *fault);
    return failure(Code::kLimitedConnectivity, "the network is not ready: {}; {} interfaces are attached to it", *fault,
                   attached);
  }
  if (auto r = c.addresses->status(c.conf); !r) return std::unexpected(r.error());
  return std::string();
}

}  // namespace hawser::cni
