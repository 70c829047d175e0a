// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/monitor.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::netlink {
namespace {

// Room for a burst of a few thousand events before the kernel starts to drop them.
constexpr int kReceiveBufferBytes = 1 << 20;

// A neighbour that goes is reported without its MAC, and first as one in state "failed"; both are its removal.
std::optional<Event> parse_neigh_event(const nlmsghdr* h) {
  if (mnl_nlmsg_get_payload_len(h) < sizeof(ndmsg)) return std::nullopt;
  const auto* ndm = static_cast<const ndmsg*>(mnl_nlmsg_get_payload(h));
  Attrs a(h, sizeof(ndmsg));
  Event e{.type = Event::Type::kNeigh};
  e.removed = h->nlmsg_type == RTM_DELNEIGH || (ndm->ndm_state & NUD_FAILED) != 0;
  e.neigh = {.table = ndm->ndm_family == AF_BRIDGE ? NeighTable::kFdb : NeighTable::kNeighbor,
             .link = ndm->ndm_ifindex,
             .ip = a.addr(NDA_DST),
             .mac = a.mac(NDA_LLADDR).value_or(MacAddr{}),
             .permanent = (ndm->ndm_state & NUD_PERMANENT) != 0};
  return e;
}

std::optional<Event> parse_event(const nlmsghdr* h) {
  Event e;
  switch (h->nlmsg_type) {
    case RTM_DELLINK:
    case RTM_DELADDR:
    case RTM_DELROUTE:
      e.removed = true;
  }
  if (auto l = parse_link(h)) {
    e.type = Event::Type::kLink;
    e.link = std::move(*l);
  } else if (auto a = parse_address(h)) {
    e.type = Event::Type::kAddress;
    e.address = *a;
  } else if (auto r = parse_route(h)) {
    e.type = Event::Type::kRoute;
    e.route = *r;
  } else if (h->nlmsg_type == RTM_NEWNEIGH || h->nlmsg_type == RTM_DELNEIGH) {
    return parse_neigh_event(h);
  } else {
    return std::nullopt;
  }
  return e;
}

}  // namespace

std::string Event::text() const {
  const char* did = removed ? "removed" : "set";
  switch (type) {
    case Type::kResync:
      return "notifications were lost";
    case Type::kLink:
      return fmt::format("link {} {}", link.name, did);
    case Type::kAddress:
      return fmt::format("address {} {}", address.cidr, did);
    case Type::kRoute:
      return fmt::format("route {} {}", route.dst, did);
    case Type::kNeigh:
      return fmt::format("{} entry {} {} {}", neigh.table == NeighTable::kFdb ? "FDB" : "neighbour", neigh.ip,
                         neigh.mac, did);
  }
  return {};
}

Result<Monitor> Monitor::open(int netns_fd) {
  auto s = Socket::open(NETLINK_ROUTE, {.netns_fd = netns_fd,
                                        .groups = {RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR,
                                                   RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE},
                                        .receive_buffer_bytes = kReceiveBufferBytes});
  if (!s) return propagate(s, "monitor");
  return Monitor(std::move(*s));
}

Result<> Monitor::read(const std::function<void(const Event&)>& on_event) {
  auto drained = socket_.drain([&](const nlmsghdr* h) {
    if (auto e = parse_event(h)) on_event(*e);
  });
  if (!drained) return propagate(drained, "monitor");
  if (*drained == Socket::Drained::kLost) on_event(Event{});
  return {};
}

}  // namespace hawser::netlink
