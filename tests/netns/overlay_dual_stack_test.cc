// SPDX-License-Identifier: Apache-2.0
// Nodes with both address families at once: each family its own tunnel, and neither waits for the other.
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

class DualStackTest : public OverlayNet {
 protected:
  void SetUp() override {
    build(false);
    for (auto& n : nodes_) both_families(*n);
  }
  void both_families(Node& n) {
    const auto number = n.name().substr(n.name().size() - 1);
    ASSERT_TRUE(n.host().ok(fmt::format("ip addr add 2001:db8::1{}/64 dev eth0 nodad", number)));
    const auto address = [](const std::string& a) { return kube::Value{{"type", "InternalIP"}, {"address", a}}; };
    ASSERT_TRUE(api_.patch(
        kube::kNodes, "", n.name(), kube::PatchType::kMerge,
        kube::Object{
            {"spec", {{"podCIDRs", kube::Array{kube::Value(n.cidr()), kube::Value(cidr6(number))}}}},
            {"status", {{"addresses", kube::Array{address(n.underlay()), address("2001:db8::1" + number)}}}}}));
  }
  static std::string cidr6(const std::string& number) { return fmt::format("fd00:{}::/64", number); }
  void annotate(const std::string& name, const std::string& key, const std::string& value) {
    kube::Object annotations;
    annotations[fmt::format("{}/{}", kDefaultAnnotationPrefix, key)] = value;
    ASSERT_TRUE(api_.patch(kube::kNodes, "", name, kube::PatchType::kMerge,
                           kube::Object{{"metadata", {{"annotations", annotations}}}}));
  }
  static bool entry(const Node& n, const std::string& device, const std::string& text) {
    return n.host().sh("bridge fdb show dev " + device).contains(text);
  }
};

TEST_F(DualStackTest, EachFamilyHasItsTunnelAndItsMtu) {
  for (auto& n : nodes_) n->start(api_);
  for (auto& n : nodes_) {
    ASSERT_TRUE(eventually([&] {
      return n->count("bridge fdb show dev flannel.1 | grep dst") == 1 &&
             n->count("bridge fdb show dev flannel-v6.1 | grep dst") == 1 && n->status().ready;
    })) << n->host().sh("ip addr; bridge fdb");
  }
  EXPECT_EQ(node(1).count("ip -o link show dev flannel.1 | grep 'mtu 1450'"), 1);
  EXPECT_EQ(node(1).count("ip -o link show dev flannel-v6.1 | grep 'mtu 1430'"), 1) << "IPv6 has the larger header";
  EXPECT_TRUE(node(1).host().ok("ping -c1 -W5 10.244.2.0 && ping -c1 -W5 fd00:2::"));
}

// A node behind a translator: peers are told another address than the underlay's; what the annotation orders wins.
TEST_F(DualStackTest, PeersAreToldThePublicAddresses) {
  node(1).options.public_ips = {*IpAddr::parse("198.51.100.99"), *IpAddr::parse("2001:db8:99::99")};
  for (auto& n : nodes_) n->start(api_);
  EXPECT_TRUE(eventually([&] {
    return entry(node(2), "flannel.1", "dst 198.51.100.99") && entry(node(2), "flannel-v6.1", "dst 2001:db8:99::99");
  }));
  annotate("node-1", "public-ip-overwrite", "203.0.113.9");
  EXPECT_TRUE(eventually([&] { return entry(node(2), "flannel.1", "dst 203.0.113.9"); }));
  EXPECT_TRUE(eventually([&] {
    auto o = api_.get(kube::kNodes, "", "node-1");
    return o && kube::str(**o, {"metadata", "annotations", "flannel.alpha.coreos.com/public-ip"}) == "203.0.113.9";
  }));
  EXPECT_TRUE(entry(node(2), "flannel-v6.1", "dst 2001:db8:99::99")) << "the other family's stays";
  EXPECT_EQ(node(1).count("ip -d link show dev flannel.1 | grep 'local 192.0.2.11 '"), 1) << "packets leave as before";
}

// Appendix A 7: flannel loses the change of one family where the other is as it was.
TEST_F(DualStackTest, AChangeOfOneFamilyIsSeen) {
  for (auto& n : nodes_) n->start(api_);
  ASSERT_TRUE(eventually([&] { return node(2).status().ready; }));
  ASSERT_TRUE(eventually([&] { return entry(node(1), "flannel.1", "dst") && entry(node(1), "flannel-v6.1", "dst"); }));
  node(2).stop();
  const auto six = node(1).host().sh("bridge fdb show dev flannel-v6.1");
  annotate("node-2", "backend-data", R"({"VNI":1,"VtepMAC":"02:00:00:00:00:44"})");
  EXPECT_TRUE(eventually([&] { return entry(node(1), "flannel.1", "02:00:00:00:00:44 dst 192.0.2.12"); }));
  annotate("node-2", "public-ip", "192.0.2.99");
  EXPECT_TRUE(eventually([&] { return entry(node(1), "flannel.1", "02:00:00:00:00:44 dst 192.0.2.99"); }));
  EXPECT_EQ(node(1).host().sh("bridge fdb show dev flannel-v6.1"), six);
  const auto four = node(1).host().sh("bridge fdb show dev flannel.1");
  annotate("node-2", "backend-v6-data", R"({"VNI":1,"VtepMAC":"02:00:00:00:00:66"})");
  EXPECT_TRUE(eventually([&] { return entry(node(1), "flannel-v6.1", "02:00:00:00:00:66 dst 2001:db8::12"); }));
  EXPECT_EQ(node(1).host().sh("bridge fdb show dev flannel.1"), four);
  for (const char* device : {"flannel.1", "flannel-v6.1"})
    EXPECT_EQ(node(1).count(fmt::format("bridge fdb show dev {} | grep dst", device)), 1) << "no entry of an older MAC";
}

}  // namespace
}  // namespace hawser::overlay
