// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/rtnl_ensure.h"

#include <algorithm>

namespace hawser::netlink {
namespace {

// The result of a delete: what was not there is fine.
Result<bool> gone(Result<> r) {
  if (r) return true;
  // EADDRNOTAVAIL is how a missing address is reported.
  if (is_not_found(r.error()) || r.error().code == EADDRNOTAVAIL) return false;
  return propagate(r);
}

Result<EnsuredLink> make_link(Rtnl& rtnl, const LinkSpec& spec, std::string because) {
  if (auto r = rtnl.add_link(spec); !r) return propagate(r);
  auto made = rtnl.get_link(spec.name);
  if (!made) return propagate(made);
  return EnsuredLink{.link = std::move(*made), .wrote = true, .recreated_because = std::move(because)};
}

}  // namespace

std::string incompatibility(const Link& have, const LinkSpec& want) {
  if (have.kind != want.kind) return fmt::format("kind \"{}\", not \"{}\"", have.kind, want.kind);
  if (want.kind != "vxlan") return {};
  const auto& h = have.vxlan;
  const auto& w = want.vxlan;
  if (h.vni != w.vni) return fmt::format("VNI {}, not {}", h.vni, w.vni);
  if (h.port != w.port) return fmt::format("UDP port {}, not {}", h.port, w.port);
  if (h.local != w.local) return fmt::format("local address {}, not {}", h.local, w.local);
  if (h.underlay_index != w.underlay_index)
    return fmt::format("underlay link {}, not {}", h.underlay_index, w.underlay_index);
  return {};
}

std::optional<LinkChange> difference(const Link& have, const LinkSpec& want) {
  LinkChange c;
  bool any = false;
  if (want.mtu && have.mtu != want.mtu) any = c.mtu.emplace(want.mtu);
  if (want.mac && have.mac != *want.mac) c.mac.emplace(*want.mac), any = true;
  if (want.up && !have.up) any = c.up.emplace(true);
  if (want.kind == "vxlan" && have.vxlan.learning != want.vxlan.learning)
    c.learning.emplace(want.vxlan.learning), any = true;
  if (!any) return std::nullopt;
  return c;
}

Result<EnsuredLink> ensure_link(Rtnl& rtnl, const LinkSpec& spec) {
  auto have = rtnl.get_link(spec.name);
  if (!have && !is_not_found(have.error())) return propagate(have);
  if (!have) return make_link(rtnl, spec, {});
  if (auto why = incompatibility(*have, spec); !why.empty()) {
    if (auto r = gone(rtnl.delete_link(have->index)); !r) return propagate(r);
    return make_link(rtnl, spec, std::move(why));
  }
  auto change = difference(*have, spec);
  if (!change) return EnsuredLink{.link = std::move(*have)};
  if (auto r = rtnl.change_link(have->index, *change); !r) return propagate(r, "link {}", spec.name);
  auto now = rtnl.get_link(spec.name);
  if (!now) return propagate(now);
  return EnsuredLink{.link = std::move(*now), .wrote = true};
}

Result<bool> ensure_address(Rtnl& rtnl, const Address& want) {
  auto have = rtnl.list_addresses(want.link);
  if (!have) return propagate(have);
  if (std::ranges::find(*have, want.cidr, &Address::cidr) != have->end()) return false;
  auto r = rtnl.change_address(Verb::kReplace, want);
  if (!r) return propagate(r);
  return true;
}

Result<bool> ensure_route(Rtnl& rtnl, const Route& want) {
  auto have = rtnl.list_routes(want.link);
  if (!have) return propagate(have);
  if (std::ranges::find(*have, want) != have->end()) return false;
  auto r = rtnl.change_route(Verb::kReplace, want);
  if (!r) return propagate(r);
  return true;
}

Result<bool> ensure_neigh(Rtnl& rtnl, const Neigh& want) {
  auto have = rtnl.list_neighs(want.table, want.link);
  if (!have) return propagate(have);
  if (std::ranges::find(*have, want) != have->end()) return false;
  auto r = rtnl.change_neigh(Verb::kReplace, want);
  if (!r) return propagate(r);
  return true;
}

Result<bool> forget_link(Rtnl& rtnl, const std::string& name) {
  auto have = rtnl.get_link(name);
  if (!have && is_not_found(have.error())) return false;
  if (!have) return propagate(have);
  return gone(rtnl.delete_link(have->index));
}
Result<bool> forget_address(Rtnl& rtnl, const Address& a) {
  return gone(rtnl.change_address(Verb::kDelete, a));
}
Result<bool> forget_route(Rtnl& rtnl, const Route& r) {
  return gone(rtnl.change_route(Verb::kDelete, r));
}
Result<bool> forget_neigh(Rtnl& rtnl, const Neigh& n) {
  return gone(rtnl.change_neigh(Verb::kDelete, n));
}

}  // namespace hawser::netlink
