// SPDX-License-Identifier: Apache-2.0
// TrafficOptions: what the configuration says about traffic, for every back end. A plain value: configuration fills it
// once at the start, nobody changes it later.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip.h"
#include "lib/base/result.h"

namespace hawser::proxy {

// How a packet is known to come from a pod (kube-proxy's detectLocalMode) [P59].
enum class DetectLocal : std::uint8_t {
  kCidr,             // ClusterCIDR and NodeCIDR: by source address, in `cluster_cidrs`
  kBridgeInterface,  // by the interface it came in, `local_interface`
  kInterfacePrefix,  // by the beginning of that interface's name, `local_interface`
  kNone,             // nothing is: no traffic to cluster IPs is masqueraded for its source
};

struct TrafficOptions {
  // kCidr: the cluster's ranges (ClusterCIDR) or this node's own (NodeCIDR), not overlapping. None of a family: no
  // source counts as off-cluster there.
  std::vector<Cidr> cluster_cidrs = {};
  DetectLocal detect_local = DetectLocal::kCidr;
  std::string local_interface = {};        // kBridgeInterface, kInterfacePrefix: 1 to 15 characters
  bool masquerade_all = false;             // everything to a cluster IP
  std::uint32_t masquerade_mark = 0x4000;  // one bit, 1 << masqueradeBit; kube-proxy's default is bit 14
  // Where node ports are served: those of this node's addresses that are in one of these. None of a family: on all of
  // that family. Loopback is a matter of LocalhostNodePorts, not of the rules. "primary" is the
  // node's own addresses as /32 and /128, see parse_node_port_addresses().
  std::vector<Cidr> node_port_addresses = {};
  bool icmp_echo = false;                // cluster IPs answer pings [P31]
  std::vector<Cidr> service_cidrs = {};  // where cluster IPs come from; an address there that no Service has is silent
  // False: IPVS chooses endpoints and translates; the rules decide who may, and whose source is replaced.
  bool translate = true;
  // While the mode is switched: Services' addresses are this node's own, and IPVS has connections to them. Clients that
  // are remembered are translated by the rules, whoever decides about the others.
  bool beside_ipvs = false;
};

// kube-proxy's nodePortAddresses: CIDRs, or the one word "primary", which stands for `node_addresses`.
[[nodiscard]] Result<std::vector<Cidr>> parse_node_port_addresses(const std::vector<std::string>& texts,
                                                                  const std::vector<IpAddr>& node_addresses);

// Without those that another of them contains, sorted. Ranges of a kernel set must not overlap.
[[nodiscard]] std::vector<Cidr> without_nested(std::vector<Cidr> ranges);

// True if node ports are served on `address`, one of this node's.
[[nodiscard]] bool serves_node_ports(const TrafficOptions& o, const IpAddr& address);

// The first mistake in `o`, by the name of its field.
[[nodiscard]] Result<> check(const TrafficOptions& o);

}  // namespace hawser::proxy
