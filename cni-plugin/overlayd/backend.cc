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
constexpr std::array<Backend, 3> kBackends{{{.name = kDefaultBackend, .tunnel = true},
                                            {.name = kHostGateway, .tunnel = false},
                                            {.name = "none", .tunnel = false, .peers = false}}};

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

// How one node becomes a peer of ours, or why it cannot.
class Joiner {
 public:
  Joiner(OverlaySpec& spec, const Backend& ours, const Underlay& underlay, const Settings& settings)
      : spec_(spec), ours_(ours), underlay_(underlay), settings_(settings) {}

  // Empty: it is a peer now, or has not published enough to be one.
  std::string join(const Lease& n) {
    const Vtep& v = n.vtep(spec_.family);
    const Cidr cidr = n.pod_cidr(spec_.family);
    if (!cidr || !v.address || n.backend.empty()) return {};
    const bool tunnel = ours_.tunnel && n.backend == ours_.name;
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

 private:
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
  const Backend& ours_;
  const Underlay& underlay_;
  const Settings& settings_;
  std::map<IpAddr, std::size_t> by_address_;  // into spec_.peers, whose CIDRs are disjoint
  std::map<MacAddr, std::string> by_mac_;
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

OverlaySpec make_spec(const Lease& own, const std::vector<Lease>& nodes, const Underlay& underlay,
                      const Settings& settings, std::vector<std::string>& skipped) {
  const Backend& ours = *find_backend(settings.backend);
  const int family = underlay.address.family();
  OverlaySpec s{.family = family,
                .mtu = underlay.mtu,
                .underlay = underlay.index,
                .own_cidr = own.pod_cidr(family),
                .unreachable_rest = settings.unreachable_rest};
  if (ours.tunnel) {
    s.device = vxlan_device(own.vtep(family), family, underlay, settings);
    s.mtu = s.device.mtu;
  }
  if (!ours.peers) return s;
  // In the order of names, so that of two nodes with one pod CIDR the same one wins everywhere.
  std::map<std::string_view, const Lease*> by_name;
  for (const auto& n : nodes) {
    if (n.node != own.node) by_name[n.node] = &n;
  }
  Joiner joiner(s, ours, underlay, settings);
  for (const auto& [name, n] : by_name) {
    if (auto why = joiner.join(*n); !why.empty()) skipped.push_back(fmt::format("node {}: {}", name, why));
  }
  return s;
}

}  // namespace hawser::overlay
