// SPDX-License-Identifier: Apache-2.0
// The nftables form of all host ports of a node: one table of ours, `hawser-hostport`, with a constant number of rules;
// each mapping is an element of a map.
//
//   prerouting, output (nat, before proxyd's):
//     dnat to (address . protocol . port) in @at4       a mapping with a hostIP
//     to an address of this node: dnat to (protocol . port) in @any4
//   postrouting:
//     translated, from 127.0.0.0/8, not to lo           masquerade: a pod cannot answer to the node's loopback
//     translated, (saddr . daddr) in @hairpin4          masquerade: a pod that calls itself
//     translated, saddr and daddr in @bridged4          masquerade: bridged pods would answer past the node
//
// The same for IPv6, but for the loopback rule: Linux cannot route ::1 off the host.
// Pure: what is wanted and what stands, to one transaction.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cni-plugin/capabilities.h"
#include "cni-plugin/ipam/record.h"
#include "lib/nft/transaction.h"

namespace hawser::cni {

inline constexpr const char* kHostPortTable = "hawser-hostport";

// What one attachment has published.
struct HostPortRecord {
  std::string network;
  ipam::Owner owner;
  std::vector<PortMapping> ports;
  std::vector<IpAddr> addresses;  // the container's, at most one of a family counts
  std::vector<Cidr> bridged;      // subnets of its bridge; empty in routed mode
  bool operator==(const HostPortRecord&) const = default;
};

using Elements = std::map<std::string, std::vector<nft::Element>>;  // by set, sorted by key

// The elements of all records; of two mappings with one key the first record's counts.
[[nodiscard]] Elements host_port_elements(const std::vector<HostPortRecord>& records);
[[nodiscard]] std::vector<nft::Chain> host_port_chains();
[[nodiscard]] std::vector<nft::Set> host_port_sets();
[[nodiscard]] std::vector<nft::Rule> host_port_rules();
// Chains, rules and sets are as we make them.
[[nodiscard]] bool host_port_table_right(const nft::TableState& have);
// From what stands to `want`; empty: nothing to do. Without any element wanted the table goes.
[[nodiscard]] nft::Transaction host_port_plan(const nft::TableState& have, const Elements& have_elements,
                                              const Elements& want);
// The first mapping that another record has; "" if none.
[[nodiscard]] std::string host_port_conflict(const HostPortRecord& wanted, const std::vector<HostPortRecord>& others);

}  // namespace hawser::cni
