// SPDX-License-Identifier: Apache-2.0
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::netlink {
namespace {

void put_vxlan(Message& m, const VxlanParams& v) {
  Message::Nest info(m, IFLA_INFO_DATA);
  m.u32(IFLA_VXLAN_ID, v.vni);
  m.be16(IFLA_VXLAN_PORT, v.port);
  m.u8(IFLA_VXLAN_LEARNING, v.learning ? 1 : 0);
  if (v.local) m.addr(v.local.is_v4() ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, v.local);
  if (v.underlay_index) m.u32(IFLA_VXLAN_LINK, static_cast<std::uint32_t>(v.underlay_index));
}

void put_veth(Message& m, const LinkSpec& spec) {
  Message::Nest info(m, IFLA_INFO_DATA);
  Message::Nest peer(m, VETH_INFO_PEER);
  if (!m.inner<ifinfomsg>()) return;
  m.strz(IFLA_IFNAME, spec.peer.name);
  if (spec.mtu) m.u32(IFLA_MTU, static_cast<std::uint32_t>(spec.mtu));
  if (spec.peer.mac) m.mac(IFLA_ADDRESS, *spec.peer.mac);
  if (spec.peer.netns_fd >= 0) m.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(spec.peer.netns_fd));
}

void parse_vxlan(const Attrs& data, VxlanParams& v) {
  v.vni = data.u32(IFLA_VXLAN_ID).value_or(0);
  v.port = data.be16(IFLA_VXLAN_PORT).value_or(0);
  v.learning = data.u8(IFLA_VXLAN_LEARNING).value_or(0) != 0;
  v.underlay_index = static_cast<int>(data.u32(IFLA_VXLAN_LINK).value_or(0));
  v.local = data.addr(data.has(IFLA_VXLAN_LOCAL) ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6);
}

}  // namespace

std::optional<Link> parse_link(const nlmsghdr* h) {
  if ((h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK) ||
      mnl_nlmsg_get_payload_len(h) < sizeof(ifinfomsg))
    return std::nullopt;
  const auto* ifi = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(h));
  // A bridge announces its ports under its own family with few attributes; those are not the link's own messages.
  if (ifi->ifi_family != AF_UNSPEC) return std::nullopt;
  Attrs a(h, sizeof(ifinfomsg));
  Link l;
  l.index = ifi->ifi_index;
  l.up = (ifi->ifi_flags & IFF_UP) != 0;
  l.running = (ifi->ifi_flags & IFF_RUNNING) != 0;
  l.carrier = (ifi->ifi_flags & 0x10000 /* IFF_LOWER_UP, which <net/if.h> lacks */) != 0;
  l.name = a.str(IFLA_IFNAME);
  l.alias = a.str(IFLA_IFALIAS);
  l.mtu = static_cast<int>(a.u32(IFLA_MTU).value_or(0));
  l.mac = a.mac(IFLA_ADDRESS).value_or(MacAddr{});
  l.master = static_cast<int>(a.u32(IFLA_MASTER).value_or(0));
  l.peer_index = static_cast<int>(a.u32(IFLA_LINK).value_or(0));
  if (auto info = a.nest(IFLA_LINKINFO)) {
    l.kind = info->str(IFLA_INFO_KIND);
    auto data = info->nest(IFLA_INFO_DATA);
    if (data && l.kind == "vxlan") parse_vxlan(*data, l.vxlan);
  }
  return l;
}

Result<KernelRtnl> KernelRtnl::open(int netns_fd) {
  auto s = Socket::open(NETLINK_ROUTE, {.netns_fd = netns_fd});
  if (!s) return propagate(s);
  return KernelRtnl(std::move(*s));
}

Result<Link> KernelRtnl::get_link(const std::string& name) {
  Message m(RTM_GETLINK, 0);
  m.fixed<ifinfomsg>();
  m.strz(IFLA_IFNAME, name);
  m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  std::optional<Link> found;
  auto r = socket_.execute(m, [&](const nlmsghdr* h) { found = parse_link(h); });
  if (!r) return propagate(r, "link {}", name);
  if (!found) return fail(ENODEV, "link {}: no answer", name);
  return *found;
}

Result<std::vector<Link>> KernelRtnl::list_links() {
  Message m(RTM_GETLINK, 0);
  m.fixed<ifinfomsg>();
  m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  auto r = socket_.dump<Link>(m, parse_link);
  if (!r) return propagate(r, "list links");
  return r;
}

Result<> KernelRtnl::add_link(const LinkSpec& spec) {
  Message m(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  auto& ifi = m.fixed<ifinfomsg>();
  if (spec.up) ifi.ifi_flags = ifi.ifi_change = IFF_UP;
  m.strz(IFLA_IFNAME, spec.name);
  if (spec.mtu) m.u32(IFLA_MTU, static_cast<std::uint32_t>(spec.mtu));
  if (spec.mac) m.mac(IFLA_ADDRESS, *spec.mac);
  {
    Message::Nest info(m, IFLA_LINKINFO);
    m.strz(IFLA_INFO_KIND, spec.kind);
    if (spec.kind == "vxlan") put_vxlan(m, spec.vxlan);
    if (spec.kind == "veth") put_veth(m, spec);
  }
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "create {} link {}", spec.kind, spec.name);
  return {};
}

// By itself: the kernel refuses an MTU in the same message.
Result<> KernelRtnl::change_learning(int index, bool on) {
  Message m(RTM_NEWLINK, 0);
  m.fixed<ifinfomsg>().ifi_index = index;
  {
    Message::Nest info(m, IFLA_LINKINFO);
    m.strz(IFLA_INFO_KIND, "vxlan");
    Message::Nest data(m, IFLA_INFO_DATA);
    m.u8(IFLA_VXLAN_LEARNING, on ? 1 : 0);
  }
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "change link {}", index);
  return {};
}

Result<> KernelRtnl::change_link(int index, const LinkChange& c) {
  if (c.learning) {
    if (auto r = change_learning(index, *c.learning); !r) return r;
  }
  Message m(RTM_NEWLINK, 0);
  auto& ifi = m.fixed<ifinfomsg>();
  ifi.ifi_index = index;
  if (c.up) {
    ifi.ifi_change |= IFF_UP;
    ifi.ifi_flags |= *c.up ? IFF_UP : 0;
  }
  if (c.promiscuous) {
    ifi.ifi_change |= IFF_PROMISC;
    ifi.ifi_flags |= *c.promiscuous ? IFF_PROMISC : 0;
  }
  if (c.mtu) m.u32(IFLA_MTU, static_cast<std::uint32_t>(*c.mtu));
  if (c.mac) m.mac(IFLA_ADDRESS, *c.mac);
  if (c.master) m.u32(IFLA_MASTER, static_cast<std::uint32_t>(*c.master));
  if (c.alias) m.strz(IFLA_IFALIAS, *c.alias);
  if (c.auto_ipv6) {
    Message::Nest spec(m, IFLA_AF_SPEC);
    Message::Nest inet6(m, AF_INET6);
    m.u8(IFLA_INET6_ADDR_GEN_MODE, *c.auto_ipv6 ? IN6_ADDR_GEN_MODE_EUI64 : IN6_ADDR_GEN_MODE_NONE);
  }
  if (c.hairpin) {
    Message::Nest info(m, IFLA_LINKINFO);
    m.strz(IFLA_INFO_SLAVE_KIND, "bridge");
    Message::Nest port(m, IFLA_INFO_SLAVE_DATA);
    m.u8(IFLA_BRPORT_MODE, *c.hairpin ? 1 : 0);
  }
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "change link {}", index);
  return {};
}

Result<> KernelRtnl::delete_link(int index) {
  Message m(RTM_DELLINK, 0);
  m.fixed<ifinfomsg>().ifi_index = index;
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "delete link {}", index);
  return {};
}

}  // namespace hawser::netlink
