// SPDX-License-Identifier: Apache-2.0
// Clients of Services with session affinity, from one mode to the other. IPVS tells whom it remembers, and the table
// takes that over. There is no way to tell IPVS; after the switch to it the table goes on sending those it remembers
// itself, until they have been silent for the Service's time.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/netlink/ipvs.h"
#include "lib/nft/runner.h"
#include "proxyd/ipvs/plan.h"
#include "proxyd/nft/elements.h"

namespace hawser::proxy {

// A connection of IPVS; one without a client's port is a persistence template, which stands for all of that client's.
struct IpvsConnection {
  netlink::IpvsKey service;
  IpAddr client;
  std::uint16_t client_port = 0;
  Target target;
  std::uint32_t seconds = 0;  // left
  bool operator==(const IpvsConnection&) const = default;
};
// The text of /proc/net/ip_vs_conn. Pure.
[[nodiscard]] std::vector<IpvsConnection> parse_connections(std::string_view text);

// An element of the table's affinity maps.
struct Client {
  IpAddr address;
  SideId frontend;
  Target target;
  std::uint32_t seconds = 0;
  bool operator==(const Client&) const = default;
};
// Those of the templates of frontends that `state` has with affinity, and whose target it still has. Pure.
[[nodiscard]] std::vector<Client> clients_of(const std::vector<IpvsConnection>& connections, const DesiredState& state,
                                             const NodeAddresses& node);

// Adds those whose address and frontend the table does not remember yet; returns how many.
Result<std::size_t> remember_clients(nft::NftRunner& nft, const std::vector<Client>& clients);
// How many the table remembers; it must be there.
Result<std::size_t> count_clients(nft::NftRunner& nft);

}  // namespace hawser::proxy
