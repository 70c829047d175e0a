// SPDX-License-Identifier: Apache-2.0
// Generic netlink and WireGuard: messages byte for byte, answers in parts, keys as text.
#include "lib/netlink/wireguard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/wireguard.h>

#include "lib/netlink/genl.h"
#include "lib/netlink/wireguard_fake.h"

namespace hawser::netlink {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint16_t kFamily = 0x1f;

// The message in hexadecimal, one line an attribute header or value of four bytes, without sequence and port numbers.
std::string hex(Message& m) {
  std::string out;
  const auto* b = reinterpret_cast<const std::uint8_t*>(m.header());
  for (std::uint32_t i = 0; i < m.header()->nlmsg_len; i++) {
    if (i >= 8 && i < 16) continue;
    out += fmt::format("{:02x}{}", b[i], i % 4 == 3 ? " " : "");
  }
  return out;
}
WgKey key(std::uint8_t n) {
  WgKey k;
  k.bytes.fill(n);
  return k;
}
std::string words(const char* word, int n) {
  std::string out;
  for (int i = 0; i < n; i++) out += std::string(word) + " ";
  return out;
}
Cidr cidr(const char* t) {
  return *Cidr::parse(t);
}

TEST(Genl, TheQuestionForAFamily) {
  Message m(GENL_ID_CTRL, 0);
  put_family_query(m, "wireguard");
  // Length, type 0x10, NLM_F_REQUEST; CTRL_CMD_GETFAMILY, version 1; CTRL_ATTR_FAMILY_NAME.
  EXPECT_EQ(hex(m), "24000000 10000100 03010000 0e000200 77697265 67756172 64000000 ");
}

TEST(Genl, TheNumberInAnAnswer) {
  Message m(GENL_ID_CTRL, 0);
  put_genl_header(m, CTRL_CMD_NEWFAMILY, 2);
  m.strz(CTRL_ATTR_FAMILY_NAME, "wireguard");
  EXPECT_EQ(parse_family_id(m.header()), std::nullopt);
  m.u16(CTRL_ATTR_FAMILY_ID, 0x1f);
  EXPECT_EQ(parse_family_id(m.header()), 0x1f);
  Message other(NLMSG_MIN_TYPE, 0);
  EXPECT_EQ(parse_family_id(other.header()), std::nullopt);
}

TEST(Genl, AnUnknownFamilyIsNotFound) {
  auto s = Socket::open(NETLINK_GENERIC);
  ASSERT_TRUE(s);
  auto id = find_family(*s, "no-such-family");
  ASSERT_FALSE(id);
  EXPECT_TRUE(is_not_found(id.error()));
  EXPECT_THAT(id.error().text, HasSubstr("\"no-such-family\""));
  auto control = find_family(*s, "nlctrl");
  ASSERT_TRUE(control) << control.error().text;
  EXPECT_EQ(*control, GENL_ID_CTRL);
}

TEST(WireguardMessage, Query) {
  Message m(kFamily, NLM_F_DUMP);
  put_wg_query(m, "flannel-wg");
  EXPECT_EQ(hex(m), "24000000 1f000103 00010000 0f000200 666c616e 6e656c2d 77670000 ");
}

TEST(WireguardMessage, DeviceHasKeyAndPort) {
  Message m(kFamily, 0);
  put_wg_device(m, "wg0", {.private_key = key(0xaa), .port = 51820});
  EXPECT_EQ(hex(m),
            "48000000 1f000100 01010000 08000200 77673000 24000300 " + words("aaaaaaaa", 8) + "06000600 6cca0000 ");
}

TEST(WireguardMessage, PeerOfBothFamilies) {
  Message m(kFamily, 0);
  put_wg_peer(m, "wg0",
              {.public_key = key(1),
               .preshared_key = key(2),
               .endpoint = WgEndpoint{*IpAddr::parse("192.0.2.12"), 51820},
               .keepalive_seconds = 25,
               .allowed_ips = std::vector{cidr("10.244.2.0/24"), cidr("fd00:2::/64")}});
  EXPECT_FALSE(m.full());
  EXPECT_EQ(hex(m),
            "d8000000 1f000100 01010000 08000200 77673000 "
            "bc000880 "    // WGDEVICE_A_PEERS
            "b8000080 "    // the peer
            "24000100 " +  // WGPEER_A_PUBLIC_KEY
                words("01010101", 8) +
                "08000300 02000000 "  // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
                "24000200 " +         // WGPEER_A_PRESHARED_KEY
                words("02020202", 8) +
                "14000400 0200ca6c c000020c 00000000 00000000 "  // WGPEER_A_ENDPOINT: sockaddr_in
                "06000500 19000000 "                             // keepalive
                "48000980 "                                      // WGPEER_A_ALLOWEDIPS
                "1c000080 06000100 02000000 08000200 0af40200 05000300 18000000 "
                "28000080 06000100 0a000000 14000200 fd000002 00000000 00000000 00000000 05000300 40000000 ");
}

TEST(WireguardMessage, EndpointOfIpv6AndRemoval) {
  Message m(kFamily, 0);
  put_wg_peer(m, "wg0", {.public_key = key(1), .endpoint = WgEndpoint{*IpAddr::parse("2001:db8::12"), 51821}});
  EXPECT_THAT(hex(m), HasSubstr("20000400 0a00ca6d 00000000 20010db8 00000000 00000000 00000012 00000000 "));
  Message gone(kFamily, 0);
  put_wg_peer(gone, "wg0", {.public_key = key(1), .remove = true, .keepalive_seconds = 25});
  EXPECT_EQ(hex(gone), "50000000 1f000100 01010000 08000200 77673000 34000880 30000080 24000100 " +
                           words("01010101", 8) + "08000300 01000000 ");
}

TEST(WireguardMessage, TooManyRangesDoNotFit) {
  Message m(kFamily, 0);
  put_wg_peer(m, "wg0", {.public_key = key(1), .allowed_ips = std::vector(100, cidr("10.0.0.0/8"))});
  EXPECT_TRUE(m.full());
}

// What put_wg_peer writes reads back; the kernel's own attributes beside it.
TEST(WireguardMessage, ReadsADevice) {
  Message m(kFamily, 0);
  put_genl_header(m, WG_CMD_GET_DEVICE, 1);
  m.u32(WGDEVICE_A_IFINDEX, 7);
  m.strz(WGDEVICE_A_IFNAME, "wg0");
  m.bytes(WGDEVICE_A_PUBLIC_KEY, key(9).bytes.data(), 32);
  m.u16(WGDEVICE_A_LISTEN_PORT, 51820);
  {
    Message::Nest peers(m, WGDEVICE_A_PEERS);
    for (std::uint8_t n : {1, 2}) {
      Message::Nest peer(m, 0);
      m.bytes(WGPEER_A_PUBLIC_KEY, key(n).bytes.data(), 32);
      const std::array<std::int64_t, 2> handshake{1700000000, 5};
      m.bytes(WGPEER_A_LAST_HANDSHAKE_TIME, handshake.data(), sizeof handshake);
      const std::uint64_t bytes = 148;
      m.bytes(WGPEER_A_RX_BYTES, &bytes, sizeof bytes);
      Message::Nest ips(m, WGPEER_A_ALLOWEDIPS);
      for (const char* t : {"10.244.2.0/24", "fd00:2::/64"}) {
        Message::Nest ip(m, 0);
        m.addr(WGALLOWEDIP_A_IPADDR, cidr(t).addr());
        m.u8(WGALLOWEDIP_A_CIDR_MASK, static_cast<std::uint8_t>(cidr(t).prefix()));
      }
    }
  }
  ASSERT_FALSE(m.full());
  auto d = parse_wg_device(m.header());
  ASSERT_TRUE(d);
  EXPECT_EQ(d->index, 7);
  EXPECT_EQ(d->name, "wg0");
  EXPECT_EQ(d->public_key, key(9));
  EXPECT_FALSE(d->private_key);
  EXPECT_EQ(d->port, 51820);
  ASSERT_EQ(d->peers.size(), 2u);
  EXPECT_EQ(d->peers[1].public_key, key(2));
  EXPECT_EQ(d->peers[1].last_handshake, 1700000000);
  EXPECT_EQ(d->peers[1].received_bytes, 148u);
  EXPECT_FALSE(d->peers[1].endpoint.address);
  EXPECT_THAT(d->peers[1].allowed_ips, ElementsAre(cidr("10.244.2.0/24"), cidr("fd00:2::/64")));
}

TEST(WireguardMessage, LaterPartsHaveNoName) {
  Message m(kFamily, 0);
  put_genl_header(m, WG_CMD_GET_DEVICE, 1);
  EXPECT_FALSE(parse_wg_device(m.header()));
  {
    Message::Nest peers(m, WGDEVICE_A_PEERS);
    Message::Nest peer(m, 0);
    m.bytes(WGPEER_A_PUBLIC_KEY, key(1).bytes.data(), 32);
  }
  auto part = parse_wg_device(m.header());
  ASSERT_TRUE(part);
  EXPECT_EQ(part->peers.size(), 1u);
}

TEST(WireguardMessage, PartsAreJoined) {
  WgDevice first{.index = 7, .name = "wg0", .port = 1, .peers = {{.public_key = key(1)}, {.public_key = key(2)}}};
  first.peers[1].allowed_ips = {cidr("10.0.0.0/24")};
  WgDevice second{.name = "wg0", .peers = {{.public_key = key(2)}, {.public_key = key(3)}}};
  second.peers[0].allowed_ips = {cidr("10.0.1.0/24")};
  auto d = join_wg_parts({first, second});
  EXPECT_EQ(d.index, 7);
  ASSERT_EQ(d.peers.size(), 3u);
  EXPECT_THAT(d.peers[1].allowed_ips, ElementsAre(cidr("10.0.0.0/24"), cidr("10.0.1.0/24")));
}

TEST(WireguardKey, TextForms) {
  auto k = WgKey::parse("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
  ASSERT_TRUE(k);
  EXPECT_EQ(*k, key(1));
  EXPECT_EQ(k->text(), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
  EXPECT_FALSE(WgKey::parse(""));
  for (const char* wrong : {"AQEB", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ==", "!"}) {
    auto r = WgKey::parse(wrong);
    ASSERT_FALSE(r) << wrong;
    EXPECT_THAT(r.error().text, Not(HasSubstr(wrong))) << "a secret is not quoted";
  }
  const auto secret = WgKey::random_private();
  EXPECT_NE(secret, WgKey::random_private());
  EXPECT_EQ(secret.bytes[0] & 7, 0);
  EXPECT_EQ(secret.bytes[31] & 192, 64);
}

TEST(FakeWireguard, ARangeBelongsToOnePeer) {
  FakeRtnl rtnl;
  FakeWireguard wg(rtnl);
  EXPECT_TRUE(is_not_found(wg.get("wg0").error()));
  ASSERT_TRUE(rtnl.add_link({.name = "wg0", .kind = "wireguard"}));
  ASSERT_TRUE(wg.change("wg0", {.private_key = key(1),
                                .port = 5,
                                .peers = {{.public_key = key(2), .allowed_ips = std::vector{cidr("10.0.0.0/24")}},
                                          {.public_key = key(3), .allowed_ips = std::vector{cidr("10.0.0.0/24")}}}}));
  auto d = wg.get("wg0");
  ASSERT_TRUE(d && d->peers.size() == 2);
  EXPECT_EQ(d->public_key, FakeWireguard::public_of(key(1)));
  EXPECT_TRUE(d->peers[0].allowed_ips.empty());
  ASSERT_TRUE(wg.change("wg0", {.peers = {{.public_key = key(2), .remove = true}}}));
  EXPECT_EQ(wg.get("wg0")->peers.size(), 1u);
}

}  // namespace
}  // namespace hawser::netlink
