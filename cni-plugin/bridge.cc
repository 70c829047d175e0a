// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/bridge.h"

#include <algorithm>
#include <array>

#include <sys/socket.h>

#include "cni-plugin/attachment.h"
#include "lib/base/rollback.h"
#include "lib/base/sysctl.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::cni {
namespace {

using netlink::Route;
using netlink::Rtnl;

constexpr int kLoopbackIndex = 1;

Route pod_route(const Cidr& dst, const IpAddr& via, int link) {
  // IPv6 gives a route without a metric 1024.
  return {.dst = dst, .link = link, .via = via, .metric = dst.family() == AF_INET ? 0u : 1024u};
}

Cidr default_route(int family) {
  static constexpr std::array<std::uint8_t, 16> kZero{};
  return {family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(kZero), 0};
}

std::vector<Route> pod_routes(const BridgeSpec& s, int link) {
  std::vector<Route> out;
  std::vector<int> families;
  for (const auto& a : s.addresses) {
    const int family = a.pod.family();
    if (!a.gateway || std::ranges::find(families, family) != families.end()) continue;
    families.push_back(family);
    if (s.bridge.default_gateway) out.push_back(pod_route(default_route(family), a.gateway, link));
    for (const auto& dst : s.routes) {
      if (dst.family() == family && (dst.prefix() != 0 || !s.bridge.default_gateway))
        out.push_back(pod_route(dst.network(), a.gateway, link));
    }
  }
  return out;
}

// The bridge's address of one family.
Result<> give_gateway(Rtnl& node, const netlink::Link& bridge, const BridgeAddress& a, const BridgeSpec& s) {
  const Cidr want(a.gateway, a.pod.prefix());
  auto have = node.list_addresses(bridge.index);
  if (!have) return propagate(have);
  auto former = [&](const Cidr& c) { return std::ranges::find(s.former, c) != s.former.end(); };
  // What else a bridge of ours has been given is an administrator's business.
  const bool ours = std::ranges::any_of(
      *have, [&](const auto& h) { return h.cidr.family() == want.family() && (h.cidr == want || former(h.cidr)); });
  for (const auto& h : *have) {
    // The kernel's own link-local address is nobody's choice.
    const bool link_local = h.cidr.family() == AF_INET6 && h.cidr.addr().bytes()[0] == 0xfe;
    if (h.cidr.family() != want.family() || h.cidr == want || link_local) continue;
    // Pods of the former subnet still go through it. Subnets that overlap cannot be told apart on one bridge.
    if (former(h.cidr) ? !h.cidr.overlaps(want) : ours && !s.bridge.force_address) continue;
    if (!s.bridge.force_address)
      return fail(EADDRINUSE, "bridge {} has address {}, not {}; forceAddress would change it", bridge.name, h.cidr,
                  want);
    auto gone = netlink::forget_address(node, h);
    if (!gone) return propagate(gone);
  }
  auto r = netlink::ensure_address(node, {.link = bridge.index, .cidr = want, .no_dad = want.family() == AF_INET6});
  // Another first ADD was faster.
  if (!r && !is_exists(r.error())) return propagate(r);
  return {};
}

Result<netlink::Link> ensure_bridge(Rtnl& node, const BridgeSpec& s) {
  // No MTU in what is asked for: a bridge's follows its ports, and ours must not change what others have set.
  netlink::LinkSpec want{.name = s.bridge.name, .kind = "bridge", .up = false};
  auto have = node.get_link(s.bridge.name);
  if (!have && !is_not_found(have.error())) return propagate(have);
  if (have && have->kind != "bridge")
    return fail(EINVAL, "interface {} is a {}, not a bridge", s.bridge.name,
                have->kind.empty() ? "device" : have->kind);
  if (!have) {
    const auto& first = s.addresses[0];
    want.mac = host_mac(first.gateway ? first.gateway : first.pod.addr());
    want.mtu = s.mtu;
    auto made = node.add_link(want);
    // EEXIST: another first ADD was faster.
    if (!made && !is_exists(made.error())) return propagate(made);
    // Before it goes up: what the node forwards over IPv6 would wait for the check of the bridge's link-local address.
    const bool v6 = std::ranges::any_of(s.addresses, [](const auto& a) { return a.pod.family() == AF_INET6; });
    if (v6) {
      auto r = sysctl::ensure(fmt::format("net/ipv6/conf/{}/accept_dad", s.bridge.name), "0");
      if (!r) return propagate(r);
    }
    have = node.get_link(s.bridge.name);
    if (!have) return propagate(have);
  }
  if (!have->up || s.bridge.promiscuous) {
    netlink::LinkChange c{.up = true};
    if (s.bridge.promiscuous) c.promiscuous = true;
    if (auto r = node.change_link(have->index, c); !r) return propagate(r);
  }
  if (s.bridge.gateway || s.bridge.default_gateway) {
    for (const auto& a : s.addresses) {
      if (!a.gateway) continue;
      if (auto r = give_gateway(node, *have, a, s); !r) return propagate(r);
    }
  }
  return have;
}

}  // namespace

MacAddr pod_mac(const BridgeSpec& s) {
  return s.mac.value_or(pod_mac(s.addresses[0].pod.addr()));
}

Result<> attach_to_bridge(Rtnl& node, Rtnl& pod, const BridgeSpec& s) {
  auto bridge = ensure_bridge(node, s);
  if (!bridge) return propagate(bridge);
  auto made = node.add_link({.name = s.host_name,
                             .kind = "veth",
                             .mtu = s.mtu,
                             .up = false,
                             .peer = {.name = s.ifname, .netns_fd = s.netns_fd, .mac = pod_mac(s)}});
  if (!made) return made;
  Rollback undo;
  undo.push([&] { (void)detach(node, s.host_name); });
  auto host = node.get_link(s.host_name);
  if (!host) return propagate(host);
  // A port needs no address of its own, not even the kernel's link-local one.
  if (auto r = node.change_link(host->index, {.master = bridge->index, .auto_ipv6 = false}); !r) return r;
  if (s.bridge.hairpin) {
    if (auto r = node.change_link(host->index, {.hairpin = true}); !r) return r;
  }
  if (auto r = s.before_up(); !r) return r;
  for (const auto& a : s.addresses) {
    auto r = pod.change_address(netlink::Verb::kReplace,
                                {.link = host->peer_index, .cidr = a.pod, .no_dad = a.pod.family() == AF_INET6});
    if (!r) return r;
  }
  if (auto r = pod.change_link(kLoopbackIndex, {.up = true}); !r) return r;
  if (auto r = pod.change_link(host->peer_index, {.up = true}); !r) return r;
  // With both ends up the port forwards at once: there is no spanning tree to wait for.
  if (auto r = node.change_link(host->index, {.up = true}); !r) return r;
  for (const auto& route : pod_routes(s, host->peer_index)) {
    if (auto r = pod.change_route(netlink::Verb::kReplace, route); !r) return r;
  }
  undo.commit();
  return {};
}

Result<> drop_gateway(Rtnl& node, const std::string& bridge, const Cidr& gateway) {
  auto link = node.get_link(bridge);
  if (!link && is_not_found(link.error())) return {};
  if (!link) return propagate(link);
  // Else the kernel takes the subnet's other IPv4 addresses away with its first.
  if (gateway.family() == AF_INET) {
    auto r = sysctl::ensure(fmt::format("net/ipv4/conf/{}/promote_secondaries", bridge), "1");
    if (!r) return propagate(r);
  }
  auto r = netlink::forget_address(node, {.link = link->index, .cidr = gateway});
  if (!r) return propagate(r);
  return {};
}

Result<std::string> bridge_fault(Rtnl& node, Rtnl& pod, const BridgeSpec& s) {
  struct Side {
    Rtnl& rtnl;
    const char* where;
    const std::string& name;
  };
  std::vector<netlink::Link> links;
  for (const Side& side :
       {Side{node, "node", s.bridge.name}, Side{node, "node", s.host_name}, Side{pod, "pod", s.ifname}}) {
    auto l = side.rtnl.get_link(side.name);
    if (!l && is_not_found(l.error())) return fmt::format("{}: interface {} is missing", side.where, side.name);
    if (!l) return propagate(l);
    if (!l->up) return fmt::format("{}: interface {} is down", side.where, side.name);
    links.push_back(std::move(*l));
  }
  if (links[1].master != links[0].index)
    return fmt::format("node: interface {} is not a port of {}", s.host_name, s.bridge.name);
  const auto& eth = links[2];
  if (eth.mac != pod_mac(s)) return fmt::format("pod: interface {} has MAC {}, not {}", s.ifname, eth.mac, pod_mac(s));
  auto have = pod.list_addresses(eth.index);
  if (!have) return propagate(have);
  for (const auto& a : s.addresses) {
    if (std::ranges::find(*have, a.pod, &netlink::Address::cidr) == have->end())
      return fmt::format("pod: address {} is missing on {}", a.pod, s.ifname);
  }
  auto routes = pod.list_routes(eth.index);
  if (!routes) return propagate(routes);
  for (const auto& want : pod_routes(s, eth.index)) {
    auto same = [&](const Route& r) { return r.dst == want.dst && r.via == want.via; };
    if (std::ranges::none_of(*routes, same)) return fmt::format("pod: route {} is missing", want.dst);
  }
  return std::string();
}

}  // namespace hawser::cni
