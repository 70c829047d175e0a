// SPDX-License-Identifier: Apache-2.0
// The plan of a switch of modes: which steps lead from what the kernel has to the mode that is wanted. Pure.
//
// Nothing is remembered of a switch but what the kernel shows, and each step may be done twice. So a process that was
// killed anywhere in the middle, and one whose configuration changes back half way, need no more than to plan again.
//
// Both modes use one table, whose rules say who decides about new connections; they change in one transaction, which is
// the instant of the switch. Before it and after it the rules are those "beside": right for both, with Services'
// addresses on a device of this node and connections in IPVS. Established connections never ask: conntrack translates
// those of the table, and those of IPVS find their entry there as long as their virtual service is kept.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace hawser::proxy {

enum class Mode : std::uint8_t { kNftables, kIpvs };
[[nodiscard]] std::string_view mode_name(Mode m);  // kube-proxy's word

// What the kernel shows.
struct SwitchFacts {
  bool table = false;              // our table is there
  Mode decides = Mode::kNftables;  // who its rules let decide about new connections
  bool ipvs = false;               // a device of mode ipvs is there, ours or one to be taken over
  bool clients = false;            // the table remembers clients of Services with affinity
  bool operator==(const SwitchFacts&) const = default;
};

enum class Step : std::uint8_t {
  kCheckIpvs,       // the kernel has it
  kTableDecides,    // rules beside IPVS, the table decides: from IPVS this is the instant of the switch
  kIpvsDecides,     // rules beside IPVS, IPVS decides: from the table this is the instant
  kFillIpvs,        // virtual services and addresses
  kVerifyIpvs,      // nothing of them is lacking, by a new reading
  kVerifyTable,     // the table is as wanted, by a new reading
  kClients,         // whom IPVS remembers, the table shall too
  kDrain,           // ends the plan unless IPVS has no connections, or its time is over
  kRemoveIpvs,      // virtual services and device
  kOnlyTable,       // the table as it is without IPVS
  kOnlyIpvs,        // IPVS and its rules, endpoints known to IPVS alone
  kIpvsAndClients,  // the same, but clients that the table remembers go where it says
};
[[nodiscard]] std::string_view step_name(Step s);  // for people: "fill IPVS"

// In order; the last one is how the node stays until something changes.
[[nodiscard]] std::vector<Step> plan_switch(Mode want, const SwitchFacts& facts);

}  // namespace hawser::proxy
