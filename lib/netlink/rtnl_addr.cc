// SPDX-License-Identifier: Apache-2.0
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::netlink {

std::optional<Address> parse_address(const nlmsghdr* h) {
  if ((h->nlmsg_type != RTM_NEWADDR && h->nlmsg_type != RTM_DELADDR) ||
      mnl_nlmsg_get_payload_len(h) < sizeof(ifaddrmsg))
    return std::nullopt;
  const auto* ifa = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(h));
  Attrs a(h, sizeof(ifaddrmsg));
  // IPv4 gives the own address as LOCAL (ADDRESS is the far end on point-to-point links); IPv6 gives ADDRESS alone.
  IpAddr ip = a.addr(a.has(IFA_LOCAL) ? IFA_LOCAL : IFA_ADDRESS);
  if (!ip) return std::nullopt;
  std::uint32_t flags = a.u32(IFA_FLAGS).value_or(ifa->ifa_flags);
  return Address{
      .link = static_cast<int>(ifa->ifa_index), .cidr = {ip, ifa->ifa_prefixlen}, .no_dad = (flags & IFA_F_NODAD) != 0};
}

Result<std::vector<Address>> KernelRtnl::list_addresses(int link) {
  Message m(RTM_GETADDR, 0);
  m.fixed<ifaddrmsg>().ifa_index = static_cast<std::uint32_t>(link);
  auto r = socket_.dump<Address>(m, [link](const nlmsghdr* h) -> std::optional<Address> {
    auto a = parse_address(h);
    // Kernels without strict checking ignore the filter.
    if (a && link != 0 && a->link != link) return std::nullopt;
    return a;
  });
  if (!r) return propagate(r, "list addresses");
  return r;
}

Result<> KernelRtnl::change_address(Verb verb, const Address& address) {
  const bool del = verb == Verb::kDelete;
  Message m(del ? RTM_DELADDR : RTM_NEWADDR,
            del ? 0 : NLM_F_CREATE | (verb == Verb::kAdd ? NLM_F_EXCL : NLM_F_REPLACE));
  auto& ifa = m.fixed<ifaddrmsg>();
  ifa.ifa_family = static_cast<std::uint8_t>(address.cidr.family());
  ifa.ifa_prefixlen = static_cast<std::uint8_t>(address.cidr.prefix());
  ifa.ifa_index = static_cast<std::uint32_t>(address.link);
  ifa.ifa_scope = RT_SCOPE_UNIVERSE;
  m.addr(IFA_LOCAL, address.cidr.addr());
  m.addr(IFA_ADDRESS, address.cidr.addr());
  if (address.no_dad) m.u32(IFA_FLAGS, IFA_F_NODAD);
  auto r = socket_.execute(m);
  if (!r) return propagate(r, "{} address {}", del ? "delete" : "add", address.cidr);
  return {};
}

}  // namespace hawser::netlink
