// SPDX-License-Identifier: Apache-2.0
// From flannel to us and back, pods included. flannel's side is made as flannel makes it: its device, annotations and
// files by hand, its pods by Debian's bridge and host-local with the configuration that flannel's plugin would
// delegate.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/overlayd/handover.h"
#include "cni-plugin/overlayd/kube_source.h"
#include "lib/base/atomic_file.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDebianPlugins = "/usr/lib/cni";

class HandoverTest : public OverlayNet {
 protected:
  void SetUp() override {
    build(false);
    if (IsSkipped()) return;
    if (access((std::string(kDebianPlugins) + "/bridge").c_str(), X_OK) != 0)
      GTEST_SKIP() << "needs the package containernetworking-plugins";
    for (int i : {1, 2}) make_flannels(i);
    flannels_files();
  }

  [[nodiscard]] std::string file(const std::string& name) const { return nodes_[0]->files() + "/" + name; }

  // node-1's, all in its temporary folder.
  void flannels_files() {
    const auto conflist = fmt::format(
        R"({{"name":"cbr0","cniVersion":"0.3.1","plugins":[{{"type":"flannel","subnetFile":"{0}","dataDir":"{1}",)"
        R"("ipam":{{"dataDir":"{2}"}},"delegate":{{"hairpinMode":true,"isDefaultGateway":true}}}},)"
        R"({{"type":"portmap","capabilities":{{"portMappings":true}}}}]}})",
        file("subnet.env"), file("scratch"), file("networks"));
    ASSERT_TRUE(make_folders(file("net.d")));
    ASSERT_TRUE(write_file(file("net.d/10-flannel.conflist"), conflist));
    ASSERT_TRUE(write_file(file("subnet.env"),
                           "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n"
                           "FLANNEL_IPMASQ=true\n"));
    delegate_ = fmt::format(
        R"({{"cniVersion":"0.3.1","name":"cbr0","type":"bridge","hairpinMode":true,"isDefaultGateway":true,)"
        R"("isGateway":true,"ipMasq":false,"mtu":1450,"ipam":{{"type":"host-local","dataDir":"{}",)"
        R"("ranges":[[{{"subnet":"10.244.1.0/24"}}]],"routes":[{{"dst":"10.244.0.0/16"}}]}}}})",
        file("networks"));
    node(1).options.cluster_cidrs = {*Cidr::parse("10.244.0.0/16")};
    node(1).options.paths = {.run_dir = file("run"), .cni_conf_dir = file("net.d")};
  }

  // A verb of a plugin for one pod, on node-1. The result or the error, both JSON.
  std::string cni(const std::string& verb, const std::string& plugin, const std::string& id, const Host& pod,
                  const std::string& conf) {
    EXPECT_TRUE(write_file(file("conf"), conf));
    return node(1).host().sh(
        fmt::format("CNI_COMMAND={} CNI_CONTAINERID={} CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH={} {} < {} 2>&1", verb, id,
                    pod.path(), kDebianPlugins, plugin, file("conf")));
  }
  // The pod as flannel's plugin makes it.
  std::string add_by_flannel(const std::string& id, const Host& pod) {
    EXPECT_TRUE(make_folders(file("scratch")) && write_file(file("scratch/" + id), delegate_));
    return cni("ADD", std::string(kDebianPlugins) + "/bridge", id, pod, delegate_);
  }
  // Of the configuration that the runtime takes first.
  std::string our_conf() {
    auto text = node(1).host().sh(
        "python3 -c 'import json,sys; l=json.load(open(sys.argv[1])); p=l[\"plugins\"][0]; "
        "p.update(name=l[\"name\"],cniVersion=l[\"cniVersion\"]); print(json.dumps(p))' " +
        file("net.d/10-hawser.conflist"));
    return text;
  }
  static std::string address_of(const Host& pod) {
    return pod.sh("ip -4 -o addr show dev eth0 | sed 's/.*inet //; s,/.*,,' | tr -d '\\n'");
  }
  std::string data_path() {
    return node(1).host().sh(
        "ip -o link show dev flannel.1; ip -4 -o addr show dev flannel.1 | sed 's/valid_lft.*//'; ip route show dev "
        "flannel.1; bridge fdb show dev flannel.1 | sort; ip neigh show dev flannel.1 nud permanent");
  }
  Result<std::vector<std::string>> give_back() {
    Result<std::vector<std::string>> r;
    node(1).host().run([&] {
      auto rtnl = netlink::KernelRtnl::open();
      auto nft = nft::KernelNft::open();
      ASSERT_TRUE(rtnl && nft);
      r = hand_back(*rtnl, **nft, node(1).options.paths, true);
    });
    return r;
  }
  // As main() does for --adopt.
  Result<> take_over() {
    Result<> result;
    node(1).host().run([&] {
      auto rtnl = netlink::KernelRtnl::open();
      ASSERT_TRUE(rtnl);
      auto& o = node(1).options;
      auto a = adopt(*rtnl, o.paths, o.settings.vni);
      if (!a || !*a) {
        result = a ? fail(ENOENT, "nothing to adopt") : propagate(a);
        return;
      }
      o.adopt = true;
      o.conflist = adopted_conflist_text((*a)->cni, o.paths.node_file());
      o.paths.subnet_file = (*a)->cni.subnet_file;
    });
    return result;
  }
  // Has the Node what the prober tells?
  bool condition() {
    auto o = api_.get(kube::kNodes, "", "node-1");
    return o && std::ranges::any_of(kube::arr(**o, {"status", "conditions"}), [](const kube::Value& c) {
             return kube::str(kube::as_obj(c), {"type"}) == kPathCondition;
           });
  }
  static int lost_during(const Host& pod, const std::function<void()>& fn) {
    return lost_pings(pod, "10.244.2.5", 200, fn);
  }

  std::string delegate_;
};

TEST_F(HandoverTest, ANodeGoesOverAndBackWithItsPods) {
  auto old_pod = Host::make(), new_pod = Host::make(), last_pod = Host::make(), far = Host::make();
  ASSERT_TRUE(old_pod && new_pod && last_pod && far);
  ASSERT_THAT(add_by_flannel("old", *old_pod), HasSubstr("10.244.1.2/24"));
  ASSERT_TRUE(node(2).add_pod(*far, 1450));
  const auto before = data_path();
  const auto env = *read_file(file("subnet.env"));

  EXPECT_EQ(lost_during(*old_pod,
                        [&] {
                          auto r = take_over();
                          ASSERT_TRUE(r) << r.error().text;
                          node(1).probe = ProberOptions{};
                          node(1).start(api_);
                          ASSERT_TRUE(eventually([&] { return node(1).status().ready; })) << node(1).status().reason;
                          ASSERT_TRUE(eventually([&] { return condition(); })) << "told by the first probes";
                        }),
            0);
  EXPECT_EQ(data_path(), before) << "nothing was made anew or changed";
  EXPECT_EQ(*read_file(file("subnet.env")), env);

  // A pod of our plugin beside flannel's, on the same bridge, with an address of its own.
  const auto conf = our_conf();
  ASSERT_THAT(conf, HasSubstr("\"name\": \"cbr0\""));
  ASSERT_THAT(cni("ADD", HAWSER_CNI, "new", *new_pod, conf), HasSubstr("10.244.1."));
  ASSERT_NE(address_of(*new_pod), address_of(*old_pod));
  EXPECT_TRUE(new_pod->ok("ping -c1 -W5 " + address_of(*old_pod)));
  EXPECT_TRUE(new_pod->ok("ping -c1 -W5 10.244.2.5"));

  node(1).stop();
  EXPECT_EQ(lost_during(*old_pod,
                        [&] {
                          auto done = give_back();
                          ASSERT_TRUE(done) << done.error().text;
                        }),
            0);
  EXPECT_EQ(data_path(), before);
  EXPECT_EQ(*read_file(file("subnet.env")), env);
  EXPECT_EQ(node(1).host().sh("ls " + file("net.d")), "10-flannel.conflist\n");
  EXPECT_EQ(node(1).host().sh("ls -A " + file("run") + "; nft list tables; ip route show proto 72"), "ipam\n");
  // flannel goes on where we were: no address twice, and our pod's DEL is its business now.
  EXPECT_EQ(*read_file(file("networks/cbr0/" + address_of(*new_pod))), "new\r\neth0");
  ASSERT_THAT(add_by_flannel("last", *last_pod), HasSubstr("10.244.1."));
  EXPECT_NE(address_of(*last_pod), address_of(*new_pod));
  EXPECT_TRUE(last_pod->ok("ping -c1 -W5 " + address_of(*new_pod)));
  const auto given = address_of(*new_pod);
  EXPECT_EQ(cni("DEL", std::string(kDebianPlugins) + "/bridge", "new", *new_pod, *read_file(file("scratch/new"))), "");
  EXPECT_EQ(access(file("networks/cbr0/" + given).c_str(), F_OK), -1);
  EXPECT_FALSE(give_back()) << "a second time there is nothing to give back";
  EXPECT_TRUE(remove_path_condition(api_, "node-1").value_or(false)) << "the daemon had set it";
  EXPECT_FALSE(remove_path_condition(api_, "node-1").value_or(true));
  EXPECT_FALSE(remove_path_condition(api_, "no-such-node").value_or(true));
  auto o = api_.get(kube::kNodes, "", "node-1");
  ASSERT_TRUE(o);
  EXPECT_EQ(read_lease(**o, kDefaultAnnotationPrefix).v4.mac->text(), kFlannelMacs[0]);
  const auto& conditions = kube::arr(**o, {"status", "conditions"});
  ASSERT_EQ(conditions.size(), 1u) << "NetworkUnavailable, which flannel sets as well";
  EXPECT_EQ(kube::str(kube::as_obj(conditions[0]), {"type"}), "NetworkUnavailable");
}

TEST_F(HandoverTest, WhatCannotBeTakenOverIsNamedAndLeftAlone) {
  const auto before = data_path();
  node(1).options.settings.port = 4789;
  ASSERT_TRUE(take_over());
  node(1).start(api_);
  EXPECT_TRUE(eventually([&] { return node(1).status().reason.contains("UDP port 8472, not 4789"); }))
      << node(1).status().reason;
  EXPECT_THAT(node(1).status().reason, HasSubstr("--adopt: device flannel.1 cannot be taken over as it stands"));
  node(1).stop();
  EXPECT_EQ(data_path(), before);
  node(1).options.settings.vni = 7;
  auto other = take_over();
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().text, HasSubstr("device flannel.1 with VNI 1, ours is 7"));
}

}  // namespace
}  // namespace hawser::overlay
