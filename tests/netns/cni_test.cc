// SPDX-License-Identifier: Apache-2.0
// The plugin's binary run as a runtime runs it: environment, standard input, real namespaces; `ip` and `ping` are the
// oracles.
#include <set>
#include <thread>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/netns/cni_fixture.h"

namespace hawser {
namespace {

namespace json = boost::json;
using hawser::testing::Host;
using hawser::testing::Ran;
using ::testing::HasSubstr;

class CniTest : public hawser::testing::CniFixture {};

TEST_F(CniTest, AddGivesAWorkingPodAndDelTakesItAway) {
  auto p = pod();
  auto r = run("ADD", "c1", p.path(), conf());
  ASSERT_EQ(r.status, 0) << r.out;
  EXPECT_EQ(address(r), "10.244.1.2/32");
  // IPv6 first and at once: a tentative address could not answer yet.
  EXPECT_TRUE(
      node_->ok("ip addr add fd00:1::/128 dev lo; ip addr add 10.244.1.0/32 dev lo; ping -6 -c1 -W5 fd00:1::2"));
  EXPECT_TRUE(node_->ok("ping -c1 -W5 10.244.1.2"));
  EXPECT_TRUE(p.ok("ping -c1 -W5 10.244.1.0 && ping -6 -c1 -W5 fd00:1:: && ping -c1 -W5 127.0.0.1"));
  EXPECT_THAT(p.sh("ip addr show dev eth0"),
              ::testing::AllOf(HasSubstr("mtu 1450"), HasSubstr("inet 10.244.1.2/32"), HasSubstr("fd00:1::2/128")));
  EXPECT_EQ(node_->sh("ip neigh show nud stale nud reachable nud delay; ip neigh show nud failed"), "")
      << "nobody had to ask";
  ASSERT_EQ(run("DEL", "c1", p.path(), conf()).status, 0);
  EXPECT_EQ(run("DEL", "c1", p.path(), conf()).status, 0) << "DEL again";
  EXPECT_EQ(node_->sh("ip -o link show type veth; ip route; ip neigh show nud permanent"), "");
  EXPECT_EQ(p.sh("ip -o link show type veth"), "");
}

TEST_F(CniTest, SecondAddOfOneInterfaceFailsAndTheFirstStillWorks) {
  auto p = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), conf()).status, 0);
  auto again = run("ADD", "c1", p.path(), conf());
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.out, HasSubstr("\"code\":101"));
  auto other = run("ADD", "c2", p.path(), conf());
  EXPECT_EQ(other.status, 1) << "another container, the same interface in the same namespace";
  EXPECT_THAT(other.out, HasSubstr("\"code\":101"));
  EXPECT_TRUE(node_->ok("ip addr add 10.244.1.0/32 dev lo; ping -c1 -W5 10.244.1.2"));
  auto third = pod();
  auto status = run("ADD", "c3", third.path(), conf());
  EXPECT_EQ(address(status), "10.244.1.4/32") << "the failed ADD took .3 and gave it back; it rests";
  EXPECT_EQ(node_->sh("ip -o link show type veth | wc -l"), "2\n");
}

TEST_F(CniTest, DelNeedsNeitherNamespaceNorState) {
  {
    auto p = pod();
    ASSERT_EQ(run("ADD", "c1", p.path(), conf()).status, 0);
  }
  EXPECT_EQ(run("DEL", "c1", "/nonexistent/ns", conf()).status, 0);
  EXPECT_EQ(run("DEL", "c1", "''", conf()).status, 0);
  auto p = pod();
  ASSERT_EQ(run("ADD", "c2", p.path(), conf()).status, 0);
  ASSERT_TRUE(node_->ok("rm -rf " + dir_.file("ipam") + " " + dir_.file("node.json")));
  EXPECT_EQ(run("DEL", "c2", p.path(), conf()).status, 0);
  EXPECT_EQ(node_->sh("ip -o link show type veth"), "");
}

TEST_F(CniTest, CheckNamesEachDifference) {
  auto p = pod();
  auto add = run("ADD", "c1", p.path(), conf());
  ASSERT_EQ(add.status, 0);
  const auto input = with_prev(conf(), add.out);
  const auto check = [&] { return run("CHECK", "c1", p.path(), input); };
  ASSERT_EQ(check().status, 0) << check().out;
  struct Damage {
    bool in_pod;
    const char *breaks, *names, *heals;
  };
  for (const Damage& d : {
           Damage{true, "ip route del default", "route 0.0.0.0/0",
                  "ip route add default via 169.254.1.1 dev eth0 onlink"},
           Damage{true, "ip addr del 10.244.1.2/32 dev eth0", "address 10.244.1.2/32",
                  "ip addr add 10.244.1.2/32 dev eth0; ip route replace default via 169.254.1.1 dev eth0 onlink; "
                  // With its last address a link loses its neighbours too.
                  "ip neigh replace 169.254.1.1 lladdr 0e:58:0a:f4:01:02 dev eth0 nud permanent"},
           Damage{true, "ip neigh del 169.254.1.1 dev eth0", "neighbour entry 169.254.1.1",
                  "ip neigh add 169.254.1.1 lladdr 0e:58:0a:f4:01:02 dev eth0 nud permanent"},
           Damage{false, "ip route del 10.244.1.2", "route 10.244.1.2/32",
                  "ip route add 10.244.1.2 dev $(ip -o link show type veth | cut -d' ' -f2 | cut -d@ -f1)"},
       }) {
    const Host& where = d.in_pod ? p : *node_;
    ASSERT_TRUE(where.ok(d.breaks));
    auto r = check();
    EXPECT_EQ(r.status, 1);
    EXPECT_THAT(r.out, HasSubstr(d.names));
    ASSERT_TRUE(where.ok(d.heals));
    EXPECT_EQ(check().status, 0) << d.names << check().out;
  }
  ASSERT_TRUE(p.ok("ip link set eth0 down"));
  EXPECT_THAT(check().out, HasSubstr("eth0 is down"));
  ASSERT_TRUE(node_->ok("rm -rf " + dir_.file("ipam")));
  ASSERT_EQ(run("DEL", "c1", p.path(), conf()).status, 0);
  EXPECT_THAT(check().out, HasSubstr("is missing"));
}

TEST_F(CniTest, HundredAtOnceGetAHundredAddresses) {
  constexpr int kPods = 100;
  std::vector<Host> pods;
  for (int i = 0; i < kPods; i++) pods.push_back(pod());
  std::vector<Ran> ran(kPods);
  auto all = [&](const char* verb) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kPods; i++)
      threads.emplace_back([&, i] {
        ran[static_cast<size_t>(i)] = run(verb, fmt::format("c{}", i), pods[static_cast<size_t>(i)].path(), conf());
      });
    for (auto& t : threads) t.join();
  };
  all("ADD");
  std::set<std::string> addresses;
  for (const auto& r : ran) {
    ASSERT_EQ(r.status, 0) << r.out;
    addresses.insert(address(r));
  }
  EXPECT_EQ(addresses.size(), static_cast<size_t>(kPods));
  all("DEL");
  for (const auto& r : ran) EXPECT_EQ(r.status, 0) << r.out;
  EXPECT_EQ(node_->sh("ip -o link show type veth; ip route"), "");
}

TEST_F(CniTest, EachVersionAnswersInItsOwnShape) {
  int n = 0;
  for (const char* version : {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    auto p = pod();
    auto r = run("ADD", fmt::format("v{}", n++), p.path(), conf("", version));
    ASSERT_EQ(r.status, 0) << version << r.out;
    auto o = json::parse(r.out).get_object();
    EXPECT_EQ(o.at("cniVersion"), json::value(version));
    EXPECT_EQ(o.contains("ip4"), std::string(version) < "0.3.0") << version;
  }
}

TEST_F(CniTest, DelegatesToAnotherIpamPluginAndGivesBackOnFailure) {
  if (access("/usr/lib/cni/host-local", X_OK) != 0)
    GTEST_SKIP() << "needs /usr/lib/cni/host-local (containernetworking-plugins)";
  const auto ipam = fmt::format(
      R"(,"ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.9.0.0/24"}}]],"routes":[{{"dst":"192.0.2.0/24"}}]}})",
      dir_.file("hl"));
  auto p = pod();
  auto r = run("ADD", "c1", p.path(), conf(ipam, "1.0.0"));
  ASSERT_EQ(r.status, 0) << r.out;
  EXPECT_EQ(address(r), "10.9.0.2/32");
  EXPECT_THAT(p.sh("ip route"), HasSubstr("192.0.2.0/24 via 169.254.1.1"));
  EXPECT_EQ(run("CHECK", "c1", p.path(), with_prev(conf(ipam, "1.0.0"), r.out)).status, 0);
  auto taken = run("ADD", "c2", p.path(), conf(ipam, "1.0.0"));
  EXPECT_EQ(taken.status, 1);
  EXPECT_EQ(node_->sh("ls " + dir_.file("hl") + "/net | grep -c ^10"), "1\n") << "the second address was given back";
  EXPECT_EQ(run("DEL", "c1", p.path(), conf(ipam, "1.0.0")).status, 0);
  EXPECT_EQ(node_->sh("ls " + dir_.file("hl") + "/net | grep -c ^10"), "0\n");
  auto absent = run("ADD", "c3", p.path(), conf(R"(,"ipam":{"type":"no-such-plugin"})"));
  EXPECT_THAT(absent.out, HasSubstr("no-such-plugin"));
}

TEST_F(CniTest, GcDropsWhatIsNotListed) {
  std::vector<Host> pods;
  for (int i = 0; i < 4; i++) {
    pods.push_back(pod());
    ASSERT_EQ(run("ADD", fmt::format("c{}", i), pods.back().path(), conf()).status, 0);
  }
  auto gc = run(
      "GC", "x", "''",
      conf(
          R"(,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c3","ifname":"eth0"}])"));
  ASSERT_EQ(gc.status, 0) << gc.out;
  EXPECT_EQ(node_->sh("ip -o link show type veth | wc -l"), "2\n");
  EXPECT_TRUE(pods[1].ok("ip link show eth0") && pods[3].ok("ip link show eth0"));
  EXPECT_EQ(run("ADD", "c0", pods[0].path(), conf()).status, 0) << "its address is free again";
}

TEST_F(CniTest, StatusFollowsTheNode) {
  EXPECT_EQ(run("STATUS", "x", "''", conf()).status, 0);
  auto full =
      run("STATUS", "x", "''",
          conf(R"(,"ipam":{"ranges":[[{"subnet":"10.8.0.0/24","rangeStart":"10.8.0.1","rangeEnd":"10.8.0.1"}]]})"));
  EXPECT_THAT(full.out, HasSubstr("\"code\":50")) << "only the gateway is left";
  ASSERT_TRUE(node_->ok("rm " + dir_.file("node.json")));
  EXPECT_THAT(run("STATUS", "x", "''", conf()).out, HasSubstr("\"code\":50"));
  EXPECT_THAT(run("ADD", "x", pod().path(), conf()).out, HasSubstr("\"code\":11")) << "try again later";
}

TEST_F(CniTest, StatusTellsWhetherAttachedPodsSuffer) {
  const auto status = [&] { return run("STATUS", "x", "''", conf()).out; };
  ASSERT_TRUE(write_file(dir_.file("node.json"), R"({"podCIDRs":["10.244.1.0/29"],"mtu":1450,"devices":["vx.1"]})"));
  const char* make = "ip link add vx.1 up type vxlan id 1 dstport 8472";
  EXPECT_THAT(status(), ::testing::AllOf(HasSubstr("\"code\":50"), HasSubstr("vx.1 is missing")));
  ASSERT_TRUE(node_->ok(make));
  EXPECT_EQ(status(), "");
  auto p = pod();
  ASSERT_EQ(run("ADD", "c1", p.path(), conf()).status, 0);
  ASSERT_TRUE(node_->ok("ip link set vx.1 down"));
  EXPECT_THAT(status(), ::testing::AllOf(HasSubstr("\"code\":51"), HasSubstr("vx.1 is down")));
  ASSERT_TRUE(node_->ok("ip link del vx.1"));
  EXPECT_THAT(status(), ::testing::AllOf(HasSubstr("\"code\":51"), HasSubstr("vx.1 is missing")));
  ASSERT_TRUE(node_->ok(make));
  EXPECT_EQ(status(), "") << "healed";
  auto asks = [&](const char* range) {
    return run("STATUS", "x", "''", conf(fmt::format(R"(,"ipam":{{"subnet":"10.244.1.0/29",{}}})", range))).out;
  };
  EXPECT_THAT(asks(R"("rangeStart":"10.244.1.1","rangeEnd":"10.244.1.1")"), HasSubstr("\"code\":50"))
      << "pods do not suffer from a full range";
  ASSERT_TRUE(node_->ok("rm " + dir_.file("node.json")));
  EXPECT_THAT(status(), HasSubstr("\"code\":51"));
  ASSERT_EQ(run("DEL", "c1", p.path(), conf()).status, 0);
  EXPECT_THAT(status(), HasSubstr("\"code\":50"));
}

TEST_F(CniTest, ExcludedAddressesOfTheNodeAreNotGivenOut) {
  const auto some = conf(R"(,"ipam":{"exclude":["10.244.1.2/31","10.244.1.4","fd00:1::2"]})");
  auto p = pod();
  auto add = run("ADD", "c1", p.path(), some);
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_EQ(address(add), "10.244.1.5/32");
  EXPECT_THAT(add.out, HasSubstr("fd00:1::3/128"));
  auto none = run("STATUS", "x", "''", conf(R"(,"ipam":{"exclude":["10.244.0.0/16"]})"));
  EXPECT_THAT(none.out, ::testing::AllOf(HasSubstr("\"code\":50"), HasSubstr("no free address")));
}

TEST_F(CniTest, LoopbackTypeSetsLoUp) {
  auto p = pod();
  ASSERT_TRUE(p.ok("ip link set lo down"));
  auto input = R"({"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"})";
  ASSERT_EQ(run("ADD", "c1", p.path(), input, "lo").status, 0);
  EXPECT_TRUE(p.ok("ping -c1 -W1 127.0.0.1"));
  EXPECT_EQ(run("DEL", "c1", p.path(), input, "lo").status, 0);
}

}  // namespace
}  // namespace hawser
