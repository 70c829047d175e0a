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

// The same for taking over: of the table nat only the jumps through which new connections come to kube-proxy's chains.
// A packet that is in those chains just then still finds its masquerade.
[[nodiscard]] std::string iptables_release(std::string_view saved);

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
// The processes named kube-proxy in this network namespace, as far as this process may see them.
[[nodiscard]] std::vector<int> kube_proxy_processes();
// Whether new connections come to chains of kube-proxy's.
Result<bool> has_kube_proxy_rules(const KubeProxyLeftovers& in);
// For a node that we serve already: new connections stop coming to kube-proxy's chains and tables at one instant each,
// then they go. Of IPVS only the device, and that only if `device`: virtual services are our back end's by then.
Result<std::vector<std::string>> take_over_kube_proxy(const KubeProxyLeftovers& in, bool device);

// Removes all of it. Parts that the machine cannot have (no iptables, no IPVS) are passed over; returns one sentence
// for each part that was there.
Result<std::vector<std::string>> remove_kube_proxy(const KubeProxyLeftovers& in);

}  // namespace hawser::proxy
