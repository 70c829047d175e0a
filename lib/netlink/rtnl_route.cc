// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <linux/rtnetlink.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::netlink {
namespace {

// A destination is absent from the message when it is the default route.
IpAddr any_address(int family) {
  static constexpr std::array<std::uint8_t, 16> kZero{};
  return family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(kZero);
}

struct TypeRow {
  RouteType ours;
  std::uint8_t kernels;
};
constexpr TypeRow kTypes[] = {{RouteType::kUnicast, RTN_UNICAST},
                              {RouteType::kBlackhole, RTN_BLACKHOLE},
                              {RouteType::kUnreachable, RTN_UNREACHABLE}};

}  // namespace

std::optional<Route> parse_route(const nlmsghdr* h) {
  if ((h->nlmsg_type != RTM_NEWROUTE && h->nlmsg_type != RTM_DELROUTE) || mnl_nlmsg_get_payload_len(h) < sizeof(rtmsg))
    return std::nullopt;
  const auto* rtm = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(h));
  const auto* type = std::ranges::find(kTypes, rtm->rtm_type, &TypeRow::kernels);
  if (type == std::end(kTypes) || (rtm->rtm_flags & RTM_F_CLONED) ||
      (rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6))
    return std::nullopt;
  Attrs a(h, sizeof(rtmsg));
  IpAddr dst = a.addr(RTA_DST);
  Route r;
  r.dst = {dst ? dst : any_address(rtm->rtm_family), rtm->rtm_dst_len};
  r.type = type->ours;
  // IPv6 reports a route without a next hop on lo; it is the same route as one without a device.
  r.link = r.type != RouteType::kUnicast ? 0 : static_cast<int>(a.u32(RTA_OIF).value_or(0));
  r.via = a.addr(RTA_GATEWAY);
  r.onlink = (rtm->rtm_flags & RTNH_F_ONLINK) != 0;
  r.scope_link = rtm->rtm_family == AF_INET && rtm->rtm_scope == RT_SCOPE_LINK;
  r.source = a.addr(RTA_PREFSRC);
  r.metric = a.u32(RTA_PRIORITY).value_or(0);
  r.protocol = rtm->rtm_protocol;
  r.table = a.u32(RTA_TABLE).value_or(rtm->rtm_table);
  return r;
}

Result<std::vector<Route>> KernelRtnl::list_routes(int link) {
  std::vector<Route> all;
  for (int family : {AF_INET, AF_INET6}) {
    Message m(RTM_GETROUTE, 0);
    auto& rtm = m.fixed<rtmsg>();
    rtm.rtm_family = static_cast<std::uint8_t>(family);
    rtm.rtm_table = RT_TABLE_MAIN;
    if (link) m.u32(RTA_OIF, static_cast<std::uint32_t>(link));
    auto part = socket_.dump<Route>(m, [link](const nlmsghdr* h) -> std::optional<Route> {
      auto r = parse_route(h);
      if (!r || r->table != RT_TABLE_MAIN || (link != 0 && r->link != link)) return std::nullopt;
      return r;
    });
    // A table that was never used in this namespace does not exist yet: it is empty.
    if (!part && is_not_found(part.error())) continue;
    if (!part) return propagate(part, "list routes");
    all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

Result<> KernelRtnl::change_route(Verb verb, const Route& route) {
  const bool del = verb == Verb::kDelete;
  Message m(del ? RTM_DELROUTE : RTM_NEWROUTE,
            del ? 0 : NLM_F_CREATE | (verb == Verb::kAdd ? NLM_F_EXCL : NLM_F_REPLACE));
  auto& rtm = m.fixed<rtmsg>();
  rtm.rtm_family = static_cast<std::uint8_t>(route.dst.family());
  rtm.rtm_dst_len = static_cast<std::uint8_t>(route.dst.prefix());
  rtm.rtm_table = RT_TABLE_MAIN;
  rtm.rtm_protocol = route.protocol;
  rtm.rtm_type = std::ranges::find(kTypes, route.type, &TypeRow::ours)->kernels;
  rtm.rtm_scope = route.scope_link ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  if (del && !route.scope_link) rtm.rtm_scope = RT_SCOPE_NOWHERE;  // matches any scope
  if (route.onlink) rtm.rtm_flags = RTNH_F_ONLINK;
  m.addr(RTA_DST, route.dst.network().addr());
  if (route.link) m.u32(RTA_OIF, static_cast<std::uint32_t>(route.link));
  if (route.via) m.addr(RTA_GATEWAY, route.via);
  if (route.source) m.addr(RTA_PREFSRC, route.source);
  if (route.metric) m.u32(RTA_PRIORITY, route.metric);
  if (route.table != RT_TABLE_MAIN) m.u32(RTA_TABLE, route.table);
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "{} route {}", del ? "delete" : "add", route.dst);
  return {};
}

}  // namespace hawser::netlink
