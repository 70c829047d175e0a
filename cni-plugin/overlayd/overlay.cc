// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/overlay.h"

#include <algorithm>
#include <functional>

#include <fmt/ranges.h>
#include <regex.h>
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

Result<int> default_route_link(const std::vector<Route>& routes, int family) {
  const Route* best = nullptr;
  for (const auto& r : routes) {
    bool is_default = r.dst.prefix() == 0 && r.dst.family() == family && r.type == RouteType::kUnicast && r.link != 0;
    if (is_default && (!best || r.metric < best->metric)) best = &r;
  }
  if (!best) return fail(ENODEV, "no default route shows which interface tunnels should use; give --iface");
  return best->link;
}

struct Tables {
  std::vector<netlink::Link> links;
  std::vector<Address> addresses;
  std::vector<Route> routes;
};

Result<Tables> read_tables(Rtnl& rtnl) {
  auto links = rtnl.list_links();
  auto addresses = rtnl.list_addresses(0);
  auto routes = rtnl.list_routes(0);
  if (!links) return propagate(links);
  if (!addresses) return propagate(addresses);
  if (!routes) return propagate(routes);
  return Tables{std::move(*links), std::move(*addresses), std::move(*routes)};
}

struct Chosen {
  int index = 0;
  IpAddr address;       // invalid: any of the link
  bool usable = false;  // it has an address of the family
};

bool has_address(const Tables& t, int link, int family) {
  return std::ranges::any_of(t.addresses, [&](const Address& a) {
    return a.link == link && a.cidr.family() == family && routable(a.cidr.addr());
  });
}

// The link whose name, or one of whose addresses of `family`, `fits`; rather one that is usable.
std::optional<Chosen> choose(const Tables& t, int family, const std::function<bool(const std::string&)>& fits) {
  std::optional<Chosen> found;
  for (const auto& l : t.links) {
    if (!fits(l.name) || (found && found->usable)) continue;
    const bool usable = has_address(t, l.index, family);
    if (usable || !found) found = Chosen{l.index, {}, usable};
  }
  if (found && found->usable) return found;
  for (const auto& a : t.addresses) {
    if (a.cidr.family() == family && fits(a.cidr.addr().text())) return Chosen{a.link, a.cidr.addr(), true};
  }
  return found;
}

Result<Chosen> by_rule(const Tables& t, int family, const IfaceChoice& choice) {
  // Where the families have links of their own, each finds its own among those that were named.
  std::optional<Chosen> unusable;
  for (const auto& name : choice.names) {
    auto c = choose(t, family, [&](const std::string& s) { return s == name; });
    if (c && c->usable) return *c;
    if (!unusable) unusable = c;
  }
  for (const auto& text : choice.regexes) {
    regex_t compiled;
    if (regcomp(&compiled, text.c_str(), REG_EXTENDED | REG_NOSUB) != 0)
      return fail(EINVAL, "--iface-regex \"{}\": is no regular expression", text);
    auto c = choose(t, family, [&](const std::string& s) { return regexec(&compiled, s.c_str(), 0, nullptr, 0) == 0; });
    regfree(&compiled);
    if (c && c->usable) return *c;
    if (!unusable) unusable = c;
  }
  if (unusable) return *unusable;  // the caller says what it lacks
  if (choice.can_reach && choice.can_reach.family() == family) {
    const auto* r = route_to(t.routes, choice.can_reach);
    if (r && r->link != 0) return Chosen{r->link, r->source};
    return fail(ENETUNREACH, "--iface-can-reach {}: no route", choice.can_reach);
  }
  if (!choice.names.empty()) return fail(ENODEV, "--iface {}: no such interface", fmt::join(choice.names, ", "));
  if (!choice.regexes.empty())
    return fail(ENODEV, "--iface-regex {}: fits no interface", fmt::join(choice.regexes, ", "));
  return Chosen{};
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

Result<Underlay> find_underlay(Rtnl& rtnl, int family, const IfaceChoice& choice, const IpAddr& preferred) {
  auto t = read_tables(rtnl);
  if (!t) return propagate(t);
  auto chosen = by_rule(*t, family, choice);
  if (!chosen) return propagate(chosen);
  if (chosen->index == 0) {
    auto holder =
        std::ranges::find_if(t->addresses, [&](const Address& a) { return preferred && a.cidr.addr() == preferred; });
    if (holder != t->addresses.end()) chosen->index = holder->link;
  }
  if (chosen->index == 0) {
    auto found = default_route_link(t->routes, family);
    if (!found) return propagate(found);
    chosen->index = *found;
  }
  Underlay u{.index = chosen->index};
  const IpAddr best = chosen->address ? chosen->address : preferred;
  for (const auto& a : t->addresses) {
    if (a.link != u.index || a.cidr.family() != family || !routable(a.cidr.addr())) continue;
    if (!u.address || a.cidr.addr() == best) u.address = a.cidr.addr();
  }
  auto link = std::ranges::find(t->links, u.index, &netlink::Link::index);
  if (link == t->links.end()) return fail(ENODEV, "interface {} is gone", u.index);
  if (!u.address)
    return fail(EADDRNOTAVAIL, "interface {} has no {} address to tunnel from", link->name,
                family == AF_INET ? "IPv4" : "IPv6");
  u.mtu = link->mtu;
  for (const auto& r : t->routes) {
    if (r.dst.family() == family && r.protocol != netlink::kRouteProtocol) u.routes.push_back(r);
  }
  return u;
}

Result<Observed> observe(Rtnl& rtnl, int device) {
  Observed o{.device = device};
  auto routes = rtnl.list_routes(0);
  if (!routes) return propagate(routes);
  for (const auto& r : *routes) {
    if ((device != 0 && r.link == device) || r.type == RouteType::kUnreachable || r.via) o.routes.push_back(r);
  }
  if (device == 0) return o;
  auto addresses = rtnl.list_addresses(device);
  auto neighs = rtnl.list_neighs(NeighTable::kNeighbor, device);
  auto fdb = rtnl.list_neighs(NeighTable::kFdb, device);
  if (!addresses) return propagate(addresses);
  if (!neighs) return propagate(neighs);
  if (!fdb) return propagate(fdb);
  o.addresses = std::move(*addresses);
  o.neighs = std::move(*neighs);
  o.fdb = std::move(*fdb);
  return o;
}

Result<> apply(Rtnl& rtnl, const std::vector<Op>& ops, std::vector<Change>& done) {
  Result<> first;
  for (const auto& op : ops) {
    auto r = write(rtnl, op);
    if (r) done.push_back({op.kind(), op.text()});
    if (!r && !already_gone(op, r.error()) && first) first = propagate(r);
  }
  return first;
}

namespace {

// What must change of a device that stands, in words: "MTU 1280, not 1450".
std::string device_difference(const netlink::Link& have, const netlink::LinkSpec& want) {
  std::vector<std::string> parts;
  if (want.mtu && have.mtu != want.mtu) parts.push_back(fmt::format("MTU {}, not {}", have.mtu, want.mtu));
  if (want.mac && have.mac != *want.mac) parts.push_back(fmt::format("MAC {}, not {}", have.mac, *want.mac));
  if (want.up && !have.up) parts.emplace_back("down");
  if (have.vxlan.learning != want.vxlan.learning)
    parts.push_back(fmt::format("learning {}, not {}", have.vxlan.learning, want.vxlan.learning));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

Result<int> sync_device(Rtnl& rtnl, const netlink::LinkSpec& want, std::vector<Change>& wrote) {
  auto have = rtnl.get_link(want.name);
  if (have && have->kind != want.kind)
    return fail(EEXIST, "interface {} exists and is not ours: its kind is \"{}\"", want.name, have->kind);
  auto device = netlink::ensure_link(rtnl, want);
  if (!device) return propagate(device, "overlay device {}", want.name);
  if (device->wrote && !have)
    wrote.push_back({"device", fmt::format("create device {}", want.name)});
  else if (!device->recreated_because.empty())
    wrote.push_back({"device", fmt::format("make device {} anew: {}", want.name, device->recreated_because)});
  else if (device->wrote)
    wrote.push_back({"device", fmt::format("correct device {}: {}", want.name, device_difference(*have, want))});
  return device->link.index;
}

namespace {

Result<bool> forget_device(Rtnl& rtnl, const std::string& name, std::string_view kind) {
  auto have = rtnl.get_link(name);
  if (!have && is_not_found(have.error())) return false;
  if (!have) return propagate(have);
  if (have->kind != kind) return false;  // somebody else's, of the same name
  if (auto r = rtnl.delete_link(have->index); !r) return propagate(r);
  return true;
}

}  // namespace

Result<Synced> sync(Rtnl& rtnl, const OverlaySpec& spec) {
  Synced s;
  if (!spec.device.name.empty()) {
    auto device = sync_device(rtnl, spec.device, s.wrote);
    if (!device) return propagate(device);
    s.device = *device;
  }
  auto observed = observe(rtnl, s.device);
  if (!observed) return propagate(observed);
  if (auto r = apply(rtnl, plan(spec, *observed), s.wrote); !r) return propagate(r);
  return s;
}

Result<> check_adoptable(Rtnl& rtnl, const netlink::LinkSpec& device) {
  if (device.name.empty()) return {};
  auto have = rtnl.get_link(device.name);
  if (!have) return is_not_found(have.error()) ? Result<>() : Result<>(propagate(have));
  auto why = netlink::incompatibility(*have, device);
  if (why.empty()) return {};
  return fail(EEXIST,
              "--adopt: device {} cannot be taken over as it stands: {}; make the flags or net-conf.json say what it "
              "is, or start without --adopt, which makes it anew",
              device.name, why);
}

Result<> remove(Rtnl& rtnl, int family, std::uint32_t vni) {
  auto routes = rtnl.list_routes(0);
  if (!routes) return propagate(routes);
  for (const auto& r : *routes) {
    bool of_overlay = r.type == RouteType::kUnreachable || r.via;
    if (!of_overlay || r.protocol != netlink::kRouteProtocol || r.dst.family() != family) continue;
    if (auto gone = netlink::forget_route(rtnl, r); !gone) return propagate(gone);
  }
  if (auto r = forget_device(rtnl, device_name(family, vni), "vxlan"); !r) return propagate(r);
  for (auto mode : {WireguardMode::kSeparate, WireguardMode::kAuto}) {
    if (auto r = forget_device(rtnl, wireguard_device_name(family, mode), "wireguard"); !r) return propagate(r);
  }
  return {};
}

Result<> remove_stale_device(Rtnl& rtnl, int family, const Settings& settings, std::vector<Change>& wrote) {
  const bool wireguard = find_backend(settings.backend)->device == DeviceKind::kWireguard;
  const auto own = wireguard_device_name(family, settings.wireguard.mode);
  std::vector<std::pair<std::string, std::string_view>> stale;
  if (wireguard) stale.emplace_back(device_name(family, settings.vni), "vxlan");
  for (auto mode : {WireguardMode::kSeparate, WireguardMode::kAuto}) {
    auto name = wireguard_device_name(family, mode);
    // In the mode of two devices the name of the one device is the IPv4 half's.
    const bool in_use = wireguard && (name == own || name == wireguard_device_name(AF_INET, mode));
    if (!in_use) stale.emplace_back(std::move(name), "wireguard");
  }
  for (const auto& [name, kind] : stale) {
    auto gone = forget_device(rtnl, name, kind);
    if (!gone) return propagate(gone, "device {} of the back end before", name);
    if (*gone) wrote.push_back({"device", fmt::format("delete device {} of the back end before", name)});
  }
  return {};
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
