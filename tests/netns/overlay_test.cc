// SPDX-License-Identifier: Apache-2.0
// The overlay on the real kernel: two or three nodes as namespaces joined by a bridge in a further one (the fabric).
//
//   pod-1 -- node-1 (eth0 192.0.2.11) --+                       +-- node-2 (eth0 192.0.2.12) -- pod-2
//                                       +-- fabric br0, 1500 ---+
#include <memory>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/daemon.h"
#include "lib/kube/fake_client.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/host.h"

namespace hawser::overlay {
namespace {

using hawser::testing::Host;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::chrono::seconds kPatience{20};  // what a loaded machine may need; repairs are timed on their own

// Waits until `done`, looking every few milliseconds; the only wait of these tests.
bool eventually(const std::function<bool()>& done, std::chrono::milliseconds limit = kPatience) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::mutex mu;
  std::condition_variable cv;
  std::unique_lock l(mu);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    cv.wait_for(l, std::chrono::milliseconds(5));
  }
  return true;
}

// One machine of the test: its namespace, a pod behind it, and overlayd running on a thread inside.
class Node {
 public:
  Node(Host host, int number, bool v6_underlay) : host_(std::move(host)), number_(number), v6_underlay_(v6_underlay) {}
  ~Node() { stop(); }

  [[nodiscard]] std::string name() const { return fmt::format("node-{}", number_); }
  [[nodiscard]] const Host& host() const { return host_; }
  [[nodiscard]] std::string cidr() const {
    return v6_underlay_ ? fmt::format("fd00:{}::/64", number_) : fmt::format("10.244.{}.0/24", number_);
  }
  [[nodiscard]] std::string underlay() const {
    return v6_underlay_ ? fmt::format("2001:db8::{}", 10 + number_) : fmt::format("192.0.2.{}", 10 + number_);
  }
  [[nodiscard]] std::string pod_ip() const {
    return v6_underlay_ ? fmt::format("fd00:{}::5", number_) : fmt::format("10.244.{}.5", number_);
  }
  [[nodiscard]] std::string device() const { return v6_underlay_ ? "flannel-v6.1" : "flannel.1"; }

  void start(kube::Client& client) {
    stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    thread_ = std::thread([this, &client] {
      host_.run([&] {
        auto rtnl = netlink::KernelRtnl::open();
        auto nft = nft::KernelNft::open();
        auto monitor = netlink::Monitor::open();
        ASSERT_TRUE(rtnl && nft && monitor);
        metrics::Registry registry;
        Options o{.node = name(),
                  .iface = "eth0",
                  .cluster_cidrs = {*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00::/16")}};
        o.paths = {.run_dir = files_.path(), .cni_conf_dir = files_.path()};
        Daemon d(o, client, {*rtnl, **nft, *monitor}, registry);
        auto r = d.run(stop_.get());
        EXPECT_TRUE(r) << r.error().text;
      });
    });
  }
  void stop() {
    if (!thread_.joinable()) return;
    std::uint64_t one = 1;
    EXPECT_EQ(write(stop_.get(), &one, sizeof one), 8);
    thread_.join();
  }
  // A pod, joined to the node the way the CNI plugin does it.
  bool add_pod(const Host& pod, int mtu) const {
    bool v6 = v6_underlay_;
    return host_.wire("pod", pod, "eth0") &&
           host_.ok(fmt::format("ip route add {} dev pod; ip link set pod mtu {}", pod_ip(), mtu)) &&
           pod.ok(
               fmt::format("ip link set eth0 mtu {}; ip addr add {}/{} dev eth0 {}; ip -{} route add default dev eth0",
                           mtu, pod_ip(), v6 ? 128 : 32, v6 ? "nodad" : "", v6 ? 6 : 4)) &&
           host_.ok(v6 ? "sysctl -qw net.ipv6.conf.pod.proxy_ndp=1; ip -6 neigh add proxy fd00:9::9 dev pod"
                       : "sysctl -qw net.ipv4.conf.pod.proxy_arp=1");
  }
  [[nodiscard]] const std::string& files() const { return files_.path(); }
  [[nodiscard]] int count(const std::string& command) const {
    return std::stoi(host_.sh("{ " + command + "; } 2>/dev/null | wc -l"));
  }

 private:
  Host host_;
  int number_;
  bool v6_underlay_;
  hawser::testing::TempDir files_;
  UniqueFd stop_;
  std::thread thread_;
};

class OverlayTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto fabric = Host::make();
    if (!fabric) GTEST_SKIP() << "needs the right to make network namespaces: " << fabric.error().text;
    fabric_.emplace(std::move(*fabric));
    ASSERT_TRUE(fabric_->ok("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up"));
    for (int i = 1; i <= 2; i++) add_node(i);
  }
  void TearDown() override {
    for (auto& n : nodes_) n->stop();
  }
  Node& add_node(int number) {
    auto h = Host::make();
    EXPECT_TRUE(h);
    auto& n = *nodes_.emplace_back(std::make_unique<Node>(std::move(*h), number, GetParam()));
    auto port = fmt::format("port{}", number);
    EXPECT_TRUE(n.host().wire("eth0", *fabric_, port) && fabric_->ok(fmt::format("ip link set {} master br0", port)));
    EXPECT_TRUE(n.host().ok(GetParam() ? fmt::format("ip addr add {}/64 dev eth0 nodad", n.underlay())
                                       : fmt::format("ip addr add {}/24 dev eth0", n.underlay())));
    kube::Object o{
        {"metadata", {{"name", n.name()}}},
        {"spec", {{"podCIDR", n.cidr()}, {"podCIDRs", kube::Array{kube::Value(n.cidr())}}}},
        {"status", {{"addresses", kube::Array{kube::Value{{"type", "InternalIP"}, {"address", n.underlay()}}}}}}};
    auto made = api_.create(kube::kNodes, "", o);
    EXPECT_TRUE(made) << made.error().text;
    return n;
  }
  Node& node(int number) { return *nodes_[static_cast<std::size_t>(number - 1)]; }
  void start_all() {
    for (auto& n : nodes_) n->start(api_);
    for (auto& n : nodes_) {
      const int peers = static_cast<int>(nodes_.size()) - 1;
      ASSERT_TRUE(eventually([&] { return fdb(*n) == peers && peer_routes(*n) == peers; }))
          << n->host().sh("ip addr; ip route; ip -6 route; bridge fdb show dev " + n->device());
    }
  }
  static int fdb(const Node& n) { return n.count(fmt::format("bridge fdb show dev {} | grep ' dst '", n.device())); }
  static int neighs(const Node& n) {
    return n.count(fmt::format("ip neigh show dev {} nud permanent | grep lladdr", n.device()));
  }
  static int peer_routes(const Node& n) {
    return n.count(fmt::format("{{ ip route; ip -6 route; }} | grep 'via .* dev {}'", n.device()));
  }
  static int ifindex(const Node& n) {
    return std::stoi("0" + n.host().sh("cat /sys/class/net/" + n.device() +
                                       "/ifindex 2>/dev/null; ip -o link show dev " + n.device() + " | cut -d: -f1"));
  }

  std::optional<Host> fabric_;
  kube::FakeClient api_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_P(OverlayTest, PodsReachEachOtherWithExactlyTheMtu) {
  start_all();
  const int mtu = 1500 - (GetParam() ? 70 : 50);
  EXPECT_THAT(node(1).host().sh("ip link show dev " + node(1).device()), HasSubstr(fmt::format("mtu {}", mtu)));
  auto pod1 = Host::make();
  auto pod2 = Host::make();
  ASSERT_TRUE(pod1 && pod2);
  ASSERT_TRUE(node(1).add_pod(*pod1, mtu) && node(2).add_pod(*pod2, mtu));
  if (GetParam()) {
    // On-link default routes need somebody to answer; the plugin writes permanent entries, as here.
    for (auto [n, p] : {std::pair{&node(1), &*pod1}, std::pair{&node(2), &*pod2}}) {
      auto mac = n->host().sh(
          "cat /proc/net/dev >/dev/null; ip -o link show dev pod | sed 's/.*ether //; s/ .*//' | tr -d '\n'");
      ASSERT_TRUE(p->ok(fmt::format(
          "ip -6 route replace default via fe80::1 dev eth0; ip -6 neigh replace fe80::1 lladdr {} dev eth0", mac)));
    }
  }
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
