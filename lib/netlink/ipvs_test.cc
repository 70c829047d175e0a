// SPDX-License-Identifier: Apache-2.0
// IPVS: messages byte for byte, answers as the kernel writes them, the fake's rules, a kernel that has no IPVS.
#include "lib/netlink/ipvs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/ip_vs.h>
#include <netinet/in.h>

#include "lib/netlink/genl.h"
#include "lib/netlink/ipvs_fake.h"

namespace hawser::netlink {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint16_t kFamily = 0x1f;

// Without sequence and port numbers.
std::string hex(Message& m) {
  std::string out;
  const auto* b = reinterpret_cast<const std::uint8_t*>(m.header());
  for (std::uint32_t i = 0; i < m.header()->nlmsg_len; i++) {
    if (i >= 8 && i < 16) continue;
    out += fmt::format("{:02x}{}", b[i], i % 4 == 3 ? " " : "");
  }
  return out;
}
IpAddr ip(const char* t) {
  return *IpAddr::parse(t);
}
const IpvsKey kWeb{IPPROTO_TCP, ip("10.96.0.10"), 80};
const IpvsKey kWeb6{IPPROTO_UDP, ip("fd00::10"), 53};

TEST(IpvsMessage, Queries) {
  Message services(kFamily, NLM_F_DUMP);
  put_ipvs_services_query(services);
  EXPECT_EQ(hex(services), "14000000 1f000103 04010000 ");
  Message destinations(kFamily, NLM_F_DUMP);
  put_ipvs_destinations_query(destinations, kWeb);
  EXPECT_EQ(hex(destinations),
            "38000000 1f000103 08010000 24000180 06000100 02000000 06000200 06000000 08000300 0a60000a 06000400 "
            "00500000 ");
}

TEST(IpvsMessage, AService) {
  Message m(kFamily, 0);
  put_ipvs_service(m, IpvsVerb::kAdd, {.key = kWeb, .scheduler = "wrr"});
  EXPECT_EQ(hex(m),
            "5c000000 1f000100 01010000 48000180 06000100 02000000 06000200 06000000 08000300 0a60000a 06000400 "
            "00500000 "
            "08000600 77727200 "           // scheduler
            "0c000700 00000000 ffffffff "  // flags, and which of them count
            "08000800 00000000 "           // no persistence
            "08000900 ffffffff ");         // one client is one address
}

TEST(IpvsMessage, APersistentServiceOfIpv6) {
  Message m(kFamily, 0);
  put_ipvs_service(m, IpvsVerb::kSet, {.key = kWeb6, .scheduler = "rr", .persistence_seconds = 10800});
  EXPECT_EQ(hex(m),
            "68000000 1f000100 02010000 54000180 06000100 0a000000 06000200 11000000 "
            "14000300 fd000000 00000000 00000000 00000010 06000400 00350000 "
            "07000600 72720000 0c000700 01000000 ffffffff 08000800 302a0000 08000900 80000000 ");
}

TEST(IpvsMessage, DestinationsAndRemoval) {
  Message add(kFamily, 0);
  put_ipvs_destination(add, IpvsVerb::kAdd, kWeb, {.address = ip("10.244.2.7"), .port = 8080, .weight = 3});
  const std::string service = "24000180 06000100 02000000 06000200 06000000 08000300 0a60000a 06000400 00500000 ";
  EXPECT_EQ(hex(add), "74000000 1f000100 05010000 " + service +
                          "3c000280 06000b00 02000000 08000100 0af40207 06000200 1f900000 08000300 00000000 "
                          "08000400 03000000 08000500 00000000 08000600 00000000 ");
  Message remove(kFamily, 0);
  put_ipvs_destination(remove, IpvsVerb::kDelete, kWeb, {.address = ip("10.244.2.7"), .port = 8080});
  EXPECT_EQ(hex(remove), "54000000 1f000100 07010000 " + service +
                             "1c000280 06000b00 02000000 08000100 0af40207 06000200 1f900000 ");
  Message gone(kFamily, 0);
  put_ipvs_service(gone, IpvsVerb::kDelete, {.key = kWeb});
  EXPECT_EQ(hex(gone), "38000000 1f000100 03010000 " + service);
}

TEST(IpvsMessage, TimeoutsThatAreSet) {
  Message m(kFamily, 0);
  put_ipvs_timeouts(m, {.tcp_seconds = 900, .udp_seconds = 30});
  EXPECT_EQ(hex(m), "24000000 1f000100 0c010000 08000400 84030000 08000600 1e000000 ");
  EXPECT_EQ(parse_ipvs_timeouts(m.header()), (IpvsTimeouts{.tcp_seconds = 900, .udp_seconds = 30}));
}

// An answer of the kernel: addresses of 16 bytes in either family, its own flag "hashed" among the flags.
TEST(IpvsMessage, ReadsAService) {
  for (const bool by_mark : {false, true}) {
    Message m(kFamily, 0);
    put_genl_header(m, IPVS_CMD_NEW_SERVICE, 1);
    {
      Message::Nest nest(m, IPVS_CMD_ATTR_SERVICE);
      m.u16(IPVS_SVC_ATTR_AF, AF_INET);
      if (by_mark) {
        m.u32(IPVS_SVC_ATTR_FWMARK, 7);
      } else {
        const std::array<std::uint8_t, 16> address{10, 96, 0, 10};
        m.u16(IPVS_SVC_ATTR_PROTOCOL, IPPROTO_TCP);
        m.bytes(IPVS_SVC_ATTR_ADDR, address.data(), address.size());
        m.be16(IPVS_SVC_ATTR_PORT, 80);
      }
      m.strz(IPVS_SVC_ATTR_SCHED_NAME, "mh");
      const ip_vs_flags flags{.flags = IP_VS_SVC_F_PERSISTENT | IP_VS_SVC_F_HASHED, .mask = ~0u};
      m.bytes(IPVS_SVC_ATTR_FLAGS, &flags, sizeof flags);
      m.u32(IPVS_SVC_ATTR_TIMEOUT, 60);
      m.u32(IPVS_SVC_ATTR_NETMASK, ~0u);
    }
    const auto s = parse_ipvs_service(m.header());
    ASSERT_EQ(s.has_value(), !by_mark);
    if (by_mark) continue;
    EXPECT_EQ(*s, (IpvsService{.key = kWeb, .scheduler = "mh", .persistence_seconds = 60}));
  }
}

TEST(IpvsMessage, ReadsADestination) {
  for (const std::uint32_t method : {IP_VS_CONN_F_MASQ, IP_VS_CONN_F_TUNNEL}) {
    Message m(kFamily, 0);
    put_genl_header(m, IPVS_CMD_NEW_DEST, 1);
    {
      Message::Nest nest(m, IPVS_CMD_ATTR_DEST);
      m.addr(IPVS_DEST_ATTR_ADDR, ip("fd00:1::7"));
      m.be16(IPVS_DEST_ATTR_PORT, 8080);
      m.u32(IPVS_DEST_ATTR_FWD_METHOD, method);
      m.u32(IPVS_DEST_ATTR_WEIGHT, 2);
      m.u32(IPVS_DEST_ATTR_ACTIVE_CONNS, 5);
      m.u32(IPVS_DEST_ATTR_INACT_CONNS, 6);
      m.u32(IPVS_DEST_ATTR_PERSIST_CONNS, 7);
    }
    const auto d = parse_ipvs_destination(m.header(), AF_INET6);
    ASSERT_EQ(d.has_value(), method == IP_VS_CONN_F_MASQ);
    if (!d) continue;
    EXPECT_EQ(*d,
              (IpvsDestination{
                  .address = ip("fd00:1::7"), .port = 8080, .weight = 2, .active = 5, .inactive = 6, .persistent = 7}));
  }
}

TEST(IpvsMessage, ShortAnswersAreNothing) {
  Message empty(kFamily, 0);
  EXPECT_FALSE(parse_ipvs_service(empty.header()));
  EXPECT_FALSE(parse_ipvs_destination(empty.header(), AF_INET));
  EXPECT_FALSE(parse_ipvs_timeouts(empty.header()));
}

TEST(KernelIpvs, SaysWhatTheKernelLacks) {
  auto ipvs = KernelIpvs::open();
  ASSERT_TRUE(ipvs) << ipvs.error().text;
  auto services = ipvs->list_services();
  if (services) GTEST_SKIP() << "this kernel has IPVS";
  EXPECT_EQ(services.error().code, EOPNOTSUPP);
  EXPECT_THAT(services.error().text, HasSubstr("CONFIG_IP_VS"));
}

TEST(FakeIpvs, KeepsTheKernelsRules) {
  FakeIpvs f;
  const IpvsDestination d{.address = ip("10.244.2.7"), .port = 8080};
  EXPECT_EQ(f.change_destination(IpvsVerb::kAdd, kWeb, d).error().code, ESRCH);
  EXPECT_EQ(f.change_service(IpvsVerb::kAdd, {.key = kWeb, .scheduler = "x"}).error().code, EOPNOTSUPP);
  ASSERT_TRUE(f.change_service(IpvsVerb::kAdd, {.key = kWeb}));
  EXPECT_TRUE(is_exists(f.change_service(IpvsVerb::kAdd, {.key = kWeb}).error()));
  ASSERT_TRUE(f.change_destination(IpvsVerb::kAdd, kWeb, d));
  f.destination(kWeb, d).active = 2;
  ASSERT_TRUE(f.change_destination(IpvsVerb::kSet, kWeb, {.address = d.address, .port = d.port, .weight = 0}));
  EXPECT_EQ(f.list_destinations(kWeb)->at(0).active, 2u);
  EXPECT_THAT(f.take_log(), ElementsAre("service+ tcp 10.96.0.10:80 rr", "dest+ 10.244.2.7:8080 weight 1",
                                        "dest= 10.244.2.7:8080 weight 0"));
  ASSERT_TRUE(f.change_service(IpvsVerb::kDelete, {.key = kWeb}));
  EXPECT_EQ(f.list(), "");
}

}  // namespace
}  // namespace hawser::netlink
