// SPDX-License-Identifier: Apache-2.0
// Mode "bridge", as flannel's configuration asks for it (FEATURES C70, C71, C80), and chains with Debian's plugins
// before and after ours (C17).
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/netns/cni_fixture.h"
#include "tests/netns/sockets.h"

namespace hawser {
namespace {

namespace json = boost::json;
using hawser::testing::Host;
using hawser::testing::Ran;
using namespace hawser::testing;
using ::testing::HasSubstr;

constexpr const char* kPlugins = "/usr/lib/cni";

class BridgeTest : public hawser::testing::CniFixture {
 protected:
  [[nodiscard]] std::string bridge(const std::string& extra = "") const {
    return conf(R"(,"mode":"bridge","isDefaultGateway":true,"ipMasq":true)" + extra);
  }
};

TEST_F(BridgeTest, PodsShareABridgeWithTheGateway) {
  auto p = pod(), q = pod();
  auto add = run("ADD", "c1", p.path(), bridge(R"(,"hairpinMode":true)"));
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_EQ(address(add), "10.244.1.2/24");
  ASSERT_EQ(run("ADD", "c2", q.path(), bridge(R"(,"hairpinMode":true)")).status, 0);
  EXPECT_THAT(node_->sh("ip addr show cni0"), ::testing::AllOf(HasSubstr("inet 10.244.1.1/24"), HasSubstr("mtu 1450")));
  EXPECT_THAT(p.sh("ip route"), HasSubstr("default via 10.244.1.1"));
  EXPECT_TRUE(p.ok("ping -c1 -W5 10.244.1.1 && ping -c1 -W5 10.244.1.3 && ping -6 -c1 -W5 fd00:1::3"));
  EXPECT_THAT(node_->sh("bridge -d link show"), HasSubstr("hairpin on"));
  const auto check = [&] { return run("CHECK", "c1", p.path(), with_prev(bridge(R"(,"hairpinMode":true)"), add.out)); };
  EXPECT_EQ(check().status, 0) << check().out;
  const auto link = node_->sh("ip -o link show master cni0 | head -1 | grep -o 'hw[^@]*' | tr -d '\\n'");
  ASSERT_TRUE(node_->ok("ip link set " + link + " nomaster"));
  EXPECT_THAT(check().out + run("CHECK", "c2", q.path(), with_prev(bridge(), add.out)).out,
              HasSubstr("not a port of cni0"));
  ASSERT_EQ(run("DEL", "c1", p.path(), bridge()).status, 0);
  ASSERT_EQ(run("DEL", "c2", q.path(), bridge()).status, 0);
  EXPECT_EQ(node_->sh("ip -o link show type veth"), "");
  EXPECT_TRUE(node_->ok("ip link show cni0")) << "the bridge stays";
}

TEST_F(BridgeTest, ManyFirstAddsAtOnceMakeOneBridge) {
  constexpr int kPods = 16;
  std::vector<Host> pods;
  for (int i = 0; i < kPods; i++) pods.push_back(pod());
  std::vector<Ran> ran(kPods);
  std::vector<std::thread> threads;
  for (int i = 0; i < kPods; i++)
    threads.emplace_back([&, i] {
      ran[static_cast<size_t>(i)] = run("ADD", fmt::format("c{}", i), pods[static_cast<size_t>(i)].path(), bridge());
    });
  for (auto& t : threads) t.join();
  std::set<std::string> addresses;
  for (const auto& r : ran) {
    ASSERT_EQ(r.status, 0) << r.out;
    addresses.insert(address(r));
  }
  EXPECT_EQ(addresses.size(), static_cast<size_t>(kPods));
  EXPECT_EQ(node_->sh("ip -o -4 addr show cni0 | wc -l"), "1\n");
  EXPECT_TRUE(pods[0].ok("ping -c1 -W5 10.244.1.17"));
}

TEST_F(BridgeTest, AnotherAddressIsRefusedUnlessForced) {
  ASSERT_TRUE(node_->ok("ip link add cni0 type bridge; ip addr add 10.9.9.1/24 dev cni0; ip link set cni0 up"));
  auto p = pod();
  auto refused = run("ADD", "c1", p.path(), bridge());
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.out, ::testing::AllOf(HasSubstr("10.9.9.1/24"), HasSubstr("forceAddress")));
  EXPECT_EQ(node_->sh("ip -o link show type veth"), "");
  ASSERT_EQ(run("ADD", "c1", p.path(), bridge(R"(,"forceAddress":true)")).status, 0);
  EXPECT_EQ(node_->sh("ip -o -4 addr show cni0 | grep -o '[0-9.]*/24'"), "10.244.1.1/24\n");
}

// The node's pod CIDR changes while cni0 stands (FEATURES X11).
class ChangedSubnetTest : public BridgeTest {
 protected:
  void change_subnet() {
    ASSERT_TRUE(
        write_file(dir_.file("node.json"), R"({"node":"n","podCIDRs":["10.244.7.0/24","fd00:7::/64"],"mtu":1450})"));
  }
  std::string addresses() {
    return node_->sh("ip -o addr show cni0 | awk '{print $4}' | grep -v ^fe80 | tr '\\n' ' '");
  }
};

TEST_F(ChangedSubnetTest, BothSubnetsAreServedUntilTheLastPodOfTheFormerOneIsGone) {
  auto p = pod(), p2 = pod(), q = pod();
  auto old = run("ADD", "c1", p.path(), bridge());
  ASSERT_EQ(old.status, 0) << old.out;
  ASSERT_EQ(run("ADD", "c2", p2.path(), bridge()).status, 0);
  // An administrator's: in a subnet of their own, and one the kernel holds to be a secondary of our gateway.
  ASSERT_TRUE(node_->ok("ip addr add 10.9.9.1/24 dev cni0 && ip addr add 10.244.1.250/24 dev cni0") &&
              node_->ok("ip addr add fd09::1/64 dev cni0 nodad && ip addr add fd00:1::fa/64 dev cni0 nodad"));
  change_subnet();
  auto add = run("ADD", "c3", q.path(), bridge());
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_EQ(address(add), "10.244.7.2/24");
  // Without the bridge's link-local address being checked first, which would hold up what the node forwards for 2 s.
  EXPECT_EQ(node_->sh("ip -o -6 addr show cni0 tentative"), "");
  const auto reach_all = [&] {
    EXPECT_TRUE(p.ok("ping -c1 -W10 10.244.1.1 && ping -c1 -W10 10.244.7.2"));
    EXPECT_TRUE(p.ok("ping -6 -c1 -W10 fd00:1::1 && ping -6 -c1 -W10 fd00:7::2"));
    EXPECT_TRUE(q.ok("ping -c1 -W10 10.244.7.1 && ping -c1 -W10 10.244.1.2"));
    EXPECT_TRUE(q.ok("ping -6 -c1 -W10 fd00:7::1 && ping -6 -c1 -W10 fd00:1::2"));
  };
  reach_all();
  EXPECT_EQ(run("CHECK", "c1", p.path(), with_prev(bridge(), old.out)).status, 0);
  ASSERT_EQ(run("DEL", "c2", p2.path(), bridge()).status, 0);
  reach_all();
  ASSERT_EQ(run("DEL", "c1", p.path(), bridge()).status, 0);
  const auto all = addresses();
  for (const char* stays :
       {"10.244.7.1/24", "fd00:7::1/64", "10.9.9.1/24", "10.244.1.250/24", "fd09::1/64", "fd00:1::fa/64"})
    EXPECT_THAT(all, HasSubstr(stays));
  EXPECT_THAT(all, ::testing::Not(::testing::AnyOf(HasSubstr("10.244.1.1/24"), HasSubstr("fd00:1::1/64"))));
  EXPECT_TRUE(q.ok("ping -c1 -W10 10.244.7.1 && ping -6 -c1 -W10 fd00:7::1"));
  // What was ours is so no more: somebody who gives the bridge that address now means it.
  ASSERT_TRUE(node_->ok("ip addr add 10.244.1.1/24 dev cni0"));
  ASSERT_EQ(run("DEL", "c3", q.path(), bridge()).status, 0);
  EXPECT_THAT(addresses(), ::testing::AllOf(HasSubstr("10.244.1.1/24"), HasSubstr("10.244.7.1/24")));
}

TEST_F(ChangedSubnetTest, GcAndAddTakeTheFormerGatewayAwayToo) {
  for (const bool by_gc : {true, false}) {
    SCOPED_TRACE(by_gc);
    ASSERT_TRUE(
        write_file(dir_.file("node.json"), R"({"node":"n","podCIDRs":["10.244.1.0/24","fd00:1::/64"],"mtu":1450})"));
    auto p = pod(), q = pod();
    ASSERT_EQ(run("ADD", "c1", p.path(), bridge()).status, 0);
    if (!by_gc) {
      ASSERT_EQ(run("DEL", "c1", p.path(), bridge()).status, 0);
      EXPECT_THAT(addresses(), HasSubstr("10.244.1.1/24")) << "the subnet in use keeps its gateway";
    }
    change_subnet();
    auto add = run("ADD", "c2", q.path(), bridge());
    ASSERT_EQ(add.status, 0) << add.out;
    if (by_gc) {
      EXPECT_EQ(addresses(), "10.244.1.1/24 10.244.7.1/24 fd00:7::1/64 fd00:1::1/64 ");
      const auto valid = R"(,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}])";
      ASSERT_EQ(run("GC", "", "", bridge(valid)).status, 0);
    }
    EXPECT_EQ(addresses(), "10.244.7.1/24 fd00:7::1/64 ");
    EXPECT_TRUE(q.ok("ping -c1 -W10 10.244.7.1 && ping -6 -c1 -W10 fd00:7::1"));
    ASSERT_EQ(run("DEL", "c2", q.path(), bridge()).status, 0);
    ASSERT_TRUE(node_->ok("ip link del cni0"));
  }
}

// Two subnets of which one is in the other would give an address out twice.
TEST_F(ChangedSubnetTest, AnOverlappingSubnetWaitsForTheLastPod) {
  auto p = pod(), q = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), bridge()).status, 0);
  ASSERT_TRUE(write_file(dir_.file("node.json"), R"({"node":"n","podCIDRs":["10.244.0.0/22"],"mtu":1450})"));
  auto refused = run("ADD", "c2", q.path(), bridge());
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.out, ::testing::AllOf(HasSubstr("10.244.1.1/24"), HasSubstr("10.244.0.1/22")));
  ASSERT_EQ(run("DEL", "c1", p.path(), bridge()).status, 0);
  EXPECT_EQ(run("ADD", "c2", q.path(), bridge()).status, 0);
}

// A neighbour's request leaves its segment for the node and comes back; the answer must take the same way.
TEST_F(BridgeTest, HostPortFromEverywhere) {
  auto outside = pod();
  ASSERT_TRUE(node_->wire("eth0", outside, "eth0"));
  ASSERT_TRUE(node_->ok("ip addr add 192.0.2.11/24 dev eth0") && outside.ok("ip addr add 192.0.2.1/24 dev eth0"));
  // With br_netfilter a frame is translated while it is bridged, and a pod's to itself then leaves by the port it came
  // from, which takes hairpinMode. Where the module is not loaded there is no such key.
  const std::string key = "/proc/sys/net/bridge/bridge-nf-call-iptables";
  struct Case {
    const char *how, *filtered;
    bool reaches_itself;
  };
  for (const auto& [how, filtered, reaches_itself] :
       {Case{R"(,"hairpinMode":true)", "1", true}, Case{R"(,"hairpinMode":true)", "0", true},
        Case{R"(,"promiscMode":true)", "1", false}, Case{R"(,"promiscMode":true)", "0", true}, Case{"", "0", true}}) {
    SCOPED_TRACE(fmt::format("{} {}", how, filtered));
    const bool loaded = node_->sh("cat " + key + " 2>/dev/null") != "";
    if (loaded) {
      ASSERT_TRUE(node_->ok(fmt::format("echo {} > {}", filtered, key)));
    }
    auto p = pod(), q = pod();
    const auto ports =
        bridge(std::string(how) +
               R"(,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]})");
    auto add = run("ADD", "c1", p.path(), ports);
    ASSERT_EQ(add.status, 0) << add.out;
    auto neighbour = run("ADD", "c2", q.path(), bridge(how));
    ASSERT_EQ(neighbour.status, 0) << neighbour.out;
    EXPECT_THAT(node_->sh("nft list set inet hawser-hostport bridged4"), HasSubstr("10.244.1.0/24"));
    auto server = listen_in(p, SOCK_STREAM, 80);
    std::string source;
    EXPECT_TRUE(connects(outside, "192.0.2.11", 8080, server, &source));
    EXPECT_EQ(source, "192.0.2.1") << "from outside the client's address is kept";
    EXPECT_TRUE(connects(*node_, "192.0.2.11", 8080, server)) << "from the node, its own address";
    EXPECT_TRUE(connects(*node_, "127.0.0.1", 8080, server)) << "from the node, loopback";
    EXPECT_TRUE(connects(q, "192.0.2.11", 8080, server, &source)) << "from a neighbour";
    EXPECT_EQ(source, "10.244.1.1") << "as the bridge, so that the answer comes back through the node";
    if (reaches_itself || !loaded) {
      EXPECT_TRUE(connects(p, "192.0.2.11", 8080, server)) << "from the pod itself";
    }
    EXPECT_EQ(run("CHECK", "c1", p.path(), with_prev(ports, add.out)).status, 0);
    ASSERT_EQ(run("DEL", "c1", p.path(), ports).status, 0);
    ASSERT_EQ(run("DEL", "c2", q.path(), bridge(how)).status, 0);
    EXPECT_FALSE(connects(outside, "192.0.2.11", 8080, server));
    EXPECT_EQ(node_->sh("nft list tables"), "");
    ASSERT_TRUE(node_->ok("ip link del cni0"));
  }
}

// Whether the node itself is handed a frame that one pod sends to another: what promiscMode is about.
TEST_F(BridgeTest, PromiscuousBridgeSeesWhatPodsSendEachOther) {
  for (const bool promiscuous : {false, true}) {
    SCOPED_TRACE(promiscuous);
    const auto input = bridge(promiscuous ? R"(,"promiscMode":true)" : "");
    auto p = pod(), q = pod();
    auto first = run("ADD", "c1", p.path(), input), second = run("ADD", "c2", q.path(), input);
    ASSERT_EQ(first.status + second.status, 0) << first.out << second.out;
    const auto to = address(second).substr(0, address(second).find('/'));
    EXPECT_EQ(node_->sh("ip -d link show cni0 | grep -c PROMISC"), promiscuous ? "1\n" : "0\n");
    // The bridge has learned both ports when the ping returns; what it does not know it would hand to everybody.
    ASSERT_TRUE(p.ok("ping -c1 -W5 " + to));
    UniqueFd tap;
    node_->run([&] { tap = UniqueFd(socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); });
    sockaddr_ll on{.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
    node_->run([&] { on.sll_ifindex = static_cast<int>(if_nametoindex("cni0")); });
    ASSERT_EQ(bind(tap.get(), reinterpret_cast<sockaddr*>(&on), sizeof on), 0);
    const auto answers = p.sh("ping -c3 -i0.2 -W1 " + to);
    EXPECT_THAT(answers, ::testing::AllOf(HasSubstr("3 received"), ::testing::Not(HasSubstr("DUP"))));
    EXPECT_EQ(readable(tap, promiscuous ? kPatienceMs : 0), promiscuous);
    ASSERT_EQ(run("DEL", "c1", p.path(), input).status + run("DEL", "c2", q.path(), input).status, 0);
    ASSERT_TRUE(node_->ok("ip link del cni0"));
  }
}

TEST_F(BridgeTest, OptionsWeDoNotHaveAreRefusedByName) {
  auto p = pod();
  for (const char* option : {R"("vlan":7)", R"("macspoofchk":true)", R"("portIsolation":true)"}) {
    auto r = run("ADD", "c1", p.path(), bridge(std::string(",") + option));
    EXPECT_THAT(r.out, HasSubstr("\"code\":2")) << option;
  }
  EXPECT_EQ(run("ADD", "c1", p.path(), bridge(R"(,"vlan":0,"macspoofchk":false)")).status, 0);
  EXPECT_THAT(run("ADD", "c2", p.path(), bridge(R"(,"hairpinMode":true,"promiscMode":true)")).out,
              HasSubstr("exclude each other"));
}

class ChainTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (!IsSkipped() && access("/usr/lib/cni/tuning", X_OK) != 0)
      GTEST_SKIP() << "needs " << kPlugins << " (containernetworking-plugins)";
  }
  // One of Debian's plugins as the runtime would run it after or before ours.
  Ran run_other(const std::string& type, const std::string& verb, const std::string& netns, const std::string& input) {
    const auto in = dir_.file(type + verb + ".in");
    EXPECT_TRUE(write_file(in, input));
    Ran r;
    r.out =
        node_->sh(fmt::format("CNI_COMMAND={} CNI_CONTAINERID=c1 CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH={} {}/{} <{}",
                              verb, netns, kPlugins, kPlugins, type, in),
                  &r.status);
    return r;
  }
  // `result` of the plugin before; empty: none.
  static std::string link_of(const std::string& type, const std::string& extra, const std::string& result) {
    auto text = fmt::format(R"({{"cniVersion":"1.0.0","name":"net","type":"{}"{}}})", type, extra);
    return result.empty() ? text : with_prev(text, result);
  }
};

// hawser, then each of Debian's: their ADD takes our result, CHECK of all holds, DEL goes in reverse.
TEST_F(ChainTest, DebiansPluginsAfterOurs) {
  const std::vector<std::pair<std::string, std::string>> others = {
      {"tuning", R"(,"sysctl":{"net.core.somaxconn":"500"},"mtu":1400)"},
      {"bandwidth", R"(,"ingressRate":8000000,"ingressBurst":320000)"},
      {"portmap",
       R"(,"snat":true,"capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]})"},
      {"firewall", R"(,"backend":"iptables")"}};
  auto p = pod();
  const auto ours = conf("", "1.0.0");
  auto add = run("ADD", "c1", p.path(), ours);
  ASSERT_EQ(add.status, 0) << add.out;
  std::string result = add.out;
  std::vector<std::string> done;
  for (const auto& [type, extra] : others) {
    auto r = run_other(type, "ADD", p.path(), link_of(type, extra, result));
    if (r.status != 0 && r.out.find("iptables") != std::string::npos) continue;  // no iptables on this machine
    ASSERT_EQ(r.status, 0) << type << ": " << r.out;
    result = r.out;
    done.push_back(type);
  }
  EXPECT_THAT(done, ::testing::IsSupersetOf({std::string("tuning"), std::string("bandwidth")}));
  EXPECT_THAT(p.sh("sysctl -n net.core.somaxconn; ip link show eth0"),
              ::testing::AllOf(HasSubstr("500"), HasSubstr("mtu 1400")));
  auto check = run("CHECK", "c1", p.path(), with_prev(ours, result));
  EXPECT_EQ(check.status, 0) << check.out;
  for (auto it = others.rbegin(); it != others.rend(); ++it) {
    auto r = run_other(it->first, "DEL", p.path(), link_of(it->first, it->second, result));
    if (std::ranges::find(done, it->first) != done.end()) {
      EXPECT_EQ(r.status, 0) << it->first << ": " << r.out;
    }
  }
  EXPECT_EQ(run("DEL", "c1", p.path(), with_prev(ours, result)).status, 0);
  EXPECT_EQ(node_->sh("ip -o link show type veth"), "");
}

// Another plugin first (a second interface from Debian's ptp): what it made is passed on before ours.
TEST_F(ChainTest, OursAfterAnotherPassesItsResultOn) {
  auto p = pod();
  const auto first = fmt::format(
      R"(,"ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.9.0.0/24"}}]]}})", dir_.file("hl"));
  const auto in = dir_.file("ptp.in");
  ASSERT_TRUE(write_file(in, link_of("ptp", first, "")));
  auto result =
      node_->sh(fmt::format("CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS={} CNI_IFNAME=net1 CNI_PATH={} {}/ptp <{}",
                            p.path(), kPlugins, kPlugins, in));
  ASSERT_THAT(result, HasSubstr("10.9.0.2"));
  auto add = run("ADD", "c1", p.path(), with_prev(conf("", "1.0.0"), result));
  ASSERT_EQ(add.status, 0) << add.out;
  auto o = json::parse(add.out).get_object();
  EXPECT_EQ(o.at("interfaces").as_array().size(), 4u);
  EXPECT_EQ(o.at("ips").at(0).at("address"), json::value("10.9.0.2/24"));
  EXPECT_EQ(o.at("ips").at(1).at("interface"), json::value(3));
  EXPECT_EQ(run("CHECK", "c1", p.path(), with_prev(conf("", "1.0.0"), add.out)).status, 0);
}

}  // namespace
}  // namespace hawser
