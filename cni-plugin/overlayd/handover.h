// SPDX-License-Identifier: Apache-2.0
// Handover: a node changes from flannel to us (`--adopt`) and back (`--hand-back`) while its pods run. Device, entries
// and the Node's annotations are the same for both and stay as they are; what changes hands are files:
//
//   adopt                                             hand back
//   our CNI configuration continues flannel's:        removed, flannel's own is the first again (put back if it is
//   gone)
//     its network name, bridge, reservations
//   subnet.env is kept up to date where flannel's     as flannel left it, if the node's ranges are the same
//     plugin looks for it
//   host-local's reservations are read by our plugin  one a pod that lives, and what flannel's plugin needs for its DEL
//
// <run-dir>/adopted.json remembers what was found, so that a restart and the way back need no file of flannel's.
// Nothing of flannel's is removed by adopting, its firewall rules included. Any thread; no other part runs meanwhile.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cni-plugin/overlayd/flannel_cni.h"
#include "cni-plugin/overlayd/node_files.h"
#include "lib/netlink/rtnl.h"
#include "lib/nft/runner.h"

namespace hawser::overlay {

struct Adopted {
  FlannelCni cni;
  std::string subnet_env;  // as flannel left it; empty: there was none
  [[nodiscard]] std::string text() const;
  static Result<Adopted> parse(const std::string& text);  // EINVAL
};

// What there is to take over, remembered in <run-dir>/adopted.json: as remembered before, else flannel's configuration
// in `cni_conf_dir`. nullopt: there is none. EEXIST: a device of flannel's is there under another VNI.
Result<std::optional<Adopted>> adopt(netlink::Rtnl& rtnl, const FilePaths& paths, std::uint32_t vni);

// ENOENT: the node was not taken over. Leaves forwarding on, which flannel needs too. What was done, in words.
Result<std::vector<std::string>> hand_back(netlink::Rtnl& rtnl, nft::NftRunner& nft, const FilePaths& paths,
                                           bool ip_masq);

}  // namespace hawser::overlay
