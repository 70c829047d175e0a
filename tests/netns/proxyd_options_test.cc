// SPDX-License-Identifier: Apache-2.0
// What options and annotations change in proxyd's answers: source ranges, detect-local modes, node port addresses,
// echo, weights, refusals; both families, from pods, the node and outside.
#include "tests/netns/proxyd_fixture.h"

namespace hawser::proxy {
namespace {

constexpr auto kShort = std::chrono::milliseconds(300);
const EndpointSpec kA6{.addr = "fd00:1::2"}, kFar6{.addr = "fd00:2::2", .node = "node-2"};
const std::vector<std::string> kBothIps = {"10.96.0.10", "fd00:96::10"};

class ProxydOptionsTest : public ProxydTest {
 protected:
  void route_services() {
    ASSERT_TRUE(
        host("outside").ok("ip route add 203.0.113.0/24 via 192.0.2.11; ip route add 10.96.0.0/16 via "
                           "192.0.2.11; ip -6 route add 2001:db8:1::/64 via 2001:db8::11;"
                           "ip -6 route add fd00:96::/64 via 2001:db8::11"));
  }
  int code(const char* from, const char* addr, std::uint16_t port) {
    return error_code(ask(host(from), addr, port, kShort));
  }
};

TEST_F(ProxydOptionsTest, SourceRanges) {
  route_services();
  ServiceSpec s{.cluster_ips = kBothIps,
                .load_balancer_ips = {"203.0.113.7", "2001:db8:1::7"},
                .source_ranges = {"192.0.2.100/32", "2001:db8::100/128", "nonsense"},
                .node_port = 30080};
  apply(s, {kA});
  apply(s, {kA6});
  struct Case {
    const char *from, *addr;
    std::uint16_t port;
    int code;
  };
  const Case inside[] = {
      {"outside", "203.0.113.7", 80, 0},
      {"outside", "2001:db8:1::7", 80, 0},
      {"client", "203.0.113.7", 80, ETIMEDOUT},  // pods too
      {"client", "2001:db8:1::7", 80, ETIMEDOUT},
      {"node", "203.0.113.7", 80, ETIMEDOUT},
      {"client", "10.96.0.10", 80, 0},  // not of other addresses
      {"client", "fd00:96::10", 80, 0},
      {"outside", "192.0.2.11", 30080, 0},
      {"client", "192.0.2.11", 30080, 0},
  };
  for (const Case& c : inside)
    EXPECT_EQ(code(c.from, c.addr, c.port), c.code) << c.from << " " << c.addr << list_table();
  // Pods' ranges and the node instead; the one of IPv6 is inside another now.
  s.source_ranges = {"10.244.0.0/16", "192.0.2.11/32", "fd00::/16", "fd00:1::/64", "2001:db8::100/127"};
  apply(s, {kA6});
  const Case pods[] = {{"outside", "203.0.113.7", 80, ETIMEDOUT},
                       {"client", "203.0.113.7", 80, 0},
                       {"node", "203.0.113.7", 80, 0},
                       {"client", "2001:db8:1::7", 80, 0},
                       {"outside", "2001:db8:1::7", 80, 0}};
  for (const Case& c : pods) EXPECT_EQ(code(c.from, c.addr, c.port), c.code) << c.from << " " << c.addr << list_table();
  // A restart reads ranges back as they are.
  const std::string table = list_table("-a -s");
  p_.reset();
  start();
  EXPECT_EQ(list_table("-a -s"), table);
  s.source_ranges = {};
  apply(s, {kA6});
  EXPECT_EQ(code("outside", "203.0.113.7", 80), 0);
  EXPECT_THAT(list_table(), ::testing::Not(::testing::HasSubstr("192.0.2.11")));
}

TEST_F(ProxydOptionsTest, SourceRangesOfALocalBalancer) {
  route_services();
  ServiceSpec s{.load_balancer_ips = {"203.0.113.7"},
                .source_ranges = {"192.0.2.0/25"},
                .node_port = 30080,
                .external_local = true};
  apply(s, {kA, kRemote});
  EXPECT_EQ(source_seen("outside", "203.0.113.7", 80), "192.0.2.100") << list_table();
  EXPECT_EQ(code("client", "203.0.113.7", 80), ETIMEDOUT);
  EXPECT_EQ(code("remote", "192.0.2.11", 30080), 0);
}

// Who is masqueraded on the way to a cluster IP, by mode [P59].
TEST_F(ProxydOptionsTest, DetectLocalModes) {
  route_services();
  const ServiceSpec s{.cluster_ips = kBothIps};
  apply(s, {kRemote});
  apply(s, {kFar6});
  struct Case {
    const char* name;
    TrafficOptions options;
    bool pod, outside;  // keep their source
  };
  const Case cases[] = {
      {"ClusterCIDR", pod_ranges(), true, false},
      {"NodeCIDR", {.cluster_cidrs = {*Cidr::parse("10.244.1.0/24"), *Cidr::parse("fd00:1::/64")}}, true, false},
      {"another NodeCIDR",
       {.cluster_cidrs = {*Cidr::parse("10.244.2.0/24"), *Cidr::parse("fd00:2::/64")}},
       false,
       false},
      {"BridgeInterface", {.detect_local = DetectLocal::kBridgeInterface, .local_interface = "vclient"}, true, false},
      {"another bridge", {.detect_local = DetectLocal::kBridgeInterface, .local_interface = "vclien"}, false, false},
      {"InterfaceNamePrefix", {.detect_local = DetectLocal::kInterfacePrefix, .local_interface = "v"}, true, false},
      {"another prefix", {.detect_local = DetectLocal::kInterfacePrefix, .local_interface = "w"}, false, false},
      {"none", {.detect_local = DetectLocal::kNone}, true, true},
      {"masqueradeAll",
       {.cluster_cidrs = pod_ranges().cluster_cidrs, .masquerade_all = true, .masquerade_mark = 0x2000},
       false,
       false},
  };
  // Outside has a way back, so that a kept source shows.
  ASSERT_TRUE(host("remote").ok("true"));
  for (const Case& c : cases) {
    restart(c.options);
    EXPECT_EQ(source_seen("client", "10.96.0.10", 80), c.pod ? "10.244.1.9" : "192.0.2.11") << c.name << list_table();
    EXPECT_EQ(source_seen("client", "fd00:96::10", 80), c.pod ? "fd00:1::9" : "2001:db8::11") << c.name;
    EXPECT_EQ(source_seen("outside", "10.96.0.10", 80) == "192.0.2.11", !c.outside) << c.name;
    EXPECT_EQ(source_seen("outside", "fd00:96::10", 80) == "2001:db8::11", !c.outside) << c.name;
    EXPECT_EQ(code("node", "10.96.0.10", 80), 0) << c.name;
    EXPECT_EQ(code("node", "fd00:96::10", 80), 0) << c.name;
  }
}

TEST_F(ProxydOptionsTest, LocalPolicyInEveryMode) {
  const ServiceSpec s{.node_port = 30080, .external_local = true};
  apply(s, {kA, kRemote});
  for (const TrafficOptions& o :
       {TrafficOptions{.detect_local = DetectLocal::kBridgeInterface, .local_interface = "vclient"},
        TrafficOptions{.detect_local = DetectLocal::kInterfacePrefix, .local_interface = "vc"}}) {
    restart(o);
    EXPECT_EQ(ask_many("client", "192.0.2.11", 30080, 40).size(), 2u) << "a pod may use all" << list_table();
    EXPECT_EQ(ask_many("outside", "192.0.2.11", 30080, 20)["a"], 20);
    EXPECT_EQ(ask_many("node", "192.0.2.11", 30080, 40).size(), 2u);
  }
  restart({.detect_local = DetectLocal::kNone});
  EXPECT_EQ(ask_many("client", "192.0.2.11", 30080, 20)["a"], 20) << "nobody is known to be a pod";
  EXPECT_EQ(ask_many("node", "192.0.2.11", 30080, 40).size(), 2u);
}

TEST_F(ProxydOptionsTest, NodePortAddresses) {
  TrafficOptions o = pod_ranges();
  o.node_port_addresses = {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("192.0.2.11/32"), *Cidr::parse("2001:db8::/64")};
  restart(o);
  ASSERT_TRUE(host("node").ok("ip addr add 198.51.100.11/32 dev lo; ip -6 addr add 2001:db8:2::11/128 dev lo nodad"));
  ASSERT_TRUE(
      host("outside").ok("ip route add 198.51.100.11 via 192.0.2.11; ip -6 route add 2001:db8:2::11 via 2001:db8::11"));
  const ServiceSpec s{.cluster_ips = kBothIps, .node_port = 30080};
  apply(s, {kA});
  apply(s, {kA6});
  for (const char* from : {"outside", "client", "node"}) {
    EXPECT_EQ(code(from, "192.0.2.11", 30080), 0) << from;
    EXPECT_EQ(code(from, "2001:db8::11", 30080), 0) << from;
    EXPECT_EQ(code(from, "198.51.100.11", 30080), ECONNREFUSED) << from;
    EXPECT_EQ(code(from, "2001:db8:2::11", 30080), ECONNREFUSED) << from;
  }
  EXPECT_EQ(code("client", "169.254.1.1", 30080), ECONNREFUSED);
  // Of one family only: the other is served everywhere, as kube-proxy does.
  o.node_port_addresses = {*Cidr::parse("192.0.2.11/32")};
  restart(o);
  EXPECT_EQ(code("outside", "198.51.100.11", 30080), ECONNREFUSED);
  EXPECT_EQ(code("outside", "2001:db8:2::11", 30080), 0);
}

TEST_F(ProxydOptionsTest, PortsThatAClusterIpDoesNotHave) {
  route_services();
  TrafficOptions o = pod_ranges();
  o.service_cidrs = {*Cidr::parse("10.96.0.0/16"), *Cidr::parse("fd00:96::/112")};
  restart(o);
  const ServiceSpec s{.cluster_ips = kBothIps};
  apply(s, {kA});
  apply(s, {kA6});
  for (const char* from : {"client", "node", "outside"}) {
    for (const auto& ip : kBothIps) {
      EXPECT_EQ(code(from, ip.c_str(), 81), ECONNREFUSED) << from << " " << ip;
      EXPECT_EQ(error_code(UdpClient(host(from), ip, 80).ask()), ECONNREFUSED) << from << " " << ip;
    }
  }
  for (const char* from : {"client", "outside"}) {
    EXPECT_EQ(code(from, "10.96.7.7", 80), ETIMEDOUT) << from << ": no such Service";
    EXPECT_EQ(code(from, "fd00:96::77", 80), ETIMEDOUT) << from;
  }
  net_->remove(s);
  EXPECT_TRUE(eventually([&] { return list_table().find("10.96.0.10") == std::string::npos; }));
}

TEST_F(ProxydOptionsTest, UdpWithoutEndpointsIsRefusedAndWorksAgainAfterwards) {
  const ServiceSpec s{.cluster_ips = {"10.96.0.10", "fd00:96::10"}, .node_port = 30080, .protocol = "UDP"};
  const char* const addresses[] = {"10.96.0.10", "fd00:96::10"};
  apply(s, {});
  apply({.name = "web", .cluster_ips = kBothIps, .node_port = 30080, .protocol = "UDP"}, {});
  for (const char* from : {"node", "client"}) {
    for (const char* addr : addresses) {
      UdpClient c(host(from), addr, 80);
      // Twice: the second datagram follows the first's connection.
      for (int i = 0; i < 2; ++i) EXPECT_EQ(error_code(c.ask()), ECONNREFUSED) << from << " " << addr << " " << i;
    }
  }
  EXPECT_EQ(error_code(UdpClient(host("node"), "192.0.2.11", 30080).ask()), ECONNREFUSED);
  // The same socket finds the endpoint that comes.
  UdpClient stays(host("node"), "10.96.0.10", 80), stays6(host("node"), "fd00:96::10", 80);
  EXPECT_FALSE(stays.ask());
  EXPECT_FALSE(stays6.ask());
  apply(s, {kA});
  apply(s, {kA6});
  for (auto* c : {&stays, &stays6}) {
    EXPECT_TRUE(
        eventually([&] { return c->ask(std::chrono::milliseconds(200)).has_value(); }, std::chrono::seconds(5)));
  }
}

TEST_F(ProxydOptionsTest, ClusterIpsAnswerPingsIfAsked) {
  if (host("client").sh("command -v ping").empty()) GTEST_SKIP() << "ping is not installed";
  const ServiceSpec s{.cluster_ips = kBothIps};
  apply(s, {kA});
  apply(s, {kA6});
  const auto pings = [&](const char* from, const std::string& ip) {
    return host(from).sh(fmt::format("ping -c 1 -W 1 {} > /dev/null && echo yes; true", ip)) == "yes\n";
  };
  EXPECT_FALSE(pings("client", kBothIps[0]));
  TrafficOptions o = pod_ranges();
  o.icmp_echo = true;
  restart(o);
  for (const char* from : {"client", "node"}) {
    for (const auto& ip : kBothIps) EXPECT_TRUE(pings(from, ip)) << from << " " << ip;
  }
  EXPECT_FALSE(pings("client", "10.96.0.99"));
}

TEST_F(ProxydOptionsTest, WeightsAreShares) {
  apply({.weights = "10.244.1.2=9,10.244.1.3=1"}, {kA, kB});
  auto got = ask_many("client", "10.96.0.10", 80, 200);
  // Expected 180 and 20, with a deviation of 4.2.
  EXPECT_GT(got["a"], 155);
  EXPECT_GT(got["b"], 2);
  apply({.weights = "10.244.1.2=0"}, {kA, kB});
  got = ask_many("client", "10.96.0.10", 80, 30);
  EXPECT_EQ(got["b"], 30);
}

}  // namespace
}  // namespace hawser::proxy
