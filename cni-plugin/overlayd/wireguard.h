// SPDX-License-Identifier: Apache-2.0
// The wireguard back end's own part: what keys, port and peers its device should have (pure), against what it has
// (pure), and the writes. Device, address and routes are those of every back end (overlay.h). Names, ports, key file
// and annotations are flannel's.
//
// A device that stands is adopted: only what differs is written, so a restart ends no session. WireGuard learns a
// peer's address from its packets; the lease's is written only when it is news or the session is dead, or a peer
// behind a translator would be lost at each look. WireguardDevice: loop thread only.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "cni-plugin/overlayd/backend.h"
#include "cni-plugin/overlayd/overlay.h"

namespace hawser::overlay {

// What a device should have.
struct WireguardWanted {
  netlink::WgKey private_key;
  std::uint16_t port = 0;
  std::vector<netlink::WgPeer> peers;
};
// `specs` are those that share the device: a node that is a peer in two families is one peer with two ranges.
[[nodiscard]] WireguardWanted wanted_wireguard(std::span<const OverlaySpec> specs, const Settings& settings,
                                               const netlink::WgKey& private_key);

// Where each peer was last said to be.
using WireguardOrders = std::map<netlink::WgKey, netlink::WgEndpoint>;
// Removals first: a range that moved is then free. `now` in seconds since 1970.
[[nodiscard]] netlink::WgChange plan_wireguard(const WireguardWanted& want, const netlink::WgDevice& have,
                                               const WireguardOrders& ordered, std::int64_t now);
// "set WireGuard peer AQEB... at 192.0.2.12:51820"; no secrets.
[[nodiscard]] std::vector<Change> wireguard_changes(const netlink::WgChange& change);

// The node's secret, as base64; made, for its owner's eyes only, if there is no such file.
Result<netlink::WgKey> load_wireguard_key(const std::string& path);

class WireguardDevice {
 public:
  struct Done {
    netlink::WgKey public_key;
    std::vector<Change> wrote;
  };
  // The device of `specs`, at least one, and all about it that is not rtnetlink's. A kernel without WireGuard is an
  // error that says so.
  Result<Done> sync(netlink::Rtnl& rtnl, netlink::Wireguard& kernel, std::span<const OverlaySpec> specs,
                    const Settings& settings);

 private:
  WireguardOrders ordered_;
};

}  // namespace hawser::overlay
