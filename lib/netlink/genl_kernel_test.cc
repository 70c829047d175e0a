// SPDX-License-Identifier: Apache-2.0
// KernelWireguard and KernelIpvs against a kernel that has them, in throw-away namespaces; elsewhere they skip. The
// guests of tests/vm run this program on Debian's kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/netlink/wireguard.h"
#include "lib/testing/netns_fixture.h"

namespace hawser::netlink {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

Cidr cidr(const std::string& t) {
  return *Cidr::parse(t);
}
IpAddr ip(const std::string& t) {
  return *IpAddr::parse(t);
}
WgKey key(int n) {
  WgKey k;
  k.bytes = {1, static_cast<std::uint8_t>(n), static_cast<std::uint8_t>(n >> 8)};
  return k;
}

class KernelWireguardTest : public hawser::testing::NetNsTest {
 protected:
  void SetUp() override {
    NetNsTest::SetUp();
    if (IsSkipped()) return;
    auto rtnl = KernelRtnl::open();
    auto wg = KernelWireguard::open();
    ASSERT_TRUE(rtnl && wg);
    auto made = rtnl->add_link({.name = "wg0", .kind = "wireguard", .mtu = 1420, .up = true});
    if (!made && made.error().code == EOPNOTSUPP) GTEST_SKIP() << "this kernel has no WireGuard";
    ASSERT_TRUE(made) << made.error().text;
    wg_.emplace(std::move(*wg));
    rtnl_.emplace(std::move(*rtnl));
  }
  WgDevice get() {
    auto d = wg_->get("wg0");
    EXPECT_TRUE(d) << d.error().text;
    return d.value_or(WgDevice{});
  }
  void change(const WgChange& c) {
    auto r = wg_->change("wg0", c);
    ASSERT_TRUE(r) << r.error().text;
  }
  std::optional<KernelWireguard> wg_;
  std::optional<KernelRtnl> rtnl_;
};

TEST_F(KernelWireguardTest, TheKernelDerivesThePublicKey) {
  // RFC 7748 section 6.1, Alice.
  auto secret = WgKey::parse("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
  ASSERT_TRUE(secret);
  change({.private_key = secret->clamped(), .port = 51820});
  auto d = get();
  EXPECT_EQ(d.public_key.text(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
  EXPECT_EQ(d.private_key, secret->clamped()) << "what was written reads back, so nothing is written again";
  EXPECT_EQ(d.port, 51820);
  const auto random = WgKey::random_private();
  change({.private_key = random});
  EXPECT_EQ(get().private_key, random);
}

TEST_F(KernelWireguardTest, PeersReadBackAndChange) {
  const WgEndpoint v4{ip("192.0.2.12"), 51820}, v6{ip("2001:db8::12"), 51821};
  change({.peers = {{.public_key = key(1),
                     .preshared_key = key(7),
                     .endpoint = v4,
                     .keepalive_seconds = 25,
                     .allowed_ips = std::vector{cidr("10.244.1.0/24"), cidr("fd00:1::/64")}},
                    {.public_key = key(2), .endpoint = v6}}});
  auto d = get();
  ASSERT_EQ(d.peers.size(), 2u);
  EXPECT_EQ(d.peers[0].public_key, key(1));
  EXPECT_EQ(d.peers[0].preshared_key, key(7));
  EXPECT_EQ(d.peers[0].endpoint, v4);
  EXPECT_EQ(d.peers[0].keepalive_seconds, 25);
  EXPECT_THAT(d.peers[0].allowed_ips, UnorderedElementsAre(cidr("10.244.1.0/24"), cidr("fd00:1::/64")));
  EXPECT_EQ(d.peers[1].endpoint, v6);
  EXPECT_EQ(d.peers[1].last_handshake, 0);
  // A field without a value stays; ranges are replaced, and belong to one peer.
  change({.peers = {{.public_key = key(2), .allowed_ips = std::vector{cidr("10.244.1.0/24")}}}});
  d = get();
  EXPECT_THAT(d.peers[0].allowed_ips, ElementsAre(cidr("fd00:1::/64")));
  EXPECT_THAT(d.peers[1].allowed_ips, ElementsAre(cidr("10.244.1.0/24")));
  EXPECT_EQ(d.peers[1].endpoint, v6);
  change({.peers = {{.public_key = key(1), .remove = true}, {.public_key = key(2), .keepalive_seconds = 0}}});
  d = get();
  ASSERT_EQ(d.peers.size(), 1u);
  EXPECT_EQ(d.peers[0].public_key, key(2));
}

TEST_F(KernelWireguardTest, ManyPeersComeInSeveralParts) {
  WgChange c;
  constexpr int kPeers = 500;
  for (int i = 0; i < kPeers; i++) {
    c.peers.push_back({.public_key = key(i),
                       .allowed_ips = std::vector{cidr(fmt::format("10.{}.{}.0/24", i / 250, i % 250)),
                                                  cidr(fmt::format("fd00:{:x}::/64", i))}});
  }
  change(c);
  auto d = get();
  EXPECT_EQ(d.peers.size(), static_cast<std::size_t>(kPeers));
  for (const auto& p : d.peers) EXPECT_EQ(p.allowed_ips.size(), 2u);
}

TEST_F(KernelWireguardTest, ErrorsAreTheKernels) {
  EXPECT_EQ(wg_->get("absent").error().code, ENODEV);
  ASSERT_TRUE(rtnl_->add_link({.name = "v0", .kind = "veth", .peer = {.name = "v1"}}));
  EXPECT_EQ(wg_->get("v0").error().code, EOPNOTSUPP);
}

class KernelIpvsTest : public hawser::testing::NetNsTest {
 protected:
  void SetUp() override {
    NetNsTest::SetUp();
    if (IsSkipped()) return;
    auto ipvs = KernelIpvs::open();
    ASSERT_TRUE(ipvs);
    auto services = ipvs->list_services();
    if (!services && services.error().code == EOPNOTSUPP) GTEST_SKIP() << "this kernel has no IPVS";
    ASSERT_TRUE(services) << services.error().text;
    EXPECT_THAT(*services, IsEmpty());
    ipvs_.emplace(std::move(*ipvs));
  }
  std::optional<KernelIpvs> ipvs_;
};

TEST_F(KernelIpvsTest, ServicesAndDestinationsReadBack) {
  const IpvsService tcp{.key = {IPPROTO_TCP, ip("10.96.0.10"), 80}, .scheduler = "rr"};
  const IpvsService udp{.key = {IPPROTO_UDP, ip("fd00:96::10"), 53}, .scheduler = "rr", .persistence_seconds = 10800};
  for (const auto& s : {tcp, udp}) {
    auto r = ipvs_->change_service(IpvsVerb::kAdd, s);
    ASSERT_TRUE(r) << r.error().text;
  }
  EXPECT_TRUE(is_exists(ipvs_->change_service(IpvsVerb::kAdd, tcp).error()));
  auto services = ipvs_->list_services();
  ASSERT_TRUE(services) << services.error().text;
  EXPECT_THAT(*services, UnorderedElementsAre(tcp, udp));
  IpvsDestination d{.address = ip("10.244.2.7"), .port = 8080, .weight = 3};
  const IpvsDestination d6{.address = ip("fd00:2::7"), .port = 5353};
  ASSERT_TRUE(ipvs_->change_destination(IpvsVerb::kAdd, tcp.key, d));
  ASSERT_TRUE(ipvs_->change_destination(IpvsVerb::kAdd, udp.key, d6));
  EXPECT_THAT(*ipvs_->list_destinations(tcp.key), ElementsAre(d));
  EXPECT_THAT(*ipvs_->list_destinations(udp.key), ElementsAre(d6));
  d.weight = 0;
  ASSERT_TRUE(ipvs_->change_destination(IpvsVerb::kSet, tcp.key, d));
  EXPECT_THAT(*ipvs_->list_destinations(tcp.key), ElementsAre(d));
  ASSERT_TRUE(ipvs_->change_destination(IpvsVerb::kDelete, tcp.key, d));
  EXPECT_THAT(*ipvs_->list_destinations(tcp.key), IsEmpty());
  ASSERT_TRUE(ipvs_->change_service(IpvsVerb::kDelete, tcp));
  EXPECT_THAT(*ipvs_->list_services(), ElementsAre(udp));
}

TEST_F(KernelIpvsTest, AServiceChangesInPlace) {
  IpvsService s{.key = {IPPROTO_TCP, ip("10.96.0.10"), 80}, .scheduler = "rr"};
  ASSERT_TRUE(ipvs_->change_service(IpvsVerb::kAdd, s));
  ASSERT_TRUE(ipvs_->change_destination(IpvsVerb::kAdd, s.key, {.address = ip("10.244.2.7"), .port = 8080}));
  s.persistence_seconds = 60;
  auto r = ipvs_->change_service(IpvsVerb::kSet, s);
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_THAT(*ipvs_->list_services(), ElementsAre(s));
  EXPECT_EQ(ipvs_->list_destinations(s.key)->size(), 1u);
  EXPECT_EQ(ipvs_->change_service(IpvsVerb::kAdd, {.key = {IPPROTO_TCP, ip("10.96.0.11"), 80}, .scheduler = "nope"})
                .error()
                .code,
            EOPNOTSUPP);
  const IpvsKey absent{IPPROTO_UDP, ip("10.96.0.12"), 53};
  EXPECT_THAT(ipvs_->change_service(IpvsVerb::kDelete, {.key = absent}).error().code, AnyOf(ESRCH, ENOENT));
}

TEST_F(KernelIpvsTest, TimeoutsReadBack) {
  ASSERT_TRUE(ipvs_->set_timeouts({.tcp_seconds = 600, .udp_seconds = 30}));
  auto t = ipvs_->get_timeouts();
  ASSERT_TRUE(t) << t.error().text;
  EXPECT_EQ(t->tcp_seconds, 600u);
  EXPECT_EQ(t->udp_seconds, 30u);
  EXPECT_NE(t->tcp_fin_seconds, 0u) << "what was not said stayed";
}

TEST_F(KernelIpvsTest, AThousandServicesInOneDump) {
  constexpr int kServices = 1000;
  for (int i = 0; i < kServices; i++) {
    auto r = ipvs_->change_service(
        IpvsVerb::kAdd,
        {.key = {IPPROTO_TCP, ip(fmt::format("10.96.{}.{}", i / 250, i % 250)), 80}, .scheduler = "rr"});
    ASSERT_TRUE(r) << r.error().text;
  }
  EXPECT_EQ(ipvs_->list_services()->size(), static_cast<std::size_t>(kServices));
}

}  // namespace
}  // namespace hawser::netlink
