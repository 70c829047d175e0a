// SPDX-License-Identifier: Apache-2.0
// Ensure-semantics over Rtnl: after ensure_x(want) the kernel has x, whatever was there before; a second call writes
// nothing. What differs but can be changed in place (MTU, up, MAC) is changed; a link is made anew only if
// incompatibility() names a reason. forget_x(): after it x is gone; "was not there" is success. All return true when
// they wrote.
#pragma once

#include "lib/netlink/rtnl.h"

namespace hawser::netlink {

// Why `have` can never become `want` by changing it ("VNI 1, not 2"); empty: it can, or it is.
[[nodiscard]] std::string incompatibility(const Link& have, const LinkSpec& want);
// What must be changed in place to make `have` match `want`; nullopt: nothing.
[[nodiscard]] std::optional<LinkChange> difference(const Link& have, const LinkSpec& want);

struct EnsuredLink {
  Link link;
  bool wrote = false;
  std::string recreated_because;  // not empty: the old one was deleted, with all that hung on it
};
// `spec.peer` is used only when the link has to be made.
Result<EnsuredLink> ensure_link(Rtnl& rtnl, const LinkSpec& spec);
Result<bool> ensure_address(Rtnl& rtnl, const Address& address);
Result<bool> ensure_route(Rtnl& rtnl, const Route& route);
Result<bool> ensure_neigh(Rtnl& rtnl, const Neigh& neigh);

Result<bool> forget_link(Rtnl& rtnl, const std::string& name);
Result<bool> forget_address(Rtnl& rtnl, const Address& address);
Result<bool> forget_route(Rtnl& rtnl, const Route& route);
Result<bool> forget_neigh(Rtnl& rtnl, const Neigh& neigh);

}  // namespace hawser::netlink
