// SPDX-License-Identifier: Apache-2.0
// The overlay on the real kernel, over either underlay: reach, entries, adoption, repair.
#include <unistd.h>

#include "lib/nft/kernel_nft.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class OverlayTest : public OverlayNet, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { OverlayNet::build(GetParam()); }
};

TEST_P(OverlayTest, PodsReachEachOtherWithExactlyTheMtu) {
  start_all();
  const int mtu = 1500 - (GetParam() ? 70 : 50);
  EXPECT_THAT(node(1).host().sh("ip link show dev " + node(1).device()), HasSubstr(fmt::format("mtu {}", mtu)));
  auto pod1 = Host::make();
  auto pod2 = Host::make();
  ASSERT_TRUE(pod1 && pod2);
  ASSERT_TRUE(node(1).add_pod(*pod1, mtu) && node(2).add_pod(*pod2, mtu));
  const int header = GetParam() ? 48 : 28;
  EXPECT_TRUE(pod1->ok(fmt::format("ping -c1 -W5 -M do -s {} {}", mtu - header, node(2).pod_ip())));
  int status = 0;
  pod1->sh(fmt::format("ping -c1 -W1 -M do -s {} {}", mtu - header + 1, node(2).pod_ip()), &status);
  EXPECT_NE(status, 0) << "one byte more does not fit";
}

TEST_P(OverlayTest, ThreeEntriesAPeerAndNoneLeftOfOneThatGoes) {
  add_node(3);
  start_all();
  EXPECT_EQ(neighs(node(1)), 2);
  EXPECT_EQ(fdb(node(1)), 2);
  EXPECT_EQ(peer_routes(node(1)), 2);
  ASSERT_TRUE(api_.remove(kube::kNodes, "", "node-3"));
  EXPECT_TRUE(eventually([&] { return neighs(node(1)) == 1 && fdb(node(1)) == 1 && peer_routes(node(1)) == 1; }));
  EXPECT_THAT(node(1).host().sh("ip route; ip -6 route; bridge fdb"), Not(HasSubstr(node(3).cidr())));
}

TEST_P(OverlayTest, RestartAdoptsEverything) {
  start_all();
  int before = ifindex(node(1));
  auto state = [&] {
    return node(1).host().sh(
        "ip -o addr; ip -o link; ip route; ip -6 route; bridge fdb; ip neigh; nft -a list ruleset");
  };
  ASSERT_TRUE(eventually([&] { return access((node(1).files() + "/node.json").c_str(), F_OK) == 0; }));
  const auto file = cni::NodeFile::load(node(1).files() + "/node.json");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->devices.size(), 1u) << "what STATUS of the plugin looks at";
  for (const auto& d : file->devices) EXPECT_TRUE(node(1).host().ok("ip link show " + d));
  node(1).stop();
  auto stood = node(1).host().sh("bridge fdb; ip route; ip -6 route; nft -a list ruleset");
  EXPECT_EQ(fdb(node(1)), 1) << "stopping changes nothing";
  auto watch = netlink::Monitor::open(node(1).host().netns().fd());
  ASSERT_TRUE(watch);
  node(1).start(api_);
  // It has looked at everything once its lease is known to stand: a changed Node shows that the loop ran.
  ASSERT_TRUE(api_.patch(kube::kNodes, "", "node-2", kube::PatchType::kMerge,
                         kube::Object{{"metadata", {{"labels", {{"x", "y"}}}}}}));
  ASSERT_TRUE(eventually([&] { return api_.watching() >= 2; }));
  node(1).stop();
  EXPECT_EQ(ifindex(node(1)), before);
  EXPECT_EQ(node(1).host().sh("bridge fdb; ip route; ip -6 route; nft -a list ruleset"), stood);
  int writes = 0;
  ASSERT_TRUE(watch->read([&](const netlink::Event& e) {
    writes += e.type == netlink::Event::Type::kRoute || (e.type == netlink::Event::Type::kNeigh && e.neigh.permanent);
  }));
  EXPECT_EQ(writes, 0) << state();
}

TEST_P(OverlayTest, RepairsWhatOthersBreakWithinASecond) {
  start_all();
  const Node& n = node(1);
  const std::string dev = n.device();
  const std::string v = GetParam() ? "-6" : "-4";
  const std::string rules = "nft list table inet hawser-masq | grep -c masquerade";
  const auto masq = n.host().sh(rules);
  for (const std::string& damage :
       {"ip link del " + dev, "ip " + v + " route flush dev " + dev, "ip neigh flush nud permanent dev " + dev,
        "for m in $(bridge fdb show dev " + dev + " | cut -d' ' -f1); do bridge fdb del $m dev " + dev + "; done",
        "ip link set " + dev + " down", "ip link set " + dev + " mtu 1280",
        "ip link set " + dev + " address 02:00:00:00:00:99", "ip addr flush dev " + dev}) {
    const auto address = n.host().sh("ip -o link show dev " + dev + " | sed 's/.*ether //; s/ .*//'");
    ASSERT_TRUE(n.host().ok(damage));
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(eventually([&] {
      return fdb(n) == 1 && neighs(n) == 1 && peer_routes(n) == 1 &&
             n.host().sh("ip -o link show dev " + dev + " | sed 's/.*ether //; s/ .*//'") == address &&
             n.count("ip -o link show dev " + dev + " | grep 'UP,LOWER_UP.*mtu 14'") == 1;
    })) << damage
        << "\n"
        << n.host().sh("ip -o link show; ip addr show dev " + dev);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1)) << damage;
  }
  EXPECT_EQ(n.host().sh(rules), masq);
}

TEST_P(OverlayTest, PeerThatChangesLeavesNothingBehind) {
  start_all();
  node(2).stop();
  const std::string prefix{kDefaultAnnotationPrefix};
  const bool v6 = GetParam();
  const std::string other_ip = v6 ? "2001:db8::99" : "192.0.2.99";
  const std::string other_cidr = v6 ? "fd00:77::/64" : "10.244.77.0/24";
  kube::Object change{
      {"metadata",
       {{"annotations",
         {{prefix + (v6 ? "/public-ipv6" : "/public-ip"), other_ip},
          {prefix + (v6 ? "/backend-v6-data" : "/backend-data"), "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:77\"}"}}}}},
      {"spec", {{"podCIDR", other_cidr}, {"podCIDRs", kube::Array{kube::Value(other_cidr)}}}}};
  ASSERT_TRUE(api_.patch(kube::kNodes, "", "node-2", kube::PatchType::kMerge, change));
  const Node& n = node(1);
  auto has = [&](const char* what) {
    return n.host().sh("ip route; ip -6 route; ip neigh; bridge fdb").find(what) != std::string::npos;
  };
  EXPECT_TRUE(
      eventually([&] { return has("02:00:00:00:00:77") && has(other_cidr.c_str()) && !has(node(2).cidr().c_str()); }));
  EXPECT_EQ(fdb(n), 1);
  EXPECT_EQ(neighs(n), 1);
  EXPECT_EQ(peer_routes(n), 1);
  EXPECT_THAT(n.host().sh("bridge fdb show dev " + n.device()), HasSubstr("dst " + other_ip));
}

TEST_P(OverlayTest, ApiAwayAtStartKeepsTheKernelsState) {
  start_all();
  node(1).stop();
  api_.set_fault([](const kube::FakeClient::Call&) { return Error{ECONNREFUSED, "connection refused", {}}; });
  api_.clear_calls();
  node(1).start(api_);
  ASSERT_TRUE(eventually([&] { return !api_.calls().empty(); }));
  EXPECT_EQ(fdb(node(1)), 1);
  EXPECT_EQ(peer_routes(node(1)), 1);
  node(1).stop();
}

INSTANTIATE_TEST_SUITE_P(Underlay, OverlayTest, ::testing::Values(false, true),
                         [](const auto& i) { return i.param ? "v6" : "v4"; });

}  // namespace
}  // namespace hawser::overlay
