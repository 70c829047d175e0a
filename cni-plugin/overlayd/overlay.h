// SPDX-License-Identifier: Apache-2.0
// The overlay's kernel side: read what stands, write the difference. Everything is read back at each sync, nothing is
// remembered, so a restart, a repair and a change of a peer are one and the same path. One thread.
#pragma once

#include <string>
#include <vector>

#include "cni-plugin/overlayd/backend.h"

namespace hawser::overlay {

// Which interface tunnels use (FEATURES O42). The first rule that names one with an address of the family wins, in this
// order; empty: none given.
struct IfaceChoice {
  std::vector<std::string> names;    // a name or an address; the first that exists
  std::vector<std::string> regexes;  // POSIX extended, of a name or an address; the first that fits
  IpAddr can_reach;                  // the interface of the route to it
  [[nodiscard]] bool given() const { return !names.empty() || !regexes.empty() || can_reach; }
};

// The link and address that tunnels of `family` run over: as chosen, else the link that has `preferred`, else that of
// the default route. Of the link's addresses `preferred` is taken if it has it, or the one that was chosen by address.
Result<Underlay> find_underlay(netlink::Rtnl& rtnl, int family, const IfaceChoice& choice, const IpAddr& preferred);

Result<Observed> observe(netlink::Rtnl& rtnl, int device);
// Something that differed and was put right: "device", "address", "neighbour", "fdb", "route" or "peer", and the words
// for it.
struct Change {
  const char* kind;
  std::string text;
};
// Makes every write it can; the first failure is returned at the end. `done` gets each that worked.
Result<> apply(netlink::Rtnl& rtnl, const std::vector<Op>& ops, std::vector<Change>& done);

// Makes or corrects the device; its index.
Result<int> sync_device(netlink::Rtnl& rtnl, const netlink::LinkSpec& want, std::vector<Change>& wrote);

struct Synced {
  int device = 0;             // 0: the back end has none
  std::vector<Change> wrote;  // empty: all was right
};
// Device, own address, peers. EEXIST when a foreign link has the device's name.
Result<Synced> sync(netlink::Rtnl& rtnl, const OverlaySpec& spec);

// Deletes the tunnel device of one family that another back end than `settings` say has left here.
Result<> remove_stale_device(netlink::Rtnl& rtnl, int family, const Settings& settings, std::vector<Change>& wrote);

// EEXIST: a device of that name stands which would have to be made anew. For `--adopt`.
Result<> check_adoptable(netlink::Rtnl& rtnl, const netlink::LinkSpec& device);

// Removes device and routes of one family, whatever the back end was; what was not there is fine.
Result<> remove(netlink::Rtnl& rtnl, int family, std::uint32_t vni);

// A VTEP MAC that follows from the node's name: a node that lost everything comes back with the one its peers know.
[[nodiscard]] MacAddr mac_for(const std::string& node, std::uint32_t vni, int family);

}  // namespace hawser::overlay
