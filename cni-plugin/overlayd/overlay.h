// SPDX-License-Identifier: Apache-2.0
// The overlay's kernel side: read what stands, write the difference. Everything is read back at each sync, nothing is
// remembered, so a restart, a repair and a change of a peer are one and the same path. One thread.
#pragma once

#include <string>
#include <vector>

#include "cni-plugin/overlayd/overlay_plan.h"

namespace hawser::overlay {

// The link and address that tunnels of `family` run over: `iface` if given, else the link that has `preferred`, else
// that of the default route. Of the link's addresses `preferred` is taken if it has it.
Result<Underlay> find_underlay(netlink::Rtnl& rtnl, int family, const std::string& iface, const IpAddr& preferred);

Result<Observed> observe(netlink::Rtnl& rtnl, int device);
// Makes every write it can; the first failure is returned at the end. `done` gets the text of each that worked.
Result<> apply(netlink::Rtnl& rtnl, const std::vector<Op>& ops, std::vector<std::string>& done);

struct Synced {
  int device = 0;
  MacAddr mac;                     // of the device, as it now is
  std::vector<std::string> wrote;  // what differed, in words; empty: all was right
};
// Device, own address, peers. EEXIST when a foreign link has the device's name.
Result<Synced> sync(netlink::Rtnl& rtnl, const OverlaySpec& spec);

// Removes device and routes of one family; what was not there is fine.
Result<> remove(netlink::Rtnl& rtnl, int family, std::uint32_t vni);

// A VTEP MAC that follows from the node's name: a node that lost everything comes back with the one its peers know.
[[nodiscard]] MacAddr mac_for(const std::string& node, std::uint32_t vni, int family);

}  // namespace hawser::overlay
