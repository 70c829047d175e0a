// SPDX-License-Identifier: Apache-2.0
// UDP flows through everything that can happen to their Service [P71, P72, P74, X01, X02]: clients never close their
// sockets here, so a flow that is not removed stays at a dead endpoint for ever.
#include <random>
#include <set>

#include <netinet/in.h>

#include "tests/netns/proxyd_fixture.h"

namespace hawser::proxy {
namespace {

using ::testing::IsSupersetOf;

const ServiceSpec kDns{.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .node_port = 30053, .protocol = "UDP"};

class ProxydUdpTest : public ProxydTest {
 protected:
  // "client:port > destination:port = answers from", of the node's table.
  std::vector<std::string> flows(const std::string& destination) {
    std::vector<std::string> r;
    host("node").run([&] {
      auto table = KernelConntrack::open();
      ASSERT_TRUE(table) << table.error().text;
      auto list = table->list(AF_INET, IPPROTO_UDP);
      ASSERT_TRUE(list) << list.error().text;
      for (const Flow& f : *list) {
        if (f.destination.addr.text() != destination) continue;
        r.push_back(fmt::format("{}:{} > {}:{} = {}", f.source.addr, f.source.port, f.destination.addr,
                                f.destination.port, f.answers_from.addr));
      }
    });
    std::ranges::sort(r);
    return r;
  }
  bool flows_gone(const std::string& destination) {
    return eventually([&] { return flows(destination).empty(); }, std::chrono::seconds(5));
  }
};

TEST_F(ProxydUdpTest, ServiceDeleted) {
  apply(kDns, {kA});
  UdpClient pod(host("client"), "10.96.0.53", 53), outside(host("outside"), "192.0.2.11", 30053);
  ASSERT_TRUE(pod.ask());
  ASSERT_TRUE(outside.ask());
  net_->remove(kDns);
  EXPECT_TRUE(flows_gone("10.96.0.53"));
  EXPECT_TRUE(flows_gone("192.0.2.11"));
}

TEST_F(ProxydUdpTest, ServiceDeletedWhileNobodyLooked) {
  apply(kDns, {kA});
  UdpClient pod(host("client"), "10.96.0.53", 53), outside(host("outside"), "192.0.2.11", 30053);
  ASSERT_TRUE(pod.ask());
  ASSERT_TRUE(outside.ask());
  p_.reset();
  net_->remove(kDns);
  EXPECT_EQ(flows("10.96.0.53").size(), 1u);
  start();
  EXPECT_TRUE(flows_gone("10.96.0.53"));
  EXPECT_TRUE(flows_gone("192.0.2.11"));
}

TEST_F(ProxydUdpTest, KilledBetweenTheRulesAndTheFlows) {
  apply(kDns, {kA});
  UdpClient pod(host("client"), "10.96.0.53", 53), outside(host("outside"), "192.0.2.11", 30053);
  ASSERT_TRUE(pod.ask());
  ASSERT_TRUE(outside.ask());
  p_.reset();
  net_->remove(kDns);
  // What a process does that dies then: the rules, and no more.
  host("node").run([&] {
    auto nft = nft::KernelNft::open();
    ASSERT_TRUE(nft);
    NftBackend b(**nft, options_);
    auto r = b.apply(std::make_shared<DesiredState>());
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_EQ(r->left.size(), 2u);
  });
  start();
  EXPECT_TRUE(flows_gone("10.96.0.53"));
  EXPECT_TRUE(flows_gone("192.0.2.11"));
}

TEST_F(ProxydUdpTest, FlowsThatAreNotOursStay) {
  // The same port on addresses where node ports are not.
  TrafficOptions o = pod_ranges();
  o.node_port_addresses = {*Cidr::parse("192.0.2.11/32")};
  restart(o);
  ASSERT_TRUE(host("node").ok("ip addr add 198.51.100.11/32 dev lo"));
  EchoServer own(host("node"), "node", 30053);
  apply(kDns, {kA});
  UdpClient loopback(host("node"), "127.0.0.1", 30053), other(host("node"), "198.51.100.11", 30053),
      far(host("client"), "10.244.2.2", 8080), ours(host("client"), "10.96.0.53", 53);
  for (auto* c : {&loopback, &other, &far, &ours}) ASSERT_TRUE(c->ask());
  const auto before = [&] {
    std::vector<std::string> all;
    for (const char* to : {"127.0.0.1", "198.51.100.11", "10.244.2.2"}) {
      for (auto& f : flows(to)) all.push_back(std::move(f));
    }
    return all;
  };
  const auto there = before();
  ASSERT_EQ(there.size(), 3u);
  apply(kDns, {kB});
  EXPECT_TRUE(flows_gone("10.96.0.53"));
  EXPECT_THAT(before(), IsSupersetOf(there));
}

TEST_F(ProxydUdpTest, ARestartMovesNothing) {
  apply(kDns, {kA, kB, kRemote});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<UdpClient>(host(i % 2 == 0 ? "client" : "node"), "10.96.0.53", 53));
    ASSERT_TRUE(clients.back()->ask()) << i;
  }
  const auto before = flows("10.96.0.53");
  ASSERT_EQ(before.size(), 200u);
  for (int i = 0; i < 5; ++i) {
    p_.reset();
    start();
    EXPECT_EQ(flows("10.96.0.53"), before);
  }
}

TEST_F(ProxydUdpTest, TerminatingEndpointsKeepTheirFlowsUntilTheyAreGone) {
  apply(kDns, {kA});
  UdpClient c(host("client"), "10.96.0.53", 53);
  ASSERT_TRUE(c.ask());
  const auto before = flows("10.96.0.53");
  EndpointSpec ending = kA;
  ending.ready = false;
  ending.terminating = true;
  apply(kDns, {ending, kB});
  EXPECT_EQ(ask_udp_name(c), "a");
  EXPECT_EQ(flows("10.96.0.53"), before);
  apply(kDns, {kB});
  EXPECT_TRUE(eventually([&] { return ask_udp_name(c) == "b"; }, std::chrono::seconds(3)));
}

// Any sequence of endpoint sets, times without any among them: a client is at a current endpoint soon after each, and
// one whose endpoint stays is not moved.
TEST_F(ProxydUdpTest, RandomChanges) {
  std::mt19937 random(20261121);
  const std::vector<std::pair<std::string, EndpointSpec>> all = {{"a", kA}, {"b", kB}, {"remote", kRemote}};
  apply(kDns, {kA, kB, kRemote});
  struct Client {
    std::unique_ptr<UdpClient> socket;
    std::string at;
  };
  std::vector<Client> clients;
  for (int i = 0; i < 6; ++i) {
    const bool outside = i % 3 == 2;
    clients.push_back({std::make_unique<UdpClient>(host(outside      ? "outside"
                                                        : i % 3 == 1 ? "node"
                                                                     : "client"),
                                                   outside ? "192.0.2.11" : "10.96.0.53",
                                                   static_cast<std::uint16_t>(outside ? 30053 : 53)),
                       ""});
  }
  for (int step = 0; step < 60; ++step) {
    std::vector<EndpointSpec> now;
    std::set<std::string> names;
    for (const auto& [name, e] : all) {
      if (random() % 2 == 0) now.push_back(e), names.insert(name);
    }
    apply(kDns, now);
    if (now.empty()) {
      // Datagrams in the meantime make flows of their own.
      for (Client& c : clients) (void)c.socket->ask(std::chrono::milliseconds(1));
      for (Client& c : clients) c.at.clear();
      continue;
    }
    for (Client& c : clients) {
      const std::string was = names.contains(c.at) ? c.at : "";
      EXPECT_TRUE(eventually(
          [&] {
            c.at = ask_udp_name(*c.socket);
            return names.contains(c.at);
          },
          std::chrono::seconds(3)))
          << "step " << step << ": at " << c.at;
      if (!was.empty()) {
        EXPECT_EQ(c.at, was) << "step " << step << ": moved";
      }
    }
  }
}

}  // namespace
}  // namespace hawser::proxy
