// SPDX-License-Identifier: Apache-2.0
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::netlink {

std::optional<Neigh> parse_neigh(const nlmsghdr* h, NeighTable table) {
  if ((h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH) || mnl_nlmsg_get_payload_len(h) < sizeof(ndmsg))
    return std::nullopt;
  const auto* ndm = static_cast<const ndmsg*>(mnl_nlmsg_get_payload(h));
  if ((ndm->ndm_family == AF_BRIDGE) != (table == NeighTable::kFdb)) return std::nullopt;
  Attrs a(h, sizeof(ndmsg));
  auto mac = a.mac(NDA_LLADDR);
  IpAddr ip = a.addr(NDA_DST);
  // Without a MAC it is an unanswered query, without a destination an FDB entry of a bridge port.
  if (!mac || !ip) return std::nullopt;
  // NOARP alone marks what the kernel derives by itself (multicast); an FDB entry set by hand carries both bits.
  return Neigh{.table = table,
               .link = ndm->ndm_ifindex,
               .ip = ip,
               .mac = *mac,
               .permanent = (ndm->ndm_state & NUD_PERMANENT) != 0};
}

Result<std::vector<Neigh>> KernelRtnl::list_neighs(NeighTable table, int link) {
  Message m(RTM_GETNEIGH, 0);
  auto& ndm = m.fixed<ndmsg>();
  ndm.ndm_family = table == NeighTable::kFdb ? AF_BRIDGE : AF_UNSPEC;
  // The FDB dump takes the device in the header, the neighbour dump as an attribute; each refuses the other's place.
  if (table == NeighTable::kFdb) ndm.ndm_ifindex = link;
  if (table == NeighTable::kNeighbor) m.u32(NDA_IFINDEX, static_cast<std::uint32_t>(link));
  auto r = socket_.dump<Neigh>(m, [table, link](const nlmsghdr* h) -> std::optional<Neigh> {
    auto n = parse_neigh(h, table);
    if (!n || n->link != link) return std::nullopt;
    return n;
  });
  if (!r) return propagate(r, "list {} entries", table == NeighTable::kFdb ? "FDB" : "neighbour");
  return r;
}

Result<> KernelRtnl::change_neigh(Verb verb, const Neigh& n) {
  const bool del = verb == Verb::kDelete;
  const bool fdb = n.table == NeighTable::kFdb;
  Message m(del ? RTM_DELNEIGH : RTM_NEWNEIGH,
            del ? 0 : NLM_F_CREATE | (verb == Verb::kAdd ? NLM_F_EXCL : NLM_F_REPLACE));
  auto& ndm = m.fixed<ndmsg>();
  ndm.ndm_family = fdb ? AF_BRIDGE : static_cast<std::uint8_t>(n.ip.family());
  ndm.ndm_ifindex = n.link;
  ndm.ndm_state = n.permanent ? NUD_PERMANENT : NUD_REACHABLE;
  if (fdb) ndm.ndm_flags = NTF_SELF;  // the vxlan device's own table, not that of a bridge above it
  m.addr(NDA_DST, n.ip);
  m.mac(NDA_LLADDR, n.mac);
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "{} {} entry {} {}", del ? "delete" : "add", fdb ? "FDB" : "neighbour", n.ip, n.mac);
  return {};
}

}  // namespace hawser::netlink
