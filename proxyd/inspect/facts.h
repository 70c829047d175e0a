// SPDX-License-Identifier: Apache-2.0
// What the inspect answers are made from: the model on one side, the kernel as it was read back on the other. Plain
// values; Inspector gathers them, tests write them down.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/netlink/conntrack.h"
#include "proxyd/ipvs/plan.h"
#include "proxyd/model/options.h"
#include "proxyd/model/tracker.h"
#include "proxyd/nft/plan.h"

namespace hawser::proxy {

struct ModelFacts {
  std::string node;  // its name
  NodeInfo info;
  TrafficOptions options;
  DesiredStatePtr state;                        // never null
  DesiredStatePtr rules = {};                   // mode ipvs: what the rules are made from; null: `state`
  std::optional<std::uint64_t> applied;         // generation of the last successful sync
  bool pending = false;                         // changes that no state has yet
  std::map<std::string, ServiceView> services;  // those that the question is about
  // True if the kernel is expected to have `state` exactly.
  [[nodiscard]] const DesiredState& rules_state() const { return rules ? *rules : *state; }
  [[nodiscard]] bool settled() const { return !pending && applied == state->generation; }
};

// A client that the kernel remembers for a frontend with session affinity.
struct Remembered {
  IpAddr client;
  SideId frontend;
  Target target;
};

struct KernelFacts {
  Found found;
  std::uint32_t ruleset = 0;           // nftables' own generation
  std::vector<IpAddr> addresses;       // of this node
  std::vector<Remembered> remembered;  // of the client that is asked about
  std::vector<netlink::Flow> flows;    // of that client to that destination
};

// Mode ipvs: the table has the rules beside IPVS, and IPVS the endpoints.
struct IpvsFacts {
  NodeAddresses node;
  std::vector<Cidr> exclude;                        // where virtual services may be others'
  VirtualServices wanted, found;                    // `found`: those that the question is about
  std::vector<IpAddr> wanted_addresses, addresses;  // of our device, sorted
};

struct Facts {
  ModelFacts model;
  KernelFacts kernel;
  std::optional<IpvsFacts> ipvs = {};
};

}  // namespace hawser::proxy
