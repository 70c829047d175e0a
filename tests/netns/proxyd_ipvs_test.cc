// SPDX-License-Identifier: Apache-2.0
// Mode ipvs with real traffic. The network is service_net.h's; where the kernel has no IPVS, tests/vm runs this in a
// guest that has.
#include <cerrno>
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "lib/netlink/ipvs_fake.h"
#include "lib/testing/netns_fixture.h"
#include "proxyd/inspect/inspector.h"
#include "tests/netns/proxyd_fixture.h"
#include "tests/netns/sockets.h"

namespace hawser::proxy {
namespace {

using netlink::IpvsKey;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;
using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kLong = 20s;  // emulation is slow

class IpvsTraffic : public ProxydTest {
 protected:
  void SetUp() override {
    auto ipvs = netlink::KernelIpvs::open();
    ASSERT_TRUE(ipvs) << ipvs.error().text;
    if (auto r = check_kernel(*ipvs); !r) GTEST_SKIP() << r.error().text;
    auto n = ServiceNet::make();
    if (!n) GTEST_SKIP() << "needs the right to make network namespaces: " << n.error().text;
    net_ = std::move(*n);
    start_ipvs();
    a_ = std::make_unique<EchoServer>(host("a"), "a", 8080);
    b_ = std::make_unique<EchoServer>(host("b"), "b", 8080);
    remote_ = std::make_unique<EchoServer>(host("far"), "remote", 8080);
    host("node").run([&] { ipvs_.emplace(netlink::KernelIpvs::open().value()); });
  }
  void start_ipvs(const IpvsOptions& o = {}) {
    p_.reset();
    p_ = std::make_unique<Proxyd>(host("node"), net_->api, options_, &o);
    ASSERT_TRUE(p_->wait_generation(0));
  }
  // Who answers `times` connections.
  std::map<std::string, int> asked(const std::string& from, const std::string& addr, std::uint16_t port, int times) {
    std::map<std::string, int> r;
    for (int i = 0; i < times; ++i) {
      auto answer = ask(host(from), addr, port, kLong);
      ++r[answer ? answer->substr(0, answer->find(' ')) : answer.error().text];
    }
    return r;
  }
  std::string udp(const std::string& from, const std::string& addr, std::uint16_t port) {
    auto r = UdpClient(host(from), addr, port).ask(kLong);
    return r ? r->substr(0, r->find(' ')) : r.error().text;
  }
  std::map<std::string, std::uint32_t> weights(const IpvsKey& key) {
    std::map<std::string, std::uint32_t> r;
    auto list = ipvs_->list_destinations(key);
    if (!list) return {{list.error().text, 0}};
    for (const auto& d : *list) r[d.address.text()] = d.weight;
    return r;
  }
  std::optional<netlink::KernelIpvs> ipvs_;
};

const IpvsKey kWeb{IPPROTO_TCP, *IpAddr::parse("10.96.0.10"), 80};

TEST_F(IpvsTraffic, ClusterIpByTcpAndUdp) {
  apply({}, {kA, kB, kRemote});
  for (const char* from : {"client", "node"})
    EXPECT_THAT(asked(from, "10.96.0.10", 80, 6), UnorderedElementsAre(Pair("a", 2), Pair("b", 2), Pair("remote", 2)))
        << from << list_table();
  apply({.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .protocol = "UDP"}, {kB});
  for (const char* from : {"client", "node"}) EXPECT_EQ(udp(from, "10.96.0.53", 53), "b") << from;
  apply({.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .protocol = "UDP"}, {kRemote});
  for (const char* from : {"client", "node"}) EXPECT_EQ(udp(from, "10.96.0.53", 53), "remote") << from;
}

TEST_F(IpvsTraffic, Ipv6) {
  const ServiceSpec s{.cluster_ips = {"10.96.0.10", "fd00:96::10"}, .node_port = 30080};
  apply(s, {kA});
  apply(s, {{.addr = "fd00:1::2"}, {.addr = "fd00:2::2", .node = "node-2"}});
  for (const char* from : {"client", "node"})
    EXPECT_THAT(asked(from, "fd00:96::10", 80, 4), UnorderedElementsAre(Pair("a", 2), Pair("remote", 2))) << from;
  EXPECT_THAT(asked("outside", "2001:db8::11", 30080, 4), UnorderedElementsAre(Pair("a", 2), Pair("remote", 2)));
  EXPECT_THAT(asked("client", "10.96.0.10", 80, 2), UnorderedElementsAre(Pair("a", 2))) << "IPv4 beside it";
  apply({.name = "dns", .cluster_ips = {"fd00:96::53"}, .port = 53, .protocol = "UDP"}, {{.addr = "fd00:1::3"}});
  EXPECT_EQ(udp("client", "fd00:96::53", 53), "b");
}

TEST_F(IpvsTraffic, SourcesAreKeptOrMasqueraded) {
  apply({.node_port = 30080}, {kA});
  auto seen = [&](const char* from, const char* addr, std::uint16_t port) {
    auto r = ask(host(from), addr, port, kLong);
    return r ? r->substr(r->find(' ') + 1) : r.error().text;
  };
  EXPECT_EQ(seen("client", "10.96.0.10", 80), "10.244.1.9");
  EXPECT_NE(seen("node", "10.96.0.10", 80), "10.96.0.10");
  EXPECT_EQ(seen("outside", "192.0.2.11", 30080), "169.254.1.1");
  EXPECT_EQ(asked("a", "10.96.0.10", 80, 2)["a"], 2) << "a pod that reaches itself";
}

TEST_F(IpvsTraffic, NodePortFromEverywhere) {
  apply({.node_port = 30080}, {kA, kRemote});
  for (const char* from : {"outside", "remote", "client", "node"})
    EXPECT_THAT(asked(from, "192.0.2.11", 30080, 4), UnorderedElementsAre(Pair("a", 2), Pair("remote", 2))) << from;
  apply({.name = "udp", .cluster_ips = {"10.96.0.11"}, .node_port = 30081, .protocol = "UDP"}, {kB});
  EXPECT_EQ(udp("outside", "192.0.2.11", 30081), "b");
  apply({.name = "local", .cluster_ips = {"10.96.0.12"}, .node_port = 30082, .external_local = true}, {kA, kRemote});
  EXPECT_THAT(asked("outside", "192.0.2.11", 30082, 2), UnorderedElementsAre(Pair("a", 2)));
  auto r = ask(host("outside"), "192.0.2.11", 30082, kLong);
  EXPECT_THAT(r.value_or(""), HasSubstr("192.0.2.100")) << "the client's own address";
}

TEST_F(IpvsTraffic, AffinityStaysUntilTheEndpointGoes) {
  apply({.affinity_seconds = 600}, {kA, kB, kRemote});
  const auto first = asked("client", "10.96.0.10", 80, 6);
  ASSERT_EQ(first.size(), 1u);
  const std::string gone = first.begin()->first;
  std::vector<EndpointSpec> rest;
  for (const auto& [name, e] : {std::pair{"a", kA}, {"b", kB}, {"remote", kRemote}})
    if (gone != name) rest.push_back(e);
  apply({.affinity_seconds = 600}, rest);
  const auto second = asked("client", "10.96.0.10", 80, 6);
  ASSERT_EQ(second.size(), 1u) << ::testing::PrintToString(second);
  EXPECT_NE(second.begin()->first, gone);
}

TEST_F(IpvsTraffic, WithoutEndpointsRefusedAtOnce) {
  apply({.node_port = 30080}, {});
  for (const char* from : {"client", "node"})
    EXPECT_EQ(error_code(ask(host(from), "10.96.0.10", 80, kLong)), ECONNREFUSED) << from;
  EXPECT_EQ(error_code(ask(host("outside"), "192.0.2.11", 30080, kLong)), ECONNREFUSED);
  apply({.name = "six", .cluster_ips = {"fd00:96::11"}}, {});
  apply({.name = "dns", .cluster_ips = {"10.96.0.53"}, .port = 53, .protocol = "UDP"}, {});
  for (const char* from : {"client", "node"}) {
    EXPECT_EQ(error_code(ask(host(from), "fd00:96::11", 80, kLong)), ECONNREFUSED) << from;
    EXPECT_EQ(error_code(UdpClient(host(from), "10.96.0.53", 53).ask(kLong)), ECONNREFUSED) << from;
  }
  apply({.node_port = 30080}, {kA});
  EXPECT_EQ(asked("client", "10.96.0.10", 80, 1)["a"], 1);
  // Sockets of the node are not behind the Service's address.
  EchoServer own(host("node"), "node", 8081);
  EXPECT_EQ(error_code(ask(host("client"), "10.96.0.10", 8081, kLong)), ECONNREFUSED);
}

TEST_F(IpvsTraffic, ARemovedEndpointDrainsAndARestartAdopts) {
  const ServiceSpec web{.target_port = 9090};
  auto server = hawser::testing::listen_in(host("b"), SOCK_STREAM, 9090);
  apply(web, {kB});
  UniqueFd client = hawser::testing::socket_in(host("client"), SOCK_STREAM);
  const auto to = hawser::testing::v4("10.96.0.10", 80);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  UniqueFd served(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(served);
  const auto alive = [&] {
    char c = 0;
    return ::send(client.get(), "x", 1, MSG_NOSIGNAL) == 1 && hawser::testing::readable(served, 20000) &&
           ::recv(served.get(), &c, 1, 0) == 1;
  };
  ASSERT_TRUE(alive());
  auto other = hawser::testing::listen_in(host("a"), SOCK_STREAM, 9090);
  apply(web, {kA});
  EXPECT_THAT(weights(kWeb), UnorderedElementsAre(Pair("10.244.1.2", 1), Pair("10.244.1.3", 0)));
  EXPECT_TRUE(alive()) << "the flow goes on";
  UniqueFd next = hawser::testing::socket_in(host("client"), SOCK_STREAM);
  ASSERT_EQ(::connect(next.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  EXPECT_TRUE(hawser::testing::readable(other, 20000)) << "new connections go elsewhere";

  start_ipvs();
  EXPECT_THAT(weights(kWeb), UnorderedElementsAre(Pair("10.244.1.2", 1), Pair("10.244.1.3", 0)));
  EXPECT_TRUE(alive());
  // Nothing to wait for: the endpoint goes at the first sync.
  start_ipvs({.drain_limit = 0s});
  EXPECT_THAT(weights(kWeb), UnorderedElementsAre(Pair("10.244.1.2", 1)));
}

TEST_F(IpvsTraffic, SchedulersOfTheKernel) {
  for (const char* name : {"wrr", "lc", "wlc", "sh", "mh"}) {
    start_ipvs({.scheduler = name});
    apply({.port = 80}, {kA, kB});
    EXPECT_EQ(ipvs_->list_services().value().at(0).scheduler, name);
    const auto got = asked("client", "10.96.0.10", 80, 4);
    EXPECT_EQ((got.contains("a") ? got.at("a") : 0) + (got.contains("b") ? got.at("b") : 0), 4) << name;
  }
}

TEST_F(IpvsTraffic, SourceRanges) {
  const auto dropped = [&](const char* from, const char* addr) {
    return error_code(ask(host(from), addr, 80, 2s)) == ETIMEDOUT;
  };
  for (const char* client : {"outside", "remote"})
    ASSERT_TRUE(
        host(client).ok("ip route add 198.51.100.5 via 192.0.2.11; ip -6 route add 2001:db8:5::5 via 2001:db8::11"));
  ServiceSpec s{.cluster_ips = {"10.96.0.10", "fd00:96::10"},
                .load_balancer_ips = {"198.51.100.5", "2001:db8:5::5"},
                .source_ranges = {"192.0.2.100/32", "2001:db8::100/128"}};
  apply(s, {kA});
  apply(s, {{.addr = "fd00:1::2"}});
  for (const char* addr : {"198.51.100.5", "2001:db8:5::5"}) {
    EXPECT_EQ(asked("outside", addr, 80, 2)["a"], 2) << addr;
    for (const char* from : {"remote", "client", "node"}) EXPECT_TRUE(dropped(from, addr)) << from << " " << addr;
  }
  EXPECT_EQ(asked("client", "10.96.0.10", 80, 2)["a"], 2) << "the cluster IP is not limited";
  s.source_ranges = {"10.244.0.0/16", "192.0.2.12/32", "fd00:1::/64"};
  apply(s, {kA});
  for (const char* from : {"client", "remote"}) EXPECT_EQ(asked(from, "198.51.100.5", 80, 2)["a"], 2) << from;
  EXPECT_EQ(asked("client", "2001:db8:5::5", 80, 2)["a"], 2);
  EXPECT_TRUE(dropped("outside", "198.51.100.5"));
  ServiceSpec dns{.name = "dns",
                  .cluster_ips = {"10.96.0.53"},
                  .load_balancer_ips = {"198.51.100.53"},
                  .source_ranges = {"192.0.2.100/32"},
                  .port = 53,
                  .protocol = "UDP"};
  apply(dns, {kB});
  for (const char* client : {"outside", "remote"})
    ASSERT_TRUE(host(client).ok("ip route add 198.51.100.53 via 192.0.2.11"));
  EXPECT_EQ(udp("outside", "198.51.100.53", 53), "b");
  EXPECT_FALSE(UdpClient(host("remote"), "198.51.100.53", 53).ask(2s));
}

TEST_F(IpvsTraffic, ExplainReadsTheKernelBack) {
  apply({.node_port = 30080}, {kA, kRemote});
  std::function<std::optional<http::Response>(const http::Request&)> inspect;
  host("node").run([&] {
    auto made = inspect_kernel(IpvsOptions{}, p_->daemon().tracker(), p_->daemon().health(), options_);
    ASSERT_TRUE(made) << made.error().text;
    inspect = std::move(*made);
  });
  const auto get = [&](const std::string& what) {
    const auto r = inspect({.method = "GET", .target = "/inspect/" + what});
    return r ? r->body : "";
  };
  const std::string from_pod = "explain?source=10.244.1.9&destination=10.96.0.10:80";
  EXPECT_THAT(get(from_pod),
              HasSubstr(R"("kernel":"to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept"})"));
  for (const auto& what : {from_pod, std::string("explain?source=192.0.2.100&destination=192.0.2.11:30080"),
                           std::string("status"), std::string("services"), std::string("endpoints?service=web")}) {
    EXPECT_THAT(get(what), HasSubstr(R"("agree":true)")) << what;
    EXPECT_THAT(get(what), Not(HasSubstr(R"("agree":false)"))) << what << get(what);
  }
  EXPECT_THAT(asked("client", "10.96.0.10", 80, 4), UnorderedElementsAre(Pair("a", 2), Pair("remote", 2)));
  ASSERT_TRUE(ipvs_->change_destination(netlink::IpvsVerb::kDelete, kWeb,
                                        {.address = *IpAddr::parse("10.244.2.2"), .port = 8080}));
  EXPECT_THAT(get(from_pod), HasSubstr(R"("kernel":"to 10.244.1.2:8080, the source is kept"})"));
  EXPECT_THAT(get("status"), HasSubstr("lacks ipvs tcp 10.96.0.10:80 -> 10.244.2.2:8080 weight 1"));
  EXPECT_THAT(asked("client", "10.96.0.10", 80, 2), UnorderedElementsAre(Pair("a", 2)));
}

TEST_F(IpvsTraffic, CleanupLeavesNothing) {
  apply({.cluster_ips = {"10.96.0.10"}, .node_port = 30080}, {kA});
  EXPECT_EQ(host("node").sh("cat /proc/sys/net/ipv4/vs/conntrack"), "1\n");
  ASSERT_THAT(host("node").sh("ip addr show dev hawser-ipvs0"), HasSubstr("10.96.0.10/32"));
  ASSERT_EQ(ipvs_->list_services()->size(), 3u) << "the cluster IP and the node's two addresses";
  p_->stop();
  auto r = p_->cleanup();
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_TRUE(ipvs_->list_services()->empty());
  EXPECT_THAT(host("node").sh("ip -o link"), Not(HasSubstr("hawser-ipvs0")));
  EXPECT_THAT(host("node").sh("nft list tables"), Not(HasSubstr("hawser")));
}

// The device and the rules are the real kernel's wherever this runs; without dummies it is a bridge.
class IpvsDevice : public hawser::testing::NetNsTest {};
TEST_F(IpvsDevice, HasTheAddressesAndGoes) {
  if (IsSkipped()) return;
  netlink::FakeIpvs ipvs;
  auto rtnl = netlink::KernelRtnl::open();
  auto nft = nft::KernelNft::open();
  ASSERT_TRUE(rtnl && nft);
  const auto set = [](const std::string&, const std::string&) -> Result<bool> { return false; };
  IpvsBackend backend({ipvs, *rtnl, **nft, set, "6.1"}, pod_ranges(), {});
  ServiceState web{.key = "d/web"};
  for (const char* addr : {"10.96.0.10", "fd00:96::10"}) {
    const IpAddr a = *IpAddr::parse(addr);
    web.frontends.push_back(
        {.addr = a, .family = a.family(), .protocol = IPPROTO_TCP, .port = 80, .targets = {{a, 1}}});
    web.cluster_ips.push_back(a);
  }
  auto state = std::make_shared<DesiredState>();
  state->services = {std::make_shared<const ServiceState>(web)};
  auto first = backend.apply(state);
  ASSERT_TRUE(first) << first.error().text;
  auto link = rtnl->get_link(kIpvsDevice);
  ASSERT_TRUE(link) << link.error().text;
  EXPECT_TRUE(link->kind == "dummy" || link->kind == "bridge") << link->kind;
  EXPECT_EQ(rtnl->list_addresses(link->index)->size(), 2u) << "and none of the kernel's own";
  // Packets to them come here.
  EXPECT_EQ(std::system("ip route get 10.96.0.10 | grep -q ^local && ip route get fd00:96::10 | grep -q ^local"), 0);
  IpvsBackend again({ipvs, *rtnl, **nft, set, "6.1"}, pod_ranges(), {});
  auto second = again.apply(state);
  ASSERT_TRUE(second) << second.error().text;
  EXPECT_EQ(second->changes, 0u) << "a restart adopts";
  auto cleaned = again.cleanup();
  ASSERT_TRUE(cleaned) << cleaned.error().text;
  EXPECT_FALSE(rtnl->get_link(kIpvsDevice));
  EXPECT_FALSE((*nft)->read_table(kTableFamily, kTable)->exists);
}

}  // namespace
}  // namespace hawser::proxy
