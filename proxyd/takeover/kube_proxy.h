// SPDX-License-Identifier: Apache-2.0
// What kube-proxy leaves in the kernel when it ends, and taking that away: iptables chains KUBE-*, nftables tables
// kube-proxy, IPVS services with their device kube-ipvs0 and their sets. Only at an administrator's word
// (--cleanup-kube-proxy): another kube-proxy that still runs would make it all again.
//
// The kubelet's own chains (KUBE-FIREWALL of the filter table, KUBE-KUBELET-CANARY, KUBE-MARK-DROP, ...) stay, and so
// do the masquerade chains while somebody else's chain jumps to them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl.h"
#include "lib/nft/runner.h"

namespace hawser::proxy {

// What iptables-restore --noflush must be given to remove kube-proxy's chains from `saved`, the output of
// iptables-save; "" when there are none. Pure.
[[nodiscard]] std::string iptables_cleanup(std::string_view saved);

// Runs a program of the machine with `input` as its standard input and returns what it printed; empty if it is not
// installed.
using RunProgram =
    std::function<Result<std::optional<std::string>>(const std::vector<std::string>& argv, const std::string& input)>;
Result<std::optional<std::string>> run_program(const std::vector<std::string>& argv, const std::string& input);

struct KubeProxyLeftovers {
  nft::NftRunner& nft;
  netlink::Rtnl& rtnl;
  netlink::Ipvs& ipvs;
  RunProgram run = run_program;
};
// Removes all of it. Parts that the machine cannot have (no iptables, no IPVS) are passed over; returns one sentence
// for each part that was there.
Result<std::vector<std::string>> remove_kube_proxy(const KubeProxyLeftovers& in);

}  // namespace hawser::proxy
