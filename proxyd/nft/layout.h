// SPDX-License-Identifier: Apache-2.0
// The constant part of the table `inet hawser-proxy`: its sets, chains and rules, and the names of all that is in it.
// Pure.
//
// One inet table serves both families: NodePort and reject rules are the same for both, and one transaction changes
// both at one instant. Sets exist once a family, because their keys have other lengths.
//
// A frontend is an element of `services*` or `node-ports*`, whose verdict jumps to a pick chain. There is one pick
// chain for each combination of family, kind, reach, number of targets and affinity time that is in use, so the number
// of rules does not depend on the number of Services. Its targets are elements of `endpoints*` with the slot number as
// the last part of the key. README.md walks a connection through the rules.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include "lib/base/ip.h"
#include "lib/nft/object.h"
#include "lib/nft/rule.h"
#include "proxyd/model/options.h"

namespace hawser::proxy {

inline constexpr const char* kTable = "hawser-proxy";
inline constexpr nft::Family kTableFamily = nft::Family::kInet;
inline constexpr const char* kRejectChain = "reject-no-endpoint";

using LayoutOptions = TrafficOptions;

// Packet mark bits, set in prerouting or output and cleared in postrouting. That of masquerade is an option: 0x4000 is
// kube-proxy's, and people's firewalls know it. A mark must not outlive postrouting, or the VXLAN packet around this
// one would be masqueraded as well.
inline constexpr std::uint32_t kAffinityMark = 0x2000;
[[nodiscard]] std::uint32_t affinity_mark(const LayoutOptions& o);  // another if the masquerade bit is that one

// Sets of one family by role. `local` is the second look-up of externalTrafficPolicy Local.
enum class SetRole : std::uint8_t {
  kServices,
  kLocalServices,
  kNodePorts,
  kLocalNodePorts,  // frontend -> verdict
  kEndpoints,
  kLocalEndpoints,
  kNodePortEndpoints,
  kLocalNodePortEndpoints,  // frontend . slot -> target
  kAffinityServices,
  kAffinityNodePorts,  // frontend -> how long to remember
  kAffinity,
  kNodePortAffinity,  // client . frontend -> target, by rules
  kHairpin,           // address . same address
  kLimited,           // frontends with source ranges
  kSources,           // frontend . range
  kClusterIps,        // addresses
  kLeft,              // UDP and SCTP frontends that are gone (a node port has address 0), for some time
  kPods,
  kNodePortAddresses,
  kServiceRanges,  // ranges, from the options
};
// How long such a frontend that went is remembered in the kernel, for the case that this process dies before its flows
// are removed.
inline constexpr std::uint64_t kLeftMs = 24 * 3600 * 1000;

[[nodiscard]] const std::vector<SetRole>& all_roles();
[[nodiscard]] std::string set_name(SetRole role, int family);
// What the options say a set of ranges holds; empty for every other role.
[[nodiscard]] std::vector<Cidr> fixed_ranges(SetRole role, int family, const LayoutOptions& o);
[[nodiscard]] nft::Set set_spec(SetRole role, int family);

enum class PickReach : std::uint8_t { kInternal, kExternal, kLocal };
struct PickChain {
  int family = 0;
  bool node_port = false;
  PickReach reach = PickReach::kInternal;
  std::uint32_t count = 0;  // of targets; 0 only for kLocal: traffic from outside is dropped
  std::uint32_t affinity_seconds = 0;
  auto operator<=>(const PickChain&) const = default;
};
[[nodiscard]] std::string chain_name(const PickChain& c);
[[nodiscard]] std::vector<nft::Rule> pick_rules(const PickChain& c, const LayoutOptions& o);

// Chains that remember the target of a new connection for `seconds`.
struct RememberChain {
  int family = 0;
  bool node_port = false;
  std::uint32_t seconds = 0;
  auto operator<=>(const RememberChain&) const = default;
};
[[nodiscard]] std::string chain_name(const RememberChain& c);
[[nodiscard]] std::vector<nft::Rule> remember_rules(const RememberChain& c);

[[nodiscard]] const std::vector<nft::Chain>& fixed_chains();
[[nodiscard]] std::vector<nft::Rule> fixed_rules(const LayoutOptions& o);  // of all fixed chains, in order

// Of the rule through which new connections come to the others, when IPVS chooses their endpoints. It changes with the
// rules in one transaction, so it tells who decides.
inline constexpr const char* kIpvsDecides = "new connections: IPVS";
[[nodiscard]] bool ipvs_decides(const nft::TableState& table);

// The look-up key of a frontend: address (unless a node port), protocol, port.
[[nodiscard]] std::vector<nft::Field> frontend_key(int family, bool node_port);

}  // namespace hawser::proxy
