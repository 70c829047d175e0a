// SPDX-License-Identifier: Apache-2.0
// What changes under a running overlay: flannel's known defects (FEATURES Appendix A) as tests of ours, probes that
// name faults, traffic while the daemon is killed, taking over from flannel and handing back, cleaning up.
#include <csignal>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cni-plugin/overlayd/kube_source.h"
#include "cni-plugin/overlayd/static_source.h"
#include "lib/base/atomic_file.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class RepairTest : public OverlayNet {
 protected:
  void SetUp() override { build(false); }
  // Two pods, one a node.
  void add_pods() {
    for (auto* slot : {&pod1_, &pod2_}) {
      auto h = Host::make();
      ASSERT_TRUE(h);
      slot->emplace(std::move(*h));
    }
    ASSERT_TRUE(node(1).add_pod(*pod1_, 1450) && node(2).add_pod(*pod2_, 1450));
  }
  int lost_during(const std::function<void()>& fn) { return lost_pings(*pod1_, "10.244.2.5", 150, fn); }
  std::optional<Host> pod1_, pod2_;
};

// The daemon itself, both families, all its files; then --cleanup. What a node has is compared byte for byte, all
// sysctls of its network and the folders included.
TEST_F(RepairTest, CleanUpLeavesTheNodeAsItWas) {
  const auto& host = node(1).host();
  const auto folder = node(1).files();
  const auto state = [&] {
    return host.sh(
        "ip -o addr | sed 's/valid_lft.*//'; ip -o link | sed 's/state [A-Z]*//'; ip -4 route show table all; ip -6 "
        "route show table all | sed 's/expires [0-9]*sec//'; ip rule; ip -6 rule; ip neigh show nud permanent; bridge "
        "fdb; nft list ruleset; sysctl -a -r '^net[.](ipv4|ipv6|core|bridge)' 2>/dev/null | grep -v "
        "'stat_refresh\\|flow_limit\\|somaxconn'; cd " +
        folder + " && find . -type f -exec sha256sum {} + | sort; find . | sort");
  };
  ASSERT_TRUE(host.ok(
      "nft add table ip foreign; nft add chain ip foreign c; ip route add 172.16.0.0/12 via 192.0.2.12; ip route add "
      "unreachable 198.51.100.0/24; ip addr add 2001:db8::11/64 dev eth0 nodad; ip -6 route add 2001:db8:9::/48 via "
      "2001:db8::12; ip link add foreign type bridge; ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0"));
  ASSERT_TRUE(make_folders(folder + "/net.d") && make_folders(folder + "/run"));
  ASSERT_TRUE(write_file(folder + "/net.d/87-foreign.conflist", "{}"));
  const auto leases = folder + "/leases.json";
  ASSERT_TRUE(write_file(leases, R"({"nodes":[
{"name":"node-1","podCIDRs":["10.244.1.0/24","fd00:1::/64"],"publicIP":"192.0.2.11","publicIPv6":"2001:db8::11"},
{"name":"node-2","podCIDRs":["10.244.2.0/24","fd00:2::/64"],"publicIP":"192.0.2.12","publicIPv6":"2001:db8::12"}]})"));
  // The kernel's own detection of duplicate addresses must be over.
  ASSERT_TRUE(eventually([&] { return host.sh("ip -o addr show tentative").empty(); }));
  const auto before = state();
  const auto flags = fmt::format("--run-dir={0}/run --cni-conf-dir={0}/net.d", folder);
  int status = 0;
  const auto out = host.sh(fmt::format("timeout 20 sh -c '{} {} --subnets-file={} --node-name=node-1 --iface=eth0 "
                                       "--cluster-cidr=10.244.0.0/16,fd00::/16 --healthz-bind \"\" & p=$!; "
                                       "while [ ! -e {}/net.d/10-hawser.conflist ]; do sleep 0.02; done; kill $p; "
                                       "wait $p' 2>&1",
                                       HAWSER_OVERLAYD, flags, leases, folder),
                           &status);
  ASSERT_EQ(status, 0) << out;
  const auto during = state();
  for (const char* made : {"flannel.1", "flannel-v6.1", "hawser-masq", "ip_forward = 1", "10-hawser.conflist"})
    EXPECT_THAT(during, HasSubstr(made)) << out;
  for (int i = 0; i < 2; i++) {
    EXPECT_TRUE(host.ok(std::string(HAWSER_OVERLAYD) + " --cleanup " + flags))
        << "a second time there is nothing to do";
    EXPECT_EQ(state(), before);
  }
}

// Appendix A 4: flannel's new device has no peers. Under traffic, and with the time it takes.
TEST_F(RepairTest, ADeletedDeviceIsBackWithItsPeersUnderTraffic) {
  start_all();
  add_pods();
  EXPECT_LT(lost_during([&] { ASSERT_TRUE(node(1).host().ok("ip link del flannel.1")); }), 100);
  EXPECT_EQ(lost_during([] {}), 0);
  EXPECT_THAT(node(1).metrics(), HasSubstr("repairs_total{kind=\"device\"} 1"));
}

// A daemon that ends and starts changes nothing: not one packet is lost, and the device is the same.
TEST_F(RepairTest, RestartLosesNoPacket) {
  start_all();
  add_pods();
  const int before = ifindex(node(1));
  EXPECT_EQ(lost_during([&] {
              for (int i = 0; i < 5; i++) {
                node(1).stop();
                node(1).start(api_);
                ASSERT_TRUE(eventually([&] { return node(1).status().ready; }));
              }
            }),
            0);
  EXPECT_EQ(ifindex(node(1)), before);
}

TEST_F(RepairTest, KilledUnderTrafficLosesNoPacket) {
  start_all();
  add_pods();
  node(1).stop();
  const auto file = node(1).files() + "/subnets.json";
  std::string nodes;
  for (int i : {1, 2}) {
    auto& n = node(i);
    auto mac = n.host().sh("ip -o link show dev flannel.1 | sed 's/.*ether //; s/ .*//' | tr -d '\n'");
    nodes += fmt::format(R"({}{{"name":"node-{}","podCIDRs":["{}"],"publicIP":"{}","vtepMAC":"{}"}})",
                         nodes.empty() ? "" : ",", i, n.cidr(), n.underlay(), mac);
  }
  ASSERT_TRUE(write_file(file, fmt::format(R"({{"nodes":[{}]}})", nodes)));
  const int before = ifindex(node(1));
  EXPECT_EQ(
      lost_during([&] {
        for (int i = 0; i < 8; i++) {
          pid_t pid = 0;
          node(1).host().run([&] {
            std::vector<std::string> args{HAWSER_OVERLAYD,
                                          "--subnets-file=" + file,
                                          "--node-name=node-1",
                                          "--iface=eth0",
                                          "--cluster-cidr=10.244.0.0/16",
                                          "--run-dir=" + node(1).files() + "/killed",
                                          "--healthz-bind",
                                          ""};
            std::vector<char*> argv;
            for (auto& a : args) argv.push_back(a.data());
            argv.push_back(nullptr);
            ASSERT_EQ(posix_spawn(&pid, HAWSER_OVERLAYD, nullptr, nullptr, argv.data(), environ), 0);
          });
          ASSERT_TRUE(eventually([&] { return access((node(1).files() + "/killed/node.json").c_str(), F_OK) == 0; }));
          kill(pid, SIGKILL);
          waitpid(pid, nullptr, 0);
          unlink((node(1).files() + "/killed/node.json").c_str());
        }
      }),
      0);
  EXPECT_EQ(ifindex(node(1)), before);
}

// Migration: a node that flannel has set up is taken over as it stands, under traffic, and given back.
TEST_F(RepairTest, TakesOverFlannelsDeviceAndHandsItBack) {
  for (int i : {1, 2}) make_flannels(i);
  add_pods();
  const auto data_path =
      "ip -o link show dev flannel.1; ip -4 -o addr show dev flannel.1 | sed 's/valid_lft.*//'; ip route "
      "show dev flannel.1; bridge fdb show dev flannel.1; ip neigh show dev flannel.1 nud permanent";
  const auto flannels = node(1).host().sh(data_path);
  // node-2 stays flannel's: a mixed cluster keeps its mesh.
  EXPECT_EQ(lost_during([&] {
              node(1).start(api_);
              ASSERT_TRUE(eventually([&] { return node(1).status().ready; }));
            }),
            0);
  EXPECT_EQ(node(1).host().sh(data_path), flannels) << "nothing was made anew or changed";
  EXPECT_EQ(lost_during([&] { node(1).stop(); }), 0);
  EXPECT_EQ(node(1).host().sh(data_path), flannels) << "flanneld finds what it left";
  auto o = api_.get(kube::kNodes, "", "node-1");
  ASSERT_TRUE(o);
  EXPECT_EQ(read_lease(**o, kDefaultAnnotationPrefix).v4.mac->text(), kFlannelMacs[0]);
}

// Appendix A 6: flannel compares neither MTU nor Learning of a device that stands. Corrected in place: with the device
// the entries of all peers would go.
TEST_F(RepairTest, LearningAndMtuOfAStandingDeviceAreCorrectedInPlace) {
  start_all();
  add_pods();
  const int before = ifindex(node(1));
  node(1).stop();
  ASSERT_TRUE(node(1).host().ok("ip link set flannel.1 mtu 1400; ip link set flannel.1 type vxlan id 1 learning"));
  EXPECT_EQ(lost_during([&] { node(1).start(api_); }), 0);
  auto link = [&] { return node(1).host().sh("ip -d link show dev flannel.1"); };
  EXPECT_TRUE(eventually([&] { return link().contains("nolearning") && link().contains("mtu 1450"); })) << link();
  EXPECT_EQ(lost_during([&] { ASSERT_TRUE(node(1).host().ok("ip link set flannel.1 type vxlan id 1 learning")); }), 0);
  EXPECT_TRUE(eventually([&] { return link().contains("nolearning"); })) << link();
  EXPECT_EQ(ifindex(node(1)), before);
  EXPECT_EQ(fdb(node(1)), 1) << "nothing that was learned is left";
}

// Appendix A 11: order within a burst. Level-triggered: what
// stands at the end is what the objects say.
TEST_F(RepairTest, ABurstOfNodeEventsEndsInTheLastState) {
  start_all();
  const std::string p{kDefaultAnnotationPrefix};
  for (int i = 0; i < 2000; i++) {
    const auto name = fmt::format("far-{}", i % 20);
    const auto cidr = fmt::format("10.244.{}.0/24", 100 + i % 20);
    kube::Object o{{"metadata",
                    {{"name", name},
                     {"annotations",
                      {{p + "/backend-type", "vxlan"},
                       {p + "/public-ip", fmt::format("192.0.2.{}", 100 + i % 100)},
                       {p + "/backend-data",
                        fmt::format(R"({{"VNI":1,"VtepMAC":"02:00:00:00:{:02x}:{:02x}"}})", i / 256, i % 256)}}}}},
                   {"spec", {{"podCIDR", cidr}, {"podCIDRs", kube::Array{kube::Value(cidr)}}}}};
    if (i < 20)
      ASSERT_TRUE(api_.create(kube::kNodes, "", o));
    else
      ASSERT_TRUE(api_.patch(kube::kNodes, "", name, kube::PatchType::kMerge, o));
  }
  EXPECT_TRUE(eventually([&] { return fdb(node(1)) == 21 && neighs(node(1)) == 21 && peer_routes(node(1)) == 21; }));
  EXPECT_TRUE(eventually([&] {
    auto out = node(1).host().sh("bridge fdb show dev flannel.1");
    for (int i = 1980; i < 2000; i++) {
      auto line = fmt::format("02:00:00:00:{:02x}:{:02x} dst 192.0.2.{}", i / 256, i % 256, 100 + i % 100);
      if (!out.contains(line)) return false;
    }
    return true;
  })) << node(1).host().sh("bridge fdb show dev flannel.1");
  EXPECT_EQ(fdb(node(1)), 21) << "no entry of an older MAC";
}

// host-gw, DirectRouting and none on the kernel.
TEST_F(RepairTest, BackEndsOnTheKernel) {
  for (auto& n : nodes_) n->options.settings.direct_routing = true;
  for (auto& n : nodes_) n->start(api_);
  const char* direct = "ip route | grep -c '^10.244.2.0/24 via 192.0.2.12 dev eth0'";
  ASSERT_TRUE(eventually([&] { return node(1).host().sh(direct) == "1\n"; }));
  EXPECT_EQ(fdb(node(1)), 0);
  add_pods();
  EXPECT_TRUE(pod1_->ok("ping -c1 -W5 10.244.2.5"));
  for (auto& n : nodes_) n->stop();
  for (auto& n : nodes_) n->options.settings = {.backend = "host-gw"};
  for (auto& n : nodes_) n->start(api_);
  ASSERT_TRUE(eventually([&] { return node(1).status().ready && node(2).status().ready; }));
  EXPECT_EQ(node(1).host().sh(direct), "1\n");
  EXPECT_TRUE(pod1_->ok("ping -c1 -W5 10.244.2.5"));
  // A removal that falls in with the peer's own update is put right with that update and is not counted: once more.
  EXPECT_TRUE(eventually([&] {
    EXPECT_TRUE(node(1).host().ok("ip route del 10.244.2.0/24"));
    EXPECT_TRUE(eventually([&] { return node(1).host().sh(direct) == "1\n"; }, std::chrono::milliseconds(1000)));
    return eventually([&] { return node(1).metrics().contains("repairs_total{kind=\"route\"} 1"); },
                      std::chrono::milliseconds(500));
  })) << node(1).metrics();
}

TEST_F(RepairTest, ProbesNameTheFault) {
  for (auto& n : nodes_)
    n->probe = {.interval = std::chrono::milliseconds(150),
                .answer_within = std::chrono::milliseconds(100),
                .rounds_to_fault = 2};
  start_all();
  auto line = [&](int n) {
    auto lines = node(n).path_lines();
    return lines.empty() ? std::string() : lines[0];
  };
  auto becomes = [&](int n, const std::string& text) { return eventually([&] { return line(n).contains(text); }); };
  ASSERT_TRUE(becomes(1, "node-2 10.244.2.0: works")) << line(1);
  // An MTU black hole: the fabric's port drops what is large.
  const char* rules =
      "nft add table netdev t; nft add chain netdev t c '{ type filter hook ingress device port1 priority "
      "0; }'; ";
  ASSERT_TRUE(fabric_->ok(std::string(rules) + "nft add rule netdev t c meta length '>' 1400 drop"));
  EXPECT_TRUE(becomes(1, "small packets to node-2 pass, packets of 1450 bytes do not")) << line(1);
  EXPECT_TRUE(eventually([&] {
    auto o = api_.get(kube::kNodes, "", "node-1");
    for (const auto& c : kube::arr(**o, {"status", "conditions"}))
      if (kube::str(kube::as_obj(c), {"type"}) == "PeersUnreachable")
        return kube::str(kube::as_obj(c), {"message"}).contains("1450 bytes");
    return false;
  }));
  EXPECT_THAT(node(1).metrics(), HasSubstr("hawser_overlay_peer_paths{state=\"mtu_black_hole\"} 1"));
  // One direction filtered: node-1's tunnel packets are lost, node-2's arrive.
  ASSERT_TRUE(fabric_->ok("nft flush chain netdev t c; nft add rule netdev t c udp dport 8472 drop"));
  EXPECT_TRUE(becomes(1, "packets of node-2 reach us, ours to it are lost")) << line(1);
  EXPECT_TRUE(becomes(2, "nothing passes to or from node-1")) << line(2);
  ASSERT_TRUE(fabric_->ok("nft delete table netdev t"));
  EXPECT_TRUE(becomes(1, ": works")) << line(1);
}

}  // namespace
}  // namespace hawser::overlay
