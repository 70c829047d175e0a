// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/testing/netns_fixture.h"
#include "proxyd/conntrack/reconcile.h"

namespace hawser::proxy {
namespace {

Target at(std::string_view addr, std::uint16_t port) {
  return {*IpAddr::parse(addr), port};
}

// A node with 192.0.2.11, and UDP 10.96.0.53:53 translated to it on port 8053. `nft` and `ip` set the scene.
class KernelConntrackTest : public hawser::testing::NetNsTest {
 protected:
  void SetUp() override {
    NetNsTest::SetUp();
    if (IsSkipped()) return;
    if (std::system("command -v nft > /dev/null && command -v ip > /dev/null") != 0)
      GTEST_SKIP() << "nft and ip are not installed";
    ASSERT_EQ(std::system("ip addr add 192.0.2.11/32 dev lo && ip route add 10.96.0.0/16 dev lo src 192.0.2.11 &&"
                          "nft 'table ip t { chain c { type nat hook output priority -100; ip daddr 10.96.0.53 "
                          "meta l4proto { udp, sctp } th dport 53 dnat to 192.0.2.11:8053; }; }'"),
              0);
  }

  // Sends one datagram from a new socket.
  static void send_to(const char* addr, std::uint16_t port) {
    UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in a{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {inet_addr(addr)}, .sin_zero = {}};
    ASSERT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&a), sizeof a), 1);
  }

  // The first packet of an SCTP association, by hand: kernels without SCTP sockets track and translate it all the same.
  static void send_init_to(const char* addr, std::uint16_t port) {
    UniqueFd fd(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP));
    const std::uint8_t high = static_cast<std::uint8_t>(port >> 8), low = static_cast<std::uint8_t>(port & 0xff);
    const std::uint8_t init[] = {0x0f, 0xa0, high, low, 0, 0, 0, 0, 0, 0, 0, 0,  // ports, tag 0, checksum
                                 1,    0,    0,    20,  0, 0, 0, 1, 0, 1, 0, 0,  // INIT, 20 bytes, tag 1, window
                                 0,    1,    0,    1,   0, 0, 0, 1};             // a stream each way, first number
    sockaddr_in a{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {inet_addr(addr)}, .sin_zero = {}};
    ASSERT_EQ(sendto(fd.get(), init, sizeof init, 0, reinterpret_cast<sockaddr*>(&a), sizeof a),
              static_cast<ssize_t>(sizeof init));
  }

  static DesiredState service_with(std::vector<Target> targets, std::uint8_t protocol = IPPROTO_UDP) {
    auto s = std::make_shared<ServiceState>();
    s->frontends = {{.addr = *IpAddr::parse("10.96.0.53"),
                     .family = AF_INET,
                     .protocol = protocol,
                     .port = 53,
                     .targets = std::move(targets)}};
    DesiredState d;
    d.services = {s};
    return d;
  }
};

TEST_F(KernelConntrackTest, RemovesExactlyTheStaleFlow) {
  auto table = KernelConntrack::open();
  ASSERT_TRUE(table) << table.error().text;
  send_to("10.96.0.53", 53);
  send_to("192.0.2.11", 9999);
  auto flows = table->list(AF_INET, IPPROTO_UDP);
  ASSERT_TRUE(flows) << flows.error().text;
  ASSERT_EQ(flows->size(), 2u);

  metrics::Registry registry;
  ConntrackReconciler r(*table, registry, system_clock());
  std::vector<IpAddr> node{*IpAddr::parse("192.0.2.11")};
  auto removed = r.run(service_with({at("192.0.2.11", 8053)}), node);
  ASSERT_TRUE(removed) << removed.error().text;
  EXPECT_EQ(*removed, 0) << "the flow's endpoint is current";
  removed = r.run(service_with({at("192.0.2.12", 8053)}), node);
  ASSERT_TRUE(removed) << removed.error().text;
  EXPECT_EQ(*removed, 1);

  flows = table->list(AF_INET, IPPROTO_UDP);
  ASSERT_TRUE(flows);
  ASSERT_EQ(flows->size(), 1u);
  EXPECT_EQ(flows->front().destination, (netlink::FlowEnd{*IpAddr::parse("192.0.2.11"), 9999}))
      << "the foreign flow stays";
}

TEST_F(KernelConntrackTest, SctpToo) {
  auto table = KernelConntrack::open();
  ASSERT_TRUE(table);
  send_init_to("10.96.0.53", 53);
  send_to("10.96.0.53", 53);
  auto flows = table->list(AF_INET, IPPROTO_SCTP);
  ASSERT_TRUE(flows) << flows.error().text;
  if (flows->empty()) GTEST_SKIP() << "this kernel does not track SCTP";
  EXPECT_EQ(flows->front().answers_from, (netlink::FlowEnd{*IpAddr::parse("192.0.2.11"), 8053}));
  metrics::Registry registry;
  ConntrackReconciler r(*table, registry, system_clock());
  EXPECT_EQ(r.run(service_with({at("192.0.2.11", 8053)}, IPPROTO_SCTP), {}).value_or(-1), 0);
  EXPECT_EQ(r.run(service_with({at("192.0.2.12", 8053)}, IPPROTO_SCTP), {}).value_or(-1), 1);
  EXPECT_TRUE(table->list(AF_INET, IPPROTO_SCTP)->empty());
  EXPECT_EQ(table->list(AF_INET, IPPROTO_UDP)->size(), 1u) << "the same address by UDP is no Service";
}

TEST_F(KernelConntrackTest, RemovingAFlowThatIsGoneIsSuccess) {
  auto table = KernelConntrack::open();
  ASSERT_TRUE(table);
  Flow f{.protocol = IPPROTO_UDP,
         .source = {*IpAddr::parse("192.0.2.11"), 1},
         .destination = {*IpAddr::parse("192.0.2.11"), 2},
         .answers_from = {*IpAddr::parse("192.0.2.11"), 2}};
  auto r = table->remove(f);
  EXPECT_TRUE(r) << r.error().text;
}

}  // namespace
}  // namespace hawser::proxy
