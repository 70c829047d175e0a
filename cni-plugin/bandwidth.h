// SPDX-License-Identifier: Apache-2.0
// Bandwidth limits of one attachment (FEATURES C32), with the reference plugin's objects and figures:
//
//   to the pod:   a token bucket (tbf) as the root queue of the node's end
//   from the pod: what arrives at the node's end is redirected to an ifb device, whose root queue is such a bucket
//
// Bucket and filter hang on the node's end and go with it; the ifb is a link of its own, so it is made after that link
// and removed before it: one without its link can only be a leak. Main thread.
#pragma once

#include <string>

#include "cni-plugin/capabilities.h"
#include "lib/netlink/rtnl.h"

namespace hawser::cni {

[[nodiscard]] std::string ifb_name(std::string_view host_link);  // "hb", then the host link's name after its "hw"
[[nodiscard]] std::string host_link_of_ifb(std::string_view ifb);
[[nodiscard]] bool is_ifb_name(std::string_view name);

// In the calling thread's namespace. On failure what was made may remain: the caller removes both links.
Result<> limit_bandwidth(netlink::Rtnl& node, const netlink::Link& host, const Bandwidth& b);
// The first difference as a sentence; empty: all is as it should be.
Result<std::string> bandwidth_fault(netlink::Rtnl& node, const netlink::Link& host, const Bandwidth& b);

}  // namespace hawser::cni
