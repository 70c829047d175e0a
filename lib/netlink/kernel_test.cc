// SPDX-License-Identifier: Apache-2.0
// KernelRtnl and Monitor against the real kernel in throw-away namespaces; `ip` and `bridge` are the oracles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include "lib/netlink/monitor.h"
#include "lib/netlink/rtnl_ensure.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/testing/netns_fixture.h"

namespace hawser::netlink {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Cidr cidr(const char* t) {
  return *Cidr::parse(t);
}
IpAddr ip(const char* t) {
  return *IpAddr::parse(t);
}
MacAddr mac(const char* t) {
  return *MacAddr::parse(t);
}

std::string sh(const std::string& command) {
  std::string out;
  FILE* p = popen((command + " 2>&1").c_str(), "re");
  std::array<char, 4096> b{};
  for (size_t n; (n = fread(b.data(), 1, b.size(), p)) > 0;) out.append(b.data(), n);
  pclose(p);
  return out;
}

class KernelRtnlTest : public hawser::testing::NetNsTest {
 protected:
  void SetUp() override {
    NetNsTest::SetUp();
    if (IsSkipped()) return;
    auto k = KernelRtnl::open();
    ASSERT_TRUE(k) << k.error().text;
    k_.emplace(std::move(*k));
  }
  // A veth pair as underlay; returns the index of "eth0".
  int underlay() {
    auto r = ensure_link(*k_, {.name = "eth0", .kind = "veth", .mtu = 1500, .up = true, .peer = {.name = "far"}});
    EXPECT_TRUE(r) << r.error().text;
    auto far = k_->get_link("far");
    EXPECT_TRUE(far && k_->change_link(far->index, {.up = true}));
    return r ? r->link.index : -1;
  }
  std::optional<KernelRtnl> k_;
};

TEST_F(KernelRtnlTest, VethDirectlyIntoAnotherNamespace) {
  auto other = NetNs::create();
  ASSERT_TRUE(other);
  LinkSpec spec{.name = "host0",
                .kind = "veth",
                .mtu = 1400,
                .mac = mac("02:00:00:00:00:01"),
                .up = true,
                .peer = {.name = "pod0", .netns_fd = other->fd(), .mac = mac("02:00:00:00:00:02")}};
  auto made = k_->add_link(spec);
  ASSERT_TRUE(made) << made.error().text;
  EXPECT_THAT(sh("ip link show dev host0"),
              AllOf(HasSubstr("mtu 1400"), HasSubstr("02:00:00:00:00:01"), HasSubstr("UP")));
  auto inside = KernelRtnl::open(other->fd());
  ASSERT_TRUE(inside);
  auto pod = inside->get_link("pod0");
  ASSERT_TRUE(pod) << pod.error().text;
  EXPECT_EQ(pod->mac, mac("02:00:00:00:00:02"));
  EXPECT_EQ(pod->mtu, 1400);
  EXPECT_FALSE(pod->up);
  ASSERT_TRUE(inside->change_link(pod->index, {.up = true}));
  EXPECT_TRUE(inside->get_link("pod0")->up);
  EXPECT_EQ(pod->peer_index, k_->get_link("host0")->index);
  auto again = k_->add_link(spec);
  ASSERT_FALSE(again);
  EXPECT_TRUE(is_exists(again.error()));
}

TEST_F(KernelRtnlTest, ErrorsNameTheObjectAndTheKernelsReason) {
  auto absent = k_->get_link("nope");
  ASSERT_FALSE(absent);
  EXPECT_TRUE(is_not_found(absent.error())) << absent.error().text;
  EXPECT_THAT(absent.error().text, HasSubstr("nope"));
  auto bad = k_->change_route(Verb::kAdd, {.dst = cidr("10.1.0.0/16"), .link = 4242});
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().text, HasSubstr("10.1.0.0/16"));
  int dev = underlay();
  auto mtu = k_->change_link(dev, {.mtu = 1});
  ASSERT_FALSE(mtu);
  EXPECT_THAT(mtu.error().text, HasSubstr("mtu")) << "the extended ack says what is wrong";
}

TEST_F(KernelRtnlTest, VxlanIsEnsuredOnceAndKeepsItsIndex) {
  LinkSpec spec{.name = "flannel.1",
                .kind = "vxlan",
                .mtu = 1450,
                .mac = mac("02:00:00:00:00:aa"),
                .up = true,
                .vxlan = {.vni = 1, .port = 8472, .local = ip("192.0.2.11"), .underlay_index = underlay()}};
  auto first = ensure_link(*k_, spec);
  ASSERT_TRUE(first) << first.error().text;
  EXPECT_THAT(sh("ip -d link show dev flannel.1"),
              AllOf(HasSubstr("vxlan id 1"), HasSubstr("local 192.0.2.11"), HasSubstr("dstport 8472"),
                    HasSubstr("nolearning"), HasSubstr("mtu 1450")));
  auto second = ensure_link(*k_, spec);
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->wrote);
  EXPECT_EQ(second->link.index, first->link.index);
  sh("ip link set flannel.1 mtu 1300; ip link set flannel.1 type vxlan id 1 learning");
  auto third = ensure_link(*k_, spec);
  ASSERT_TRUE(third);
  EXPECT_TRUE(third->wrote);
  EXPECT_EQ(third->link.index, first->link.index);
  EXPECT_EQ(third->link.mtu, 1450);
  EXPECT_THAT(sh("ip -d link show dev flannel.1"), HasSubstr("nolearning"));
}

struct EntryCase {
  const char* name;
  const char* subnet;  // of the peer
  const char* gateway;
  const char* vtep;
};

TEST_F(KernelRtnlTest, AddressesRoutesNeighboursOfBothFamilies) {
  int eth = underlay();
  auto dev = ensure_link(
      *k_,
      {.name = "flannel.1", .kind = "vxlan", .up = true, .vxlan = {.vni = 1, .port = 8472, .underlay_index = eth}});
  ASSERT_TRUE(dev) << dev.error().text;
  int i = dev->link.index;
  for (const auto& c : {EntryCase{"v4", "10.244.2.0/24", "10.244.2.0", "192.0.2.12"},
                        EntryCase{"v6", "fd00:2::/64", "fd00:2::", "192.0.2.12"}}) {
    SCOPED_TRACE(c.name);
    auto own = Address{.link = i, .cidr = {ip(c.gateway).plus(9), ip(c.gateway).bits()}, .no_dad = true};
    auto n = Neigh{.link = i, .ip = ip(c.gateway), .mac = mac("02:00:00:00:00:bb")};
    auto f = Neigh{.table = NeighTable::kFdb, .link = i, .ip = ip(c.vtep), .mac = mac("02:00:00:00:00:bb")};
    auto r = Route{.dst = cidr(c.subnet), .link = i, .via = ip(c.gateway), .onlink = true};
    if (r.dst.family() == AF_INET6) r.metric = 1024;  // what the kernel gives an IPv6 route without one
    for (int round = 0; round < 2; round++) {
      auto ra = ensure_address(*k_, own);
      auto rn = ensure_neigh(*k_, n);
      auto rf = ensure_neigh(*k_, f);
      auto rr = ensure_route(*k_, r);
      ASSERT_TRUE(ra && rn && rf) << (ra ? rn ? rf.error().text : rn.error().text : ra.error().text);
      ASSERT_TRUE(rr) << rr.error().text;
      EXPECT_EQ(*ra || *rn || *rr, round == 0);
    }
    EXPECT_THAT(sh("ip route show; ip -6 route show"),
                HasSubstr(fmt::format("{} via {} dev flannel.1", c.subnet, c.gateway)));
    EXPECT_THAT(sh("ip neigh show dev flannel.1"),
                HasSubstr(fmt::format("{} lladdr 02:00:00:00:00:bb PERMANENT", c.gateway)));
    EXPECT_THAT(sh("bridge fdb show dev flannel.1"), HasSubstr("02:00:00:00:00:bb dst 192.0.2.12 self permanent"));
    EXPECT_TRUE(*forget_route(*k_, r));
    EXPECT_TRUE(*forget_neigh(*k_, f));
    EXPECT_TRUE(*forget_neigh(*k_, n));
    EXPECT_FALSE(*forget_neigh(*k_, n));
    EXPECT_FALSE(*forget_neigh(*k_, f));
    EXPECT_FALSE(*forget_route(*k_, r));
  }
  EXPECT_THAT(sh("ip route; ip -6 route; bridge fdb show dev flannel.1"), Not(HasSubstr("02:00:00:00:00:bb")));
}

TEST_F(KernelRtnlTest, FdbEntryMovesWithItsMac) {
  auto dev = ensure_link(*k_, {.name = "flannel.1",
                               .kind = "vxlan",
                               .up = true,
                               .vxlan = {.vni = 1, .port = 8472, .underlay_index = underlay()}});
  ASSERT_TRUE(dev);
  Neigh f{.table = NeighTable::kFdb, .link = dev->link.index, .ip = ip("192.0.2.12"), .mac = mac("02:00:00:00:00:bb")};
  ASSERT_TRUE(ensure_neigh(*k_, f));
  f.ip = ip("192.0.2.99");
  ASSERT_TRUE(ensure_neigh(*k_, f));
  auto all = k_->list_neighs(NeighTable::kFdb, dev->link.index);
  ASSERT_TRUE(all);
  EXPECT_EQ(*all, std::vector{f});
}

TEST_F(KernelRtnlTest, BlackholeAndDefaultRoutes) {
  int eth = underlay();
  Route hole{.dst = cidr("10.244.1.0/24"), .type = RouteType::kBlackhole};
  Route def{.dst = cidr("0.0.0.0/0"), .link = eth, .via = ip("169.254.1.1"), .onlink = true};
  ASSERT_TRUE(ensure_route(*k_, hole));
  ASSERT_TRUE(ensure_route(*k_, def));
  EXPECT_THAT(sh("ip route"),
              AllOf(HasSubstr("blackhole 10.244.1.0/24"), HasSubstr("default via 169.254.1.1 dev eth0")));
  EXPECT_FALSE(*ensure_route(*k_, hole));
  EXPECT_FALSE(*ensure_route(*k_, def));
  EXPECT_TRUE(*forget_route(*k_, hole));
}

TEST_F(KernelRtnlTest, MonitorReportsWhatOthersDo) {
  int eth = underlay();
  auto mon = Monitor::open();
  ASSERT_TRUE(mon) << mon.error().text;
  sh("ip addr add 192.0.2.1/24 dev eth0; ip route add 10.9.0.0/16 dev eth0; ip route del 10.9.0.0/16; ip link del "
     "eth0");
  std::vector<std::string> seen;
  pollfd p{.fd = mon->fd(), .events = POLLIN, .revents = 0};
  while (poll(&p, 1, 200) > 0) {
    ASSERT_TRUE(mon->read([&](const Event& e) { seen.push_back(e.text()); }));
  }
  EXPECT_THAT(seen, ::testing::IsSupersetOf({"address 192.0.2.1/24 set", "route 10.9.0.0/16 set",
                                             "route 10.9.0.0/16 removed", "link eth0 removed"}));
  (void)eth;
}

TEST_F(KernelRtnlTest, MonitorOverrunBecomesResync) {
  underlay();
  auto socket = Socket::open(NETLINK_ROUTE, {.groups = {7 /* RTNLGRP_IPV4_ROUTE */}, .receive_buffer_bytes = 2304});
  ASSERT_TRUE(socket);
  sh("for i in $(seq 1 200); do echo route add 10.9.$i.0/24 dev eth0; done | ip -batch -");
  auto drained = socket->drain([](const nlmsghdr*) {});
  ASSERT_TRUE(drained) << drained.error().text;
  EXPECT_EQ(*drained, Socket::Drained::kLost);
}

}  // namespace
}  // namespace hawser::netlink
