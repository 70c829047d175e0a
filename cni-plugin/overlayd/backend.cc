// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/backend.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/ranges.h>
#include <sys/socket.h>

namespace hawser::overlay {
namespace {

constexpr std::string_view kHostGateway = "host-gw";
constexpr std::array<Backend, 4> kBackends{{{.name = kDefaultBackend, .device = DeviceKind::kVxlan},
                                            {.name = kHostGateway},
                                            {.name = "wireguard", .device = DeviceKind::kWireguard},
                                            {.name = "none", .peers = false}}};

struct ModeRow {
  std::string_view name;
  WireguardMode mode;
};
constexpr std::array<ModeRow, 4> kModes{{{"separate", WireguardMode::kSeparate},
                                         {"auto", WireguardMode::kAuto},
                                         {"ipv4", WireguardMode::kIpv4},
                                         {"ipv6", WireguardMode::kIpv6}}};

bool is_private(const IpAddr& a) {
  auto b = a.bytes();
  if (a.is_v6()) return (b[0] & 0xfe) == 0xfc;
  return b[0] == 10 || (b[0] == 172 && (b[1] & 0xf0) == 16) || (b[0] == 192 && b[1] == 168);
}

netlink::LinkSpec vxlan_device(const Vtep& own, int family, const Underlay& underlay, const Settings& settings) {
  return {.name = device_name(family, settings.vni),
          .kind = "vxlan",
          .mtu = underlay.mtu - vxlan_overhead_bytes(underlay.address.is_v4()),
          .mac = own.mac,
          .up = true,
          .vxlan = {.vni = settings.vni,
                    .port = settings.port,
                    .local = underlay.address,
                    .underlay_index = underlay.index,
                    .learning = false}};
}

netlink::LinkSpec wireguard_device(int family, const Underlay& underlay, const Settings& settings) {
  return {.name = wireguard_device_name(family, settings.wireguard.mode),
          .kind = "wireguard",
          .mtu = underlay.mtu - kWireguardOverheadBytes,
          .up = true};
}

// How one node becomes a peer of ours, or why it cannot.
class Joiner {
 public:
  Joiner(OverlaySpec& spec, const Lease& own, const Underlay& underlay, const Settings& settings)
      : spec_(spec), own_(own), ours_(*find_backend(settings.backend)), underlay_(underlay), settings_(settings) {}

  // Empty: it is a peer now, or has not published enough to be one.
  std::string join(const Lease& n) { return ours_.device == DeviceKind::kWireguard ? join_wireguard(n) : join_open(n); }

 private:
  // Without encryption.
  std::string join_open(const Lease& n) {
    const Vtep& v = n.vtep(spec_.family);
    const Cidr cidr = n.pod_cidr(spec_.family);
    if (!cidr || !v.address || n.backend.empty()) return {};
    const bool tunnel = ours_.tunnel() && n.backend == ours_.name;
    const bool near = adjacent(underlay_, v.address);
    const bool plain = n.backend == kHostGateway || (ours_.name == kHostGateway && n.backend == kDefaultBackend);
    const bool direct = tunnel ? settings_.direct_routing && near : plain;
    if (!tunnel && !direct) return fmt::format("its back end is {}, ours {}", n.backend, ours_.name);
    if (direct && !near) return fmt::format("{} is not on our segment, which {} needs", v.address, n.backend);
    if (tunnel && !v.mac) return {};
    if (tunnel && v.vni != settings_.vni) return fmt::format("its VNI is {}, ours {}", v.vni, settings_.vni);
    if (auto why = clash(n.node, cidr, direct ? std::nullopt : v.mac); !why.empty()) return why;
    spec_.peers.push_back(
        {.node = n.node, .pod_cidr = cidr, .vtep = v.address, .mac = direct ? MacAddr{} : *v.mac, .direct = direct});
    return {};
  }

  // Who wants encryption does not want the plain routes that other back ends would mean.
  std::string join_wireguard(const Lease& n) {
    const Cidr cidr = n.pod_cidr(spec_.family);
    const IpAddr address = wireguard_address(own_, n, spec_.family, settings_.wireguard.mode);
    if (!cidr || n.backend.empty()) return {};
    if (n.backend != ours_.name) return fmt::format("its back end is {}, ours {}", n.backend, ours_.name);
    const auto key = public_key(n);
    if (!key || !address) return {};
    if (key == public_key(own_)) return "its public key is our own";
    if (auto it = by_key_.find(*key); it != by_key_.end())
      return fmt::format("its public key is that of node {}", it->second);
    if (auto why = clash(n.node, cidr, std::nullopt); !why.empty()) return why;
    by_key_[*key] = n.node;
    spec_.peers.push_back({.node = n.node, .pod_cidr = cidr, .vtep = address, .key = key});
    return {};
  }

  // A node has one key, which flannel tells for the families that it has.
  [[nodiscard]] std::optional<netlink::WgKey> public_key(const Lease& n) const {
    const auto& own_family = n.vtep(spec_.family).public_key;
    return own_family ? own_family : n.vtep(spec_.family == AF_INET ? AF_INET6 : AF_INET).public_key;
  }

  std::string clash(const std::string& node, const Cidr& cidr, const std::optional<MacAddr>& mac) {
    // Among disjoint ranges only the last one that begins before our end can reach into us.
    auto after = by_address_.upper_bound(cidr.last());
    const Peer* before = after == by_address_.begin() ? nullptr : &spec_.peers[std::prev(after)->second];
    if (cidr.overlaps(spec_.own_cidr)) return fmt::format("its pod CIDR {} overlaps our own {}", cidr, spec_.own_cidr);
    if (before && before->pod_cidr.overlaps(cidr))
      return fmt::format("its pod CIDR {} overlaps that of node {}", cidr, before->node);
    if (mac && by_mac_.contains(*mac)) return fmt::format("its VTEP MAC {} is that of node {}", *mac, by_mac_.at(*mac));
    by_address_[cidr.addr()] = spec_.peers.size();
    if (mac) by_mac_[*mac] = node;
    return {};
  }

  OverlaySpec& spec_;
  const Lease& own_;
  const Backend& ours_;
  const Underlay& underlay_;
  const Settings& settings_;
  std::map<IpAddr, std::size_t> by_address_;  // into spec_.peers, whose CIDRs are disjoint
  std::map<MacAddr, std::string> by_mac_;
  std::map<netlink::WgKey, std::string> by_key_;
};

}  // namespace

const netlink::Route* route_to(const std::vector<netlink::Route>& routes, const IpAddr& address) {
  const netlink::Route* best = nullptr;
  for (const auto& r : routes) {
    if (r.dst.family() != address.family() || !r.dst.contains(address)) continue;
    if (!best || r.dst.prefix() > best->dst.prefix() ||
        (r.dst.prefix() == best->dst.prefix() && r.metric < best->metric))
      best = &r;
  }
  return best;
}

bool adjacent(const Underlay& underlay, const IpAddr& address) {
  const auto* r = route_to(underlay.routes, address);
  return r && r->type == netlink::RouteType::kUnicast && r->link == underlay.index && !r->via;
}

std::span<const Backend> backends() {
  return kBackends;
}

const Backend* find_backend(std::string_view name) {
  const auto* it = std::ranges::find(kBackends, name, &Backend::name);
  return it == kBackends.end() ? nullptr : it;
}

std::string backend_names() {
  std::vector<std::string_view> names;
  for (const auto& b : kBackends) names.push_back(b.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string device_name(int family, std::uint32_t vni) {
  return fmt::format("{}.{}", family == AF_INET ? "flannel" : "flannel-v6", vni);
}

std::optional<WireguardMode> parse_wireguard_mode(std::string_view text) {
  const auto* it = std::ranges::find(kModes, text, &ModeRow::name);
  if (it == kModes.end()) return std::nullopt;
  return it->mode;
}

std::string wireguard_device_name(int family, WireguardMode mode) {
  return family == AF_INET6 && mode == WireguardMode::kSeparate ? "flannel-wg-v6" : "flannel-wg";
}

std::uint16_t wireguard_port(int family, const WireguardSettings& settings) {
  return family == AF_INET6 && !settings.one_device() ? settings.port_v6 : settings.port;
}

IpAddr wireguard_address(const Lease& own, const Lease& peer, int family, WireguardMode mode) {
  switch (mode) {
    case WireguardMode::kSeparate:
      return peer.vtep(family).address;
    case WireguardMode::kIpv4:
      return peer.v4.address;
    case WireguardMode::kIpv6:
      return peer.v6.address;
    case WireguardMode::kAuto:
      break;
  }
  const auto &v4 = peer.v4.address, &v6 = peer.v6.address;
  const bool v4_works = v4 && own.v4.address;
  const bool v6_works = v6 && own.v6.address;
  const bool v6_is_public = v6_works && !is_private(v6) && !is_private(own.v6.address);
  if (v4_works && (!is_private(v4) || !v6_is_public)) return v4;
  return v6_works ? v6 : v4;
}

OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, const Underlay& underlay,
                      const Settings& settings, std::vector<std::string>& skipped) {
  const Backend& ours = *find_backend(settings.backend);
  const int family = underlay.pods ? underlay.pods : underlay.address.family();
  OverlaySpec s{.family = family,
                .mtu = underlay.mtu,
                .underlay = underlay.index,
                .own_cidr = own.pod_cidr(family),
                .unreachable_rest = settings.unreachable_rest};
  if (ours.device == DeviceKind::kVxlan) s.device = vxlan_device(own.vtep(family), family, underlay, settings);
  if (ours.device == DeviceKind::kWireguard) {
    s.device = wireguard_device(family, underlay, settings);
    s.both_families = settings.wireguard.one_device();
  }
  if (ours.tunnel()) s.mtu = s.device.mtu;
  if (!ours.peers) return s;
  // In the order of names, so that of two nodes with one pod CIDR the same one wins everywhere.
  std::map<std::string_view, const Lease*> by_name;
  for (const auto& n : nodes) {
    if (n.node != own.node) by_name[n.node] = &n;
  }
  Joiner joiner(s, own, underlay, settings);
  for (const auto& [name, n] : by_name) {
    if (auto why = joiner.join(*n); !why.empty()) skipped.push_back(fmt::format("node {}: {}", name, why));
  }
  return s;
}

}  // namespace hawser::overlay
