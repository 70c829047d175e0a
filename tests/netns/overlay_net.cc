// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/overlay_net.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/kube_source.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"

namespace hawser::overlay {

Node::Node(Host host, int number, bool v6_underlay)
    : host_(std::move(host)), number_(number), v6_underlay_(v6_underlay) {
  options = {.node = name(),
             .iface = {.names = {"eth0"}},
             .cluster_cidrs = {*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00::/16")}};
  options.paths = {.run_dir = files_.path(), .cni_conf_dir = files_.path()};
}

std::string Node::cidr() const {
  return v6_underlay_ ? fmt::format("fd00:{}::/64", number_) : fmt::format("10.244.{}.0/24", number_);
}
std::string Node::underlay() const {
  return v6_underlay_ ? fmt::format("2001:db8::{}", 10 + number_) : fmt::format("192.0.2.{}", 10 + number_);
}
std::string Node::pod_ip(int n) const {
  return v6_underlay_ ? fmt::format("fd00:{}::{}", number_, n) : fmt::format("10.244.{}.{}", number_, n);
}

void Node::serve(SubnetSource& source) {
  auto rtnl = netlink::KernelRtnl::open();
  auto nft = nft::KernelNft::open();
  auto monitor = netlink::Monitor::open();
  ASSERT_TRUE(rtnl && nft && monitor);
  Daemon d(options, source, {*rtnl, **nft, *monitor}, *registry_);
  auto nft_monitor = nft::NftMonitor::start(kMasqueradeTable, (*nft)->port_id(), [&] { d.wake(); });
  ASSERT_TRUE(nft_monitor) << nft_monitor.error().text;
  Prober prober(
      probe.value_or(ProberOptions{}), [&] { return d.probe_targets(); },
      [&](const auto& faults, std::size_t) {
        d.on_faults(faults);
        if (auto* kube = dynamic_cast<KubeSource*>(&source)) kube->set_condition(path_condition(faults));
      },
      *registry_);
  if (probe) {
    auto r = prober.start();
    ASSERT_TRUE(r) << r.error().text;
  }
  {
    std::lock_guard l(mu_);
    prober_ = &prober, daemon_ = &d;
  }
  auto r = d.run(stop_.get());
  EXPECT_TRUE(r) << r.error().text;
  {
    std::lock_guard l(mu_);
    prober_ = nullptr, daemon_ = nullptr;
  }
  prober.stop();
  nft_monitor->reset();
}

void Node::start(kube::Client& client) {
  start([this, &client] { return std::make_unique<KubeSource>(KubeSourceOptions{.node = name()}, client); });
}

void Node::start(std::function<std::unique_ptr<SubnetSource>()> make_source) {
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  registry_ = std::make_unique<metrics::Registry>();
  thread_ = std::thread([this, make_source = std::move(make_source)] {
    host_.run([&] {
      auto source = make_source();
      serve(*source);
    });
  });
}

void Node::stop() {
  if (!thread_.joinable()) return;
  std::uint64_t one = 1;
  EXPECT_EQ(write(stop_.get(), &one, sizeof one), 8);
  thread_.join();
}

bool Node::add_pod(const Host& pod, int mtu, int n, const std::string& link) const {
  const bool v6 = v6_underlay_;
  const auto ip = pod_ip(n);
  if (!host_.wire(link, pod, "eth0")) return false;
  if (!v6) {
    return host_.ok(fmt::format("ip route add {0} dev {1}; ip link set {1} mtu {2}; sysctl -qw "
                                "net.ipv4.conf.{1}.proxy_arp=1",
                                ip, link, mtu)) &&
           pod.ok(fmt::format("ip link set eth0 mtu {}; ip addr add {}/32 dev eth0; ip route add default dev eth0", mtu,
                              ip));
  }
  // On-link default routes need somebody to answer; the plugin writes permanent entries, as here.
  auto mac = host_.sh(fmt::format("ip -o link show dev {} | sed 's/.*ether //; s/ .*//' | tr -d '\n'", link));
  return host_.ok(fmt::format("ip -6 route add {0} dev {1}; ip link set {1} mtu {2}", ip, link, mtu)) &&
         pod.ok(fmt::format("ip link set eth0 mtu {}; ip addr add {}/128 dev eth0 nodad; ip -6 neigh replace fe80::1 "
                            "lladdr {} dev eth0; ip -6 route add default via fe80::1 dev eth0",
                            mtu, ip, mac));
}

int Node::count(const std::string& command) const {
  return std::stoi(host_.sh("{ " + command + "; } 2>/dev/null | wc -l"));
}

std::vector<std::string> Node::path_lines() const {
  std::lock_guard l(mu_);
  return prober_ ? prober_->lines() : std::vector<std::string>();
}

std::vector<std::string> Node::device_lines() const {
  std::lock_guard l(mu_);
  return daemon_ ? daemon_->device_lines() : std::vector<std::string>();
}

Status Node::status() const {
  std::lock_guard l(mu_);
  return daemon_ ? daemon_->status() : Status{};
}

void OverlayNet::build(bool v6_underlay) {
  v6_ = v6_underlay;
  auto fabric = Host::make();
  if (!fabric) GTEST_SKIP() << "needs the right to make network namespaces: " << fabric.error().text;
  fabric_.emplace(std::move(*fabric));
  ASSERT_TRUE(fabric_->ok("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up"));
  for (int i = 1; i <= 2; i++) add_node(i);
}

void OverlayNet::TearDown() {
  for (auto& n : nodes_) n->stop();
}

Node& OverlayNet::add_node(int number) {
  auto h = Host::make();
  EXPECT_TRUE(h);
  auto& n = *nodes_.emplace_back(std::make_unique<Node>(std::move(*h), number, v6_));
  auto port = fmt::format("port{}", number);
  EXPECT_TRUE(n.host().wire("eth0", *fabric_, port) && fabric_->ok(fmt::format("ip link set {} master br0", port)));
  EXPECT_TRUE(n.host().ok(v6_ ? fmt::format("ip addr add {}/64 dev eth0 nodad", n.underlay())
                              : fmt::format("ip addr add {}/24 dev eth0", n.underlay())));
  kube::Object o{
      {"metadata", {{"name", n.name()}}},
      {"spec", {{"podCIDR", n.cidr()}, {"podCIDRs", kube::Array{kube::Value(n.cidr())}}}},
      {"status", {{"addresses", kube::Array{kube::Value{{"type", "InternalIP"}, {"address", n.underlay()}}}}}}};
  auto made = api_.create(kube::kNodes, "", o);
  EXPECT_TRUE(made) << made.error().text;
  return n;
}

void OverlayNet::start_all() {
  for (auto& n : nodes_) n->start(api_);
  wait_for_mesh();
}

void OverlayNet::wait_for_mesh() {
  for (auto& n : nodes_) {
    const int peers = static_cast<int>(nodes_.size()) - 1;
    ASSERT_TRUE(eventually([&] { return fdb(*n) == peers && peer_routes(*n) == peers; }))
        << n->host().sh("ip addr; ip route; ip -6 route; bridge fdb show dev " + n->device());
  }
}

int OverlayNet::fdb(const Node& n) {
  return n.count(fmt::format("bridge fdb show dev {} | grep ' dst '", n.device()));
}
int OverlayNet::neighs(const Node& n) {
  return n.count(fmt::format("ip neigh show dev {} nud permanent | grep lladdr", n.device()));
}
int OverlayNet::peer_routes(const Node& n) {
  return n.count(fmt::format("{{ ip route; ip -6 route; }} | grep 'via .* dev {}'", n.device()));
}
int OverlayNet::ifindex(const Node& n) {
  return std::stoi("0" + n.host().sh("ip -o link show dev " + n.device() + " | cut -d: -f1"));
}

void OverlayNet::make_flannels(int number) {
  const int peer = 3 - number;
  ASSERT_TRUE(node(number).host().ok(fmt::format(
      "ip link add flannel.1 address {0} type vxlan id 1 dev eth0 local 192.0.2.{1} dstport 8472 nolearning; ip link "
      "set "
      "flannel.1 up mtu 1450; ip addr add 10.244.{2}.0/32 dev flannel.1; ip neigh add 10.244.{3}.0 lladdr {4} dev "
      "flannel.1 nud permanent; bridge fdb add {4} dev flannel.1 dst 192.0.2.{5}; ip route add 10.244.{3}.0/24 via "
      "10.244.{3}.0 dev flannel.1 onlink; sysctl -qw net.ipv4.ip_forward=1",
      kFlannelMacs[number - 1], 10 + number, number, peer, kFlannelMacs[peer - 1], 10 + peer)));
  const std::string p{kDefaultAnnotationPrefix};
  const auto data = fmt::format(R"({{"VNI":1,"VtepMAC":"{}"}})", kFlannelMacs[number - 1]);
  ASSERT_TRUE(api_.patch(kube::kNodes, "", node(number).name(), kube::PatchType::kMerge,
                         kube::Object{{"metadata",
                                       {{"annotations",
                                         {{p + "/backend-type", "vxlan"},
                                          {p + "/public-ip", node(number).underlay()},
                                          {p + "/kube-subnet-manager", "true"},
                                          {p + "/backend-data", data}}}}}}));
}

int OverlayNet::lost_pings(const Host& pod, const std::string& to, int count, const std::function<void()>& fn) {
  EXPECT_TRUE(eventually([&] {
    int status = 0;
    pod.sh("ping -c1 -W1 " + to, &status);
    return status == 0;
  }));
  std::string out;
  std::thread ping([&] { out = pod.sh(fmt::format("ping -i 0.01 -c {} -W 2 {}", count, to)); });
  fn();
  ping.join();
  int sent = 0, back = 0;
  EXPECT_EQ(sscanf(out.substr(out.find("---\n") + 4).c_str(), "%d packets transmitted, %d", &sent, &back), 2) << out;
  EXPECT_EQ(sent, count);
  return sent - back;
}

}  // namespace hawser::overlay
