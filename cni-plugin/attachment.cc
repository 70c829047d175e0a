// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/attachment.h"

#include <algorithm>
#include <array>

#include <sys/socket.h>

#include "lib/base/rollback.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::cni {
namespace {

using netlink::Neigh;
using netlink::NeighTable;
using netlink::Route;
using netlink::Rtnl;
using netlink::Verb;

constexpr int kLoopbackIndex = 1;  // in every network namespace
constexpr std::size_t kNetworkChars = 3;
constexpr std::size_t kOwnerChars = 10;

// Five bits a character, most significant first.
std::string base32(std::uint64_t h, std::size_t chars) {
  static constexpr std::string_view kDigits = "abcdefghijklmnopqrstuvwxyz234567";
  std::string s;
  for (std::size_t i = 0; i < chars; i++) s += kDigits[h >> (59 - 5 * i) & 31];
  return s;
}

MacAddr mac_from(std::uint8_t first, const IpAddr& a) {
  auto b = a.bytes().last<4>();
  return {{first, 0x58, b[0], b[1], b[2], b[3]}};
}

Cidr host_prefix(const IpAddr& a) {
  return {a, a.bits()};
}
Cidr default_route(int family) {
  static constexpr std::array<std::uint8_t, 16> kZero{};
  return {family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(kZero), 0};
}

// What stands on each side once the two indexes are known.
struct Objects {
  std::vector<netlink::Address> pod_addresses;
  std::vector<Neigh> pod_neighs, node_neighs;
  std::vector<Route> pod_routes, node_routes;
};

Route pod_route(const Cidr& dst, int link) {
  bool v4 = dst.family() == AF_INET;
  // IPv6 takes any link-local gateway as on the link; it gives a route without a metric 1024.
  return {.dst = dst, .link = link, .via = link_local_gateway(dst.family()), .onlink = v4, .metric = v4 ? 0u : 1024u};
}

Objects objects_of(const AttachmentSpec& spec, int pod_index, int node_index) {
  Objects o;
  std::vector<int> families;
  for (const auto& a : spec.addresses) {
    bool v4 = a.is_v4();
    o.pod_addresses.push_back({.link = pod_index, .cidr = host_prefix(a), .no_dad = !v4});
    o.node_routes.push_back({.dst = host_prefix(a), .link = node_index, .scope_link = v4, .metric = v4 ? 0u : 1024u});
    o.node_neighs.push_back({.link = node_index, .ip = a, .mac = pod_mac(spec)});
    if (std::ranges::find(families, a.family()) != families.end()) continue;
    families.push_back(a.family());
    o.pod_neighs.push_back(
        {.link = pod_index, .ip = link_local_gateway(a.family()), .mac = host_mac(spec.addresses[0])});
    o.pod_routes.push_back(pod_route(default_route(a.family()), pod_index));
  }
  for (const auto& r : spec.extra_routes) {
    if (r.dst.prefix() != 0) o.pod_routes.push_back(pod_route(r.dst.network(), pod_index));
  }
  return o;
}

Result<> put_all(Rtnl& rtnl, const std::vector<Neigh>& neighs, const std::vector<Route>& routes) {
  for (const auto& n : neighs) {
    if (auto r = rtnl.change_neigh(Verb::kReplace, n); !r) return r;
  }
  for (const auto& route : routes) {
    if (auto r = rtnl.change_route(Verb::kReplace, route); !r) return r;
  }
  return {};
}

Result<std::string> entries_fault(Rtnl& rtnl, const char* where, const std::vector<Neigh>& neighs,
                                  const std::vector<Route>& routes) {
  for (const auto& n : neighs) {
    auto have = rtnl.list_neighs(NeighTable::kNeighbor, n.link);
    if (!have) return propagate(have);
    if (std::ranges::find(*have, n) == have->end())
      return fmt::format("{}: neighbour entry {} -> {} is missing", where, n.ip, n.mac);
  }
  for (const auto& want : routes) {
    auto have = rtnl.list_routes(want.link);
    if (!have) return propagate(have);
    auto same = [&](const Route& r) { return r.dst == want.dst && r.via == want.via; };
    if (std::ranges::find_if(*have, same) == have->end())
      return fmt::format("{}: route {} is missing", where, want.dst);
  }
  return std::string();
}

std::string link_fault(const netlink::Link& l, const MacAddr& mac, int mtu) {
  if (!l.up) return fmt::format("interface {} is down", l.name);
  if (l.mac != mac) return fmt::format("interface {} has MAC {}, not {}", l.name, l.mac, mac);
  if (mtu != 0 && l.mtu != mtu) return fmt::format("interface {} has MTU {}, not {}", l.name, l.mtu, mtu);
  return {};
}

}  // namespace

std::string host_link_prefix(std::string_view network) {
  return "hw" + base32(ipam::hash_text(network), kNetworkChars);
}
std::string host_link_name(std::string_view network, const ipam::Owner& owner) {
  return host_link_prefix(network) + base32(ipam::hash_owner(owner), kOwnerChars);
}
bool is_host_link(const netlink::Link& l, std::string_view network) {
  return l.kind == "veth" && l.name.starts_with(host_link_prefix(network)) && l.name.size() == kHostLinkChars;
}

IpAddr link_local_gateway(int family) {
  static constexpr std::array<std::uint8_t, 16> kV6{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return family == AF_INET ? IpAddr::v4(0xa9fe0101) : IpAddr::v6(kV6);
}
MacAddr pod_mac(const IpAddr& first) {
  return mac_from(0x0a, first);
}
MacAddr host_mac(const IpAddr& first) {
  return mac_from(0x0e, first);
}

MacAddr pod_mac(const AttachmentSpec& spec) {
  return spec.mac.value_or(pod_mac(spec.addresses[0]));
}

Result<> attach(Rtnl& node, Rtnl& pod, const AttachmentSpec& spec) {
  Rollback undo;
  auto made = node.add_link({.name = spec.host_name,
                             .kind = "veth",
                             .mtu = spec.mtu,
                             .mac = host_mac(spec.addresses[0]),
                             .up = true,
                             .peer = {.name = spec.ifname, .netns_fd = spec.netns_fd, .mac = pod_mac(spec)}});
  if (!made) return made;
  undo.push([&] { (void)detach(node, spec.host_name); });
  auto host = node.get_link(spec.host_name);
  if (!host) return propagate(host);
  Objects o = objects_of(spec, host->peer_index, host->index);
  if (auto r = spec.before_up(); !r) return r;
  for (const auto& a : o.pod_addresses) {
    if (auto r = pod.change_address(Verb::kReplace, a); !r) return r;
  }
  if (auto r = pod.change_link(kLoopbackIndex, {.up = true}); !r) return r;
  if (auto r = pod.change_link(host->peer_index, {.up = true}); !r) return r;
  // Neighbour before route: a packet must never find a route whose gateway has to be asked for.
  if (auto r = put_all(pod, o.pod_neighs, o.pod_routes); !r) return r;
  // The node's route comes last: until it stands nothing reaches a half-made pod.
  if (auto r = put_all(node, o.node_neighs, o.node_routes); !r) return r;
  undo.commit();
  return {};
}

Result<> detach(Rtnl& node, const std::string& host_name) {
  auto r = netlink::forget_link(node, host_name);
  if (!r) return propagate(r);
  return {};
}

Result<std::string> attachment_fault(Rtnl& node, Rtnl& pod, const AttachmentSpec& spec) {
  auto host = node.get_link(spec.host_name);
  if (!host && is_not_found(host.error())) return fmt::format("node: interface {} is missing", spec.host_name);
  if (!host) return propagate(host);
  auto eth = pod.get_link(spec.ifname);
  if (!eth && is_not_found(eth.error())) return fmt::format("pod: interface {} is missing", spec.ifname);
  if (!eth) return propagate(eth);
  if (auto f = link_fault(*host, host_mac(spec.addresses[0]), spec.mtu); !f.empty()) return "node: " + f;
  if (auto f = link_fault(*eth, pod_mac(spec), spec.mtu); !f.empty()) return "pod: " + f;
  Objects o = objects_of(spec, eth->index, host->index);
  auto have = pod.list_addresses(eth->index);
  if (!have) return propagate(have);
  for (const auto& a : o.pod_addresses) {
    if (std::ranges::find(*have, a.cidr, &netlink::Address::cidr) == have->end())
      return fmt::format("pod: address {} is missing on {}", a.cidr, spec.ifname);
  }
  auto fault = entries_fault(pod, "pod", o.pod_neighs, o.pod_routes);
  if (!fault || !fault->empty()) return fault;
  return entries_fault(node, "node", o.node_neighs, o.node_routes);
}

}  // namespace hawser::cni
