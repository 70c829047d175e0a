// SPDX-License-Identifier: Apache-2.0
// Plans of the IPVS back end: which virtual services, addresses and kernel settings a DesiredState means, and what to
// write to come from what the kernel has to that. Pure: no kernel, no clock, no log.
//
// A frontend is one virtual service, a node port one for each address of this node that serves node ports. Addresses
// of frontends are put on a device of ours, so that packets to them come where IPVS looks. Who may use a frontend,
// refusal without endpoints and masquerade are rules of the nftables table (nft/layout.h), which rules_of() feeds.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/netlink/ipvs.h"
#include "proxyd/model/desired_state.h"
#include "proxyd/model/options.h"

namespace hawser::proxy {

inline constexpr const char* kIpvsDevice = "hawser-ipvs0";
inline constexpr const char* kKubeIpvsDevice = "kube-ipvs0";  // kube-proxy's, with the same addresses

struct IpvsOptions {
  std::string scheduler = "rr";
  std::vector<Cidr> exclude = {};  // virtual services at these addresses that we do not want are others' and stay
  bool strict_arp = false;         // the node answers ARP for an address only where it has it
  netlink::IpvsTimeouts timeouts = {};
  // kube-proxy's device and virtual services are ours now.
  bool adopt = false;
  // Connections of a TCP endpoint that went may go on for so long, and all that IPVS has when another mode comes.
  Nanos drain_limit = std::chrono::minutes(15);
};

// "" is rr. An error lists what there is.
[[nodiscard]] Result<std::string> parse_scheduler(std::string_view name);

// What a virtual service is apart from its key. A target of weight 0 gets no new connections.
struct VirtualService {
  std::string scheduler;
  std::uint32_t persistence_seconds = 0;
  std::map<Target, std::uint32_t> weights;
  bool operator==(const VirtualService&) const = default;
};
using VirtualServices = std::map<netlink::IpvsKey, VirtualService>;

// This node's addresses apart from those on our device, sorted.
struct NodeAddresses {
  std::vector<IpAddr> all;
  std::vector<IpAddr> node_ports;  // those of them that serve node ports
  bool operator==(const NodeAddresses&) const = default;
};
[[nodiscard]] NodeAddresses node_addresses(std::vector<IpAddr> on_other_links, const TrafficOptions& o);

// The keys under which IPVS has a frontend.
[[nodiscard]] std::vector<netlink::IpvsKey> keys_of(const Frontend& f, const NodeAddresses& node);
// Of several Services that claim a frontend the first by name has it.
[[nodiscard]] VirtualServices virtual_services(const DesiredState& s, const NodeAddresses& node, const IpvsOptions& o);
// What our device must have, sorted. An address that the node has elsewhere is local already.
[[nodiscard]] std::vector<IpAddr> device_addresses(const DesiredState& s, const NodeAddresses& node);

// The options of the rules beside IPVS.
[[nodiscard]] TrafficOptions rules_options(TrafficOptions o);
// `s` for rules that stand beside addresses of Services on our device: their ports that no Service has are refused.
// Without that they would reach the node's own sockets.
[[nodiscard]] ServiceState beside_of(const ServiceState& s, const NodeAddresses& node);
// The same, for rules that leave the choice to IPVS: that a frontend has endpoints, not which; no affinity.
[[nodiscard]] ServiceState rules_of(const ServiceState& s, const NodeAddresses& node);

struct ServiceChange {
  netlink::IpvsVerb verb;
  netlink::IpvsService service;
};
struct DestinationChange {
  netlink::IpvsVerb verb;
  netlink::IpvsKey service;
  netlink::IpvsDestination destination;
};
// Between the two halves the rules change: nothing is let through that IPVS does not know yet, and nothing is taken
// from IPVS that is still let through.
struct IpvsPlan {
  std::vector<ServiceChange> services;    // first half: new and changed
  std::vector<DestinationChange> serve;   // first half: new, and other weights
  std::vector<DestinationChange> retire;  // second half: to weight 0; UDP and SCTP, which do not drain: deleted
  std::vector<netlink::IpvsKey> gone;     // second half
  [[nodiscard]] std::size_t size() const { return services.size() + serve.size() + retire.size() + gone.size(); }
};
[[nodiscard]] IpvsPlan plan_ipvs(const VirtualServices& have, const VirtualServices& want,
                                 const std::vector<Cidr>& exclude);

// Targets that only wait for their connections to end: of weight 0, and not wanted at all.
using Draining = std::set<std::pair<netlink::IpvsKey, Target>>;
[[nodiscard]] Draining draining_of(const VirtualServices& have, const VirtualServices& want);

// Key and value, in order. `release` is the kernel's ("6.1.0-18-amd64").
[[nodiscard]] std::vector<std::pair<std::string, std::string>> ipvs_sysctls(const IpvsOptions& o,
                                                                            std::string_view release);

}  // namespace hawser::proxy
