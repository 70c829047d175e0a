// SPDX-License-Identifier: Apache-2.0
// Pure parts: message building, attribute reading, error answers, ensure-semantics on the fake.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "lib/netlink/rtnl_ensure.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/netlink/socket.h"

namespace hawser::netlink {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

Cidr cidr(const char* t) {
  return *Cidr::parse(t);
}
IpAddr ip(const char* t) {
  return *IpAddr::parse(t);
}
MacAddr mac(const char* t) {
  return *MacAddr::parse(t);
}

TEST(Message, RoundTripsAttributes) {
  Message m(RTM_NEWLINK, 0);
  m.fixed<ifinfomsg>().ifi_index = 7;
  m.u32(1, 0x01020304);
  m.be16(2, 8472);
  m.addr(3, ip("2001:db8::1"));
  m.mac(4, mac("02:00:00:00:00:01"));
  m.strz(5, "eth0");
  {
    Message::Nest n(m, 6);
    m.u8(1, 9);
  }
  ASSERT_FALSE(m.full());
  Attrs a(m.header(), sizeof(ifinfomsg));
  EXPECT_EQ(a.u32(1), 0x01020304u);
  EXPECT_EQ(a.be16(2), 8472);
  EXPECT_EQ(a.addr(3), ip("2001:db8::1"));
  EXPECT_EQ(a.mac(4), mac("02:00:00:00:00:01"));
  EXPECT_EQ(a.str(5), "eth0");
  ASSERT_TRUE(a.nest(6));
  EXPECT_EQ(a.nest(6)->u8(1), 9);
  EXPECT_EQ(a.u16(1), std::nullopt) << "a wrongly sized attribute reads as absent";
  EXPECT_EQ(a.u32(77), std::nullopt);
  EXPECT_EQ(a.u32(7777), std::nullopt);
}

TEST(Message, LatchesOverflow) {
  Message m(RTM_NEWLINK, 0);
  std::array<std::uint8_t, 1500> big{};
  m.bytes(1, big.data(), big.size());
  EXPECT_FALSE(m.full());
  m.bytes(2, big.data(), big.size());
  EXPECT_TRUE(m.full());
}

TEST(Attrs, StopsAtATornAttribute) {
  alignas(4) std::array<std::uint8_t, 12> b{8, 0, 1, 0, 1, 0, 0, 0, 200, 0, 2, 0};
  Attrs a{std::span<const std::uint8_t>(b)};
  EXPECT_EQ(a.u32(1), 1u);
  EXPECT_FALSE(a.has(2));
}

TEST(AnswerError, CarriesTheExtendedAck) {
  alignas(8) std::array<std::uint8_t, 256> b{};
  auto* h = mnl_nlmsg_put_header(b.data());
  h->nlmsg_type = NLMSG_ERROR;
  h->nlmsg_flags = NLM_F_ACK_TLVS | NLM_F_CAPPED;
  auto* e = static_cast<nlmsgerr*>(mnl_nlmsg_put_extra_header(h, sizeof(nlmsgerr)));
  e->error = -EINVAL;
  mnl_attr_put_strz(h, NLMSGERR_ATTR_MSG, "Invalid MTU");
  EXPECT_EQ(answer_error(h).code, EINVAL);
  EXPECT_THAT(answer_error(h).text, HasSubstr("Invalid MTU"));
  e->error = 0;
  EXPECT_EQ(answer_error(h).code, 0);
}

LinkSpec vxlan_spec() {
  return {.name = "flannel.1",
          .kind = "vxlan",
          .mtu = 1450,
          .mac = mac("02:00:00:00:00:aa"),
          .up = true,
          .vxlan = {.vni = 1, .port = 8472, .local = ip("192.0.2.11"), .underlay_index = 2}};
}

TEST(Incompatibility, NamesTheReason) {
  Link have{.kind = "vxlan", .vxlan = vxlan_spec().vxlan};
  EXPECT_THAT(incompatibility(have, vxlan_spec()), IsEmpty());
  struct Case {
    int line;
    std::function<void(Link&)> change;
    const char* want;
  };
  for (const Case& c : {
           Case{__LINE__, [](Link& l) { l.kind = "bridge"; }, "kind \"bridge\""},
           Case{__LINE__, [](Link& l) { l.vxlan.vni = 2; }, "VNI 2, not 1"},
           Case{__LINE__, [](Link& l) { l.vxlan.port = 4789; }, "UDP port 4789"},
           Case{__LINE__, [](Link& l) { l.vxlan.local = ip("192.0.2.9"); }, "local address 192.0.2.9"},
           Case{__LINE__, [](Link& l) { l.vxlan.underlay_index = 9; }, "underlay link 9"},
       }) {
    Link l = have;
    c.change(l);
    EXPECT_THAT(incompatibility(l, vxlan_spec()), HasSubstr(c.want)) << "line " << c.line;
  }
}

TEST(EnsureLink, SecondRunWritesNothing) {
  FakeRtnl k;
  ASSERT_TRUE(ensure_link(k, vxlan_spec()));
  auto before = k.writes();
  auto again = ensure_link(k, vxlan_spec());
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->wrote);
  EXPECT_EQ(k.writes(), before);
}

TEST(EnsureLink, ChangesInPlaceWhatItCan) {
  FakeRtnl k;
  int index = ensure_link(k, vxlan_spec())->link.index;
  auto spec = vxlan_spec();
  spec.mtu = 1400;
  spec.mac = mac("02:00:00:00:00:bb");
  spec.vxlan.learning = true;
  auto r = ensure_link(k, spec);
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->link.vxlan.learning);
  EXPECT_EQ(r->link.index, index);
  EXPECT_EQ(r->link.mtu, 1400);
  EXPECT_EQ(r->link.mac, *spec.mac);
  EXPECT_THAT(r->recreated_because, IsEmpty());
}

TEST(EnsureLink, RecreatesOnlyTheIncompatible) {
  FakeRtnl k;
  int index = ensure_link(k, vxlan_spec())->link.index;
  auto spec = vxlan_spec();
  spec.vxlan.vni = 2;
  auto r = ensure_link(k, spec);
  ASSERT_TRUE(r);
  EXPECT_NE(r->link.index, index);
  EXPECT_EQ(r->recreated_because, "VNI 1, not 2");
}

TEST(Ensure, AddressRouteNeighAreIdempotent) {
  FakeRtnl k;
  int dev = k.add_hardware("eth0", 1500);
  Address a{.link = dev, .cidr = cidr("10.244.1.0/32")};
  Route r{.dst = cidr("10.244.2.0/24"), .link = dev, .via = ip("10.244.2.0"), .onlink = true};
  Neigh n{.link = dev, .ip = ip("10.244.2.0"), .mac = mac("02:00:00:00:00:02")};
  EXPECT_TRUE(*ensure_address(k, a) && *ensure_route(k, r) && *ensure_neigh(k, n));
  EXPECT_FALSE(*ensure_address(k, a) || *ensure_route(k, r) || *ensure_neigh(k, n));
  n.mac = mac("02:00:00:00:00:03");
  EXPECT_TRUE(*ensure_neigh(k, n));
  EXPECT_EQ(k.list_neighs(NeighTable::kNeighbor, dev)->size(), 1u);
  EXPECT_TRUE(*forget_neigh(k, n) && *forget_route(k, r) && *forget_address(k, a));
  EXPECT_FALSE(*forget_neigh(k, n) || *forget_route(k, r) || *forget_address(k, a));
  EXPECT_FALSE(*forget_link(k, "absent"));
}

}  // namespace
}  // namespace hawser::netlink
