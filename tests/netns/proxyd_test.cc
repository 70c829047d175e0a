// SPDX-License-Identifier: Apache-2.0
// proxyd's nftables back end with real traffic; `nft` and `conntrack` are the oracles. The network is service_net.h's.
#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/netns/proxyd_fixture.h"

namespace hawser::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(ProxydTest, ClusterIpSpreadsOverEndpoints) {
  apply({}, {kA, kB, kRemote});
  for (const char* from : {"client", "node"}) {
    const auto got = ask_many(from, "10.96.0.10", 80, 90);
    ASSERT_EQ(got.size(), 3u) << from << ": " << ::testing::PrintToString(got) << list_table();
    // Each is expected 30 times; 10 or fewer has a chance of 1 in 100,000.
    for (const auto& [name, n] : got) EXPECT_GT(n, 10) << from << " " << name;
  }
}

TEST_F(ProxydTest, ClusterIpKeepsAPodsSourceAndMasqueradesOthers) {
  apply({}, {kA});
  EXPECT_EQ(source_seen("client", "10.96.0.10", 80), "10.244.1.9");
  EXPECT_NE(source_seen("node", "10.96.0.10", 80), "10.96.0.10");
  ASSERT_TRUE(host("outside").ok("ip route add 10.96.0.0/16 via 192.0.2.11"));
  EXPECT_EQ(source_seen("outside", "10.96.0.10", 80), "169.254.1.1") << "the node's address towards the pod";
}

TEST_F(ProxydTest, NodePortFromEverywhere) {
  apply({.node_port = 30080}, {kA, kB, kRemote});
  for (const char* from : {"outside", "node", "client", "remote"}) {
    const auto got = ask_many(from, "192.0.2.11", 30080, 60);
    EXPECT_EQ(got.size(), 3u) << from << ": " << ::testing::PrintToString(got);
  }
  EXPECT_EQ(ask_many("client", "169.254.1.1", 30080, 30).size(), 3u) << "any address of the node";
  auto loopback = ask(host("node"), "127.0.0.1", 30080);
  ASSERT_FALSE(loopback);
  EXPECT_EQ(loopback.error().code, ECONNREFUSED);
  EXPECT_EQ(host("node").sh("cat /proc/sys/net/ipv4/conf/all/route_localnet"), "0\n");
  // Policy Cluster: the peer sees the node, whatever pod or host asked.
  apply({.node_port = 30080}, {kRemote});
  EXPECT_EQ(source_seen("outside", "192.0.2.11", 30080), "192.0.2.11");
  EXPECT_EQ(source_seen("client", "192.0.2.11", 30080), "192.0.2.11");
}

TEST_F(ProxydTest, ExternalIp) {
  apply({.external_ips = {"203.0.113.7"}}, {kA});
  ASSERT_TRUE(host("outside").ok("ip route add 203.0.113.7 via 192.0.2.11"));
  EXPECT_EQ(source_seen("outside", "203.0.113.7", 80), "169.254.1.1");
  EXPECT_EQ(ask_many("client", "203.0.113.7", 80, 3)["a"], 3);
}

TEST_F(ProxydTest, NoEndpointsIsRefusedAtOnce) {
  apply({.external_ips = {"203.0.113.7"}, .node_port = 30080}, {});
  ASSERT_TRUE(host("outside").ok("ip route add 203.0.113.7 via 192.0.2.11; ip route add 10.96.0.0/16 via 192.0.2.11"));
  struct Case {
    const char* from;
    const char* addr;
    std::uint16_t port;
  };
  const Case cases[] = {{"client", "10.96.0.10", 80},   {"node", "10.96.0.10", 80},
                        {"outside", "10.96.0.10", 80},  {"client", "192.0.2.11", 30080},
                        {"node", "192.0.2.11", 30080},  {"outside", "192.0.2.11", 30080},
                        {"outside", "203.0.113.7", 80}, {"client", "203.0.113.7", 80}};
  for (const Case& c : cases) {
    const auto start = std::chrono::steady_clock::now();
    auto r = ask(host(c.from), c.addr, c.port);
    const auto took = std::chrono::steady_clock::now() - start;
    ASSERT_FALSE(r) << c.from << " " << c.addr;
    EXPECT_EQ(r.error().code, ECONNREFUSED) << c.from << " " << c.addr << ": " << r.error().text;
    EXPECT_LT(took, std::chrono::milliseconds(100)) << c.from << " " << c.addr;
  }
  // UDP: an ICMP error, which a connected socket reports.
  apply({.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .protocol = "UDP"}, {});
  for (const char* from : {"client", "node"}) {
    auto r = UdpClient(host(from), "10.96.0.53", 53).ask();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, ECONNREFUSED) << from << ": " << r.error().text;
  }
}

TEST_F(ProxydTest, ConnectionsNeverFailWhileEndpointsChange) {
  apply({.node_port = 30080}, {kA, kB, kRemote});
  std::atomic<bool> done{false};
  std::atomic<int> asked{0};
  std::vector<std::string> failures;
  std::mutex mu;
  const auto loop = [&](const char* from, const char* addr, std::uint16_t port) {
    while (!done) {
      auto r = ask(host(from), addr, port);
      ++asked;
      std::lock_guard l(mu);
      if (!r) failures.push_back(fmt::format("{} to {}: {}", from, addr, r.error().text));
    }
  };
  std::thread t1(loop, "client", "10.96.0.10", 80);
  std::thread t2(loop, "outside", "192.0.2.11", 30080);
  std::thread t3(loop, "node", "10.96.0.10", 80);
  const std::vector<std::vector<EndpointSpec>> rounds = {{kA}, {kA, kRemote}, {kB, kRemote}, {kB}, {kA, kB, kRemote}};
  for (int i = 0; i < 200; ++i) apply({.node_port = 30080}, rounds[static_cast<std::size_t>(i) % rounds.size()]);
  done = true;
  for (auto* t : {&t1, &t2, &t3}) t->join();
  EXPECT_GT(asked, 100);
  EXPECT_THAT(failures, ::testing::IsEmpty()) << failures.size() << " of " << asked;
}

TEST_F(ProxydTest, RemovedEndpointGetsNoNewConnections) {
  apply({}, {kA, kB});
  apply({}, {kB});
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 40)["b"], 40);
}

TEST_F(ProxydTest, HairpinReachesItself) {
  apply({.node_port = 30080}, {kA});
  auto r = ask(host("a"), "10.96.0.10", 80);
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_EQ(*r, "a 169.254.1.1") << "masqueraded, or the answer would not come back this way";
  EXPECT_TRUE(ask(host("a"), "192.0.2.11", 30080));
  apply({.name = "udp", .cluster_ips = {"10.96.0.53"}, .protocol = "UDP"}, {kA});
  auto udp = UdpClient(host("a"), "10.96.0.53", 80).ask();
  ASSERT_TRUE(udp) << udp.error().text;
  EXPECT_EQ(*udp, "a 169.254.1.1");
}

TEST_F(ProxydTest, HostNetworkEndpoint) {
  EchoServer own(host("node"), "node", 9090);
  apply({.target_port = 9090, .node_port = 30080}, {{.addr = "192.0.2.11"}});
  for (const char* from : {"client", "node"}) EXPECT_EQ(ask_many(from, "10.96.0.10", 80, 3)["node"], 3) << from;
  for (const char* from : {"client", "node", "outside"})
    EXPECT_EQ(ask_many(from, "192.0.2.11", 30080, 3)["node"], 3) << from;
}

TEST_F(ProxydTest, AffinityKeepsClientsAndMovesThemWhenTheirEndpointGoes) {
  apply({.node_port = 30080, .affinity_seconds = 600}, {kA, kB, kRemote});
  for (const auto& [from, addr, port] :
       {std::tuple{"client", "10.96.0.10", 80}, {"node", "10.96.0.10", 80}, {"outside", "192.0.2.11", 30080}}) {
    const auto got = ask_many(from, addr, static_cast<std::uint16_t>(port), 20);
    EXPECT_EQ(got.size(), 1u) << from << ": " << ::testing::PrintToString(got) << list_table();
    EXPECT_FALSE(got.contains("connect: Connection timed out"));
  }
  const std::string first = ask_many("client", "10.96.0.10", 80, 1).begin()->first;
  std::vector<EndpointSpec> rest;
  for (const auto& [name, e] : std::map<std::string, EndpointSpec>{{"a", kA}, {"b", kB}, {"remote", kRemote}}) {
    if (name != first) rest.push_back(e);
  }
  apply({.node_port = 30080, .affinity_seconds = 600}, rest);
  const auto moved = ask_many("client", "10.96.0.10", 80, 20);
  ASSERT_EQ(moved.size(), 1u) << ::testing::PrintToString(moved);
  EXPECT_NE(moved.begin()->first, first);
  // Affinity off: old choices no longer matter.
  apply({.node_port = 30080}, {kA, kB, kRemote});
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 60).size(), 3u);
}

TEST_F(ProxydTest, AffinityEndsAfterItsTime) {
  apply({.affinity_seconds = 1}, {kA, kB, kRemote});
  std::set<std::string> seen;
  EXPECT_TRUE(eventually(
      [&] {
        seen.insert(ask_many("client", "10.96.0.10", 80, 1).begin()->first);
        // A pause longer than the time, by waiting for the element to go.
        return eventually(
                   [&] {
                     return host("node").sh("nft list map inet hawser-proxy affinity4").find("expires") ==
                            std::string::npos;
                   },
                   std::chrono::seconds(5)) &&
               seen.size() > 1;
      },
      std::chrono::seconds(60)));
}

TEST_F(ProxydTest, ExternalPolicyLocalKeepsTheClientsAddress) {
  const ServiceSpec s{.node_port = 30080, .external_local = true};
  apply(s, {kA, kRemote});
  EXPECT_EQ(ask_many("outside", "192.0.2.11", 30080, 20)["a"], 20) << "only this node's endpoints";
  EXPECT_EQ(source_seen("outside", "192.0.2.11", 30080), "192.0.2.100");
  // Pods and the node itself may use all, and pods keep their source.
  EXPECT_EQ(ask_many("client", "192.0.2.11", 30080, 40).size(), 2u);
  EXPECT_EQ(ask_many("node", "192.0.2.11", 30080, 40).size(), 2u);
  EXPECT_EQ(source_seen("client", "192.0.2.11", 30080), "10.244.1.9");
  // None here: silence, not an answer, so that a load balancer's other nodes can serve.
  apply(s, {kRemote});
  auto r = ask(host("outside"), "192.0.2.11", 30080, std::chrono::milliseconds(300));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ETIMEDOUT);
  EXPECT_EQ(ask_many("client", "192.0.2.11", 30080, 5)["remote"], 5);
  // None anywhere: refused.
  apply(s, {});
  r = ask(host("outside"), "192.0.2.11", 30080);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ECONNREFUSED);
}

TEST_F(ProxydTest, InternalPolicyLocal) {
  apply({.internal_local = true}, {kA, kRemote});
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 20)["a"], 20);
  apply({.internal_local = true}, {kRemote});
  auto r = ask(host("client"), "10.96.0.10", 80, std::chrono::milliseconds(300));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ETIMEDOUT);
}

TEST_F(ProxydTest, UdpFollowsItsEndpoint) {
  const ServiceSpec s{.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .node_port = 30053, .protocol = "UDP"};
  apply(s, {kA});
  UdpClient pod(host("client"), "10.96.0.53", 53), outside(host("outside"), "192.0.2.11", 30053),
      own(host("node"), "10.96.0.53", 53);
  for (auto* c : {&pod, &outside, &own}) {
    auto r = c->ask();
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_THAT(*r, HasSubstr("a "));
  }
  // The sockets stay open and their flows alive, but the endpoint goes [X01]; also through a time without any.
  for (const auto& now : {std::vector<EndpointSpec>{kB}, {}, {kRemote}}) {
    apply(s, now);
    if (now.empty()) continue;
    const std::string name = now[0].addr == kB.addr ? "b" : "remote";
    for (auto* c : {&pod, &outside, &own}) {
      EXPECT_TRUE(eventually(
          [&] {
            auto r = c->ask(std::chrono::milliseconds(200));
            return r && r->starts_with(name);
          },
          std::chrono::seconds(3)))
          << name;
    }
  }
}

TEST_F(ProxydTest, UdpFlowOfAnUnchangedEndpointStays) {
  const ServiceSpec s{.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .protocol = "UDP"};
  apply(s, {kA, kB});
  UdpClient c(host("client"), "10.96.0.53", 53);
  auto first = c.ask();
  ASSERT_TRUE(first);
  const bool on_a = first->starts_with("a");
  for (int i = 0; i < 5; ++i) {
    apply(s, {on_a ? kA : kB, kRemote});
    apply(s, {kA, kB});
  }
  p_.reset();
  start();
  EXPECT_EQ(*c.ask(), *first);
}

TEST_F(ProxydTest, BothFamilies) {
  const ServiceSpec s{.cluster_ips = {"10.96.0.10", "fd00:96::10"}, .node_port = 30080};
  apply(s, {kA});
  apply(s, {{.addr = "fd00:1::2"}, {.addr = "fd00:1::3"}, {.addr = "fd00:2::2", .node = "node-2"}});
  EXPECT_EQ(ask_many("client", "fd00:96::10", 80, 60).size(), 3u) << list_table();
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 5)["a"], 5);
  EXPECT_EQ(ask_many("outside", "2001:db8::11", 30080, 60).size(), 3u);
  EXPECT_EQ(source_seen("client", "fd00:96::10", 80), "fd00:1::9");
  apply({.cluster_ips = {"10.96.0.10", "fd00:96::10"}, .affinity_seconds = 100},
        {{.addr = "fd00:1::2"}, {.addr = "fd00:1::3"}, {.addr = "fd00:2::2", .node = "node-2"}});
  EXPECT_EQ(ask_many("client", "fd00:96::10", 80, 20).size(), 1u);
  apply({.name = "empty", .cluster_ips = {"fd00:96::11"}}, {});
  auto r = ask(host("client"), "fd00:96::11", 80);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ECONNREFUSED);
}

TEST_F(ProxydTest, RestartChangesNothing) {
  apply({.node_port = 30080, .affinity_seconds = 100}, {kA, kB, kRemote});
  apply({.name = "local", .cluster_ips = {"10.96.0.11", "fd00:96::11"}, .node_port = 30081, .external_local = true},
        {kA, kRemote});
  apply({.name = "empty", .cluster_ips = {"10.96.0.12"}}, {});
  ask_many("client", "10.96.0.10", 80, 1);
  const std::string table = list_table("-a -s");
  p_.reset();
  EXPECT_EQ(list_table("-a -s"), table) << "ending leaves the rules";
  start();
  EXPECT_EQ(list_table("-a -s"), table) << "handles and elements stay";
  EXPECT_THAT(p_->metrics(), HasSubstr("hawser_proxyd_repairs_total 0"));
  // While it was away an endpoint went: only that changes.
  p_.reset();
  ASSERT_TRUE(net_->api.update(kube::kEndpointSlices, slice_object({.name = "local"}, {kA})));
  start();
  EXPECT_EQ(ask_many("client", "10.96.0.11", 80, 10)["a"], 10);
}

TEST_F(ProxydTest, RepairsWhatOthersBreak) {
  apply({.node_port = 30080}, {kA, kB, kRemote});
  const std::string want = host("node").sh("nft -s list table inet hawser-proxy");
  const char* damages[] = {
      "nft delete table inet hawser-proxy",
      "nft flush ruleset",
      "nft flush chain inet hawser-proxy services",
      "nft flush chain inet hawser-proxy ip-internal-3",
      "nft flush map inet hawser-proxy services4",
      "nft add rule inet hawser-proxy services drop",
      "nft add chain inet hawser-proxy strange '{ type filter hook input priority 0; }'",
      "nft delete element inet hawser-proxy endpoints4 '{ 10.96.0.10 . tcp . 80 . 0x00000001 }'",
      "nft add element inet hawser-proxy services4 '{ 10.96.0.99 . tcp . 99 : drop }'",
      "nft add set inet hawser-proxy other '{ type ipv4_addr; }'",
      "nft flush set inet hawser-proxy pods4",
  };
  for (const char* d : damages) {
    ASSERT_TRUE(host("node").ok(d));
    EXPECT_TRUE(eventually([&] { return list_table("-s") == want; }, std::chrono::seconds(5))) << d << "\n"
                                                                                               << list_table("-s");
  }
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 60).size(), 3u);
}

TEST_F(ProxydTest, OthersTablesAreLeftAlone) {
  ASSERT_TRUE(host("node").ok("nft add table inet firewall; nft add chain inet firewall c"));
  apply({}, {kA});
  EXPECT_THAT(host("node").sh("nft list ruleset"), HasSubstr("table inet firewall"));
}

TEST_F(ProxydTest, CleanupLeavesNothing) {
  apply({.node_port = 30080, .affinity_seconds = 100}, {kA, kB});
  ask_many("client", "10.96.0.10", 80, 2);
  p_.reset();
  host("node").run([&] {
    auto nft = nft::KernelNft::open();
    ASSERT_TRUE(nft);
    NftBackend b(**nft, {});
    auto r = b.cleanup();
    EXPECT_TRUE(r) << r.error().text;
    EXPECT_TRUE(b.cleanup()) << "twice is fine";
  });
  EXPECT_EQ(host("node").sh("nft list ruleset"), "");
}

TEST_F(ProxydTest, SameAddressTwiceGoesToTheFirstByName) {
  apply({.name = "b", .external_ips = {"203.0.113.7"}}, {kB});
  apply({.name = "a", .cluster_ips = {"10.96.0.11"}, .external_ips = {"203.0.113.7"}}, {kA});
  EXPECT_EQ(ask_many("client", "203.0.113.7", 80, 5)["a"], 5);
  net_->remove({.name = "a"});
  EXPECT_TRUE(eventually([&] { return ask_many("client", "203.0.113.7", 80, 1)["b"] == 1; }));
}

TEST_F(ProxydTest, KeepsServingWhenTheApiIsAway) {
  apply({}, {kA, kB});
  net_->api.set_fault([](const auto&) { return Error{ECONNREFUSED, "connection refused", {}}; });
  net_->api.break_watches();
  EXPECT_EQ(ask_many("client", "10.96.0.10", 80, 20).size(), 2u);
  // A start without the API changes nothing either.
  const std::string table = list_table("-a -s");
  p_.reset();
  p_ = std::make_unique<Proxyd>(host("node"), net_->api, options_);
  EXPECT_TRUE(eventually([&] { return net_->api.calls().size() > 3; }));
  EXPECT_EQ(list_table("-a -s"), table);
}

TEST_F(ProxydTest, TheListingIsReadable) {
  apply({.node_port = 30080, .affinity_seconds = 10800}, {kA, kB});
  const std::string t = list_table();
  EXPECT_THAT(t, HasSubstr("10.96.0.10 . tcp . 80 : jump ip-internal-2-affinity-10800"));
  EXPECT_THAT(t, HasSubstr("tcp . 30080 : jump ip-external-node-port-2-affinity-10800"));
  EXPECT_THAT(t, HasSubstr("10.96.0.10 . tcp . 80 . 0x00000000 : 10.244.1.2 . 8080"));
}

}  // namespace
}  // namespace hawser::proxy
