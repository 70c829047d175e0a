// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/overlay.h"

#include <algorithm>

#include <sys/socket.h>

#include "lib/netlink/rtnl_ensure.h"

namespace hawser::overlay {
namespace {

using netlink::Address;
using netlink::Neigh;
using netlink::NeighTable;
using netlink::Route;
using netlink::RouteType;
using netlink::Rtnl;
using netlink::Verb;

// Addresses that can be the outer source: no host-only and no link-local ones.
bool routable(const IpAddr& a) {
  auto b = a.bytes();
  if (a.is_v4()) return b[0] != 127 && !(b[0] == 169 && b[1] == 254);
  return !(b[0] == 0xfe && (b[1] & 0xc0) == 0x80) && a != *IpAddr::parse("::1");
}

Result<int> default_route_link(Rtnl& rtnl, int family) {
  auto routes = rtnl.list_routes(0);
  if (!routes) return propagate(routes);
  const Route* best = nullptr;
  for (const auto& r : *routes) {
    bool is_default = r.dst.prefix() == 0 && r.dst.family() == family && r.type == RouteType::kUnicast && r.link != 0;
    if (is_default && (!best || r.metric < best->metric)) best = &r;
  }
  if (!best) return fail(ENODEV, "no default route shows which interface tunnels should use; give --iface");
  return best->link;
}

Result<> write(Rtnl& rtnl, const Op& op) {
  if (const auto* a = std::get_if<Address>(&op.object)) return rtnl.change_address(op.verb, *a);
  if (const auto* n = std::get_if<Neigh>(&op.object)) return rtnl.change_neigh(op.verb, *n);
  return rtnl.change_route(op.verb, std::get<Route>(op.object));
}

bool already_gone(const Op& op, const Error& e) {
  return op.verb == Verb::kDelete && (is_not_found(e) || e.code == EADDRNOTAVAIL);
}

}  // namespace

Result<Underlay> find_underlay(Rtnl& rtnl, int family, const std::string& iface, const IpAddr& preferred) {
  auto links = rtnl.list_links();
  auto addresses = rtnl.list_addresses(0);
  if (!links) return propagate(links);
  if (!addresses) return propagate(addresses);
  int index = 0;
  if (!iface.empty()) {
    auto l = std::ranges::find(*links, iface, &netlink::Link::name);
    if (l == links->end()) return fail(ENODEV, "--iface {}: no such interface", iface);
    index = l->index;
  }
  auto holder =
      std::ranges::find_if(*addresses, [&](const Address& a) { return preferred && a.cidr.addr() == preferred; });
  if (index == 0 && holder != addresses->end()) index = holder->link;
  if (index == 0) {
    auto found = default_route_link(rtnl, family);
    if (!found) return propagate(found);
    index = *found;
  }
  Underlay u{.index = index};
  for (const auto& a : *addresses) {
    if (a.link != index || a.cidr.family() != family || !routable(a.cidr.addr())) continue;
    if (!u.address || a.cidr.addr() == preferred) u.address = a.cidr.addr();
  }
  auto link = std::ranges::find(*links, index, &netlink::Link::index);
  if (link == links->end()) return fail(ENODEV, "interface {} is gone", index);
  if (!u.address)
    return fail(EADDRNOTAVAIL, "interface {} has no {} address to tunnel from", link->name,
                family == AF_INET ? "IPv4" : "IPv6");
  u.mtu = link->mtu;
  return u;
}

Result<Observed> observe(Rtnl& rtnl, int device) {
  Observed o{.device = device};
  auto addresses = rtnl.list_addresses(device);
  auto neighs = rtnl.list_neighs(NeighTable::kNeighbor, device);
  auto fdb = rtnl.list_neighs(NeighTable::kFdb, device);
  auto routes = rtnl.list_routes(0);
  if (!addresses) return propagate(addresses);
  if (!neighs) return propagate(neighs);
  if (!fdb) return propagate(fdb);
  if (!routes) return propagate(routes);
  o.addresses = std::move(*addresses);
  o.neighs = std::move(*neighs);
  o.fdb = std::move(*fdb);
  for (const auto& r : *routes) {
    if (r.link == device || r.type == RouteType::kUnreachable) o.routes.push_back(r);
  }
  return o;
}

Result<> apply(Rtnl& rtnl, const std::vector<Op>& ops, std::vector<std::string>& done) {
  Result<> first;
  for (const auto& op : ops) {
    auto r = write(rtnl, op);
    if (r) done.push_back(op.text());
    if (!r && !already_gone(op, r.error()) && first) first = propagate(r);
  }
  return first;
}

Result<Synced> sync(Rtnl& rtnl, const OverlaySpec& spec) {
  Synced s;
  netlink::LinkSpec want = spec.device;
  auto have = rtnl.get_link(want.name);
  if (have && have->kind != want.kind)
    return fail(EEXIST, "interface {} exists and is not ours: its kind is \"{}\"", want.name, have->kind);
  auto device = netlink::ensure_link(rtnl, want);
  if (!device) return propagate(device, "overlay device {}", want.name);
  if (device->wrote && !have)
    s.wrote.push_back(fmt::format("create device {}", want.name));
  else if (!device->recreated_because.empty())
    s.wrote.push_back(fmt::format("make device {} anew: {}", want.name, device->recreated_because));
  else if (device->wrote)
    s.wrote.push_back(fmt::format("correct device {}", want.name));
  s.device = device->link.index;
  s.mac = device->link.mac;
  auto observed = observe(rtnl, s.device);
  if (!observed) return propagate(observed);
  if (auto r = apply(rtnl, plan(spec, *observed), s.wrote); !r) return propagate(r);
  return s;
}

Result<> remove(Rtnl& rtnl, int family, std::uint32_t vni) {
  auto routes = rtnl.list_routes(0);
  if (!routes) return propagate(routes);
  for (const auto& r : *routes) {
    if (r.type != RouteType::kUnreachable || r.protocol != netlink::kRouteProtocol || r.dst.family() != family)
      continue;
    if (auto gone = netlink::forget_route(rtnl, r); !gone) return propagate(gone);
  }
  auto have = rtnl.get_link(device_name(family, vni));
  if (!have && is_not_found(have.error())) return {};
  if (!have) return propagate(have);
  if (have->kind != "vxlan") return {};  // somebody else's, of the same name
  return rtnl.delete_link(have->index);
}

MacAddr mac_for(const std::string& node, std::uint32_t vni, int family) {
  std::uint64_t h = 0xcbf29ce484222325;  // FNV-1a
  auto mix = [&](unsigned char c) { h = (h ^ c) * 0x100000001b3; };
  for (unsigned char c : node) mix(c);
  for (int shift : {0, 8, 16, 24}) mix(static_cast<unsigned char>(vni >> shift));
  mix(static_cast<unsigned char>(family));
  MacAddr m;
  for (std::size_t i = 0; i < m.bytes.size(); i++) m.bytes[i] = static_cast<std::uint8_t>(h >> (8 * i));
  m.bytes[0] = static_cast<std::uint8_t>((m.bytes[0] & 0xfe) | 0x02);  // locally administered, unicast
  return m;
}

}  // namespace hawser::overlay
