// SPDX-License-Identifier: Apache-2.0
// The wireguard back end on a kernel that has no WireGuard, and with a model in place of one; tests/vm has a kernel
// that has it.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni-plugin/overlayd/kube_source.h"
#include "cni-plugin/overlayd/wireguard.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/netlink/wireguard_fake.h"
#include "lib/nft/fake_nft.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/host.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using hawser::testing::Host;
using ::testing::HasSubstr;

TEST(OverlayWireguard, AKernelWithoutItIsToldByName) {
  auto host = Host::make();
  if (!host) GTEST_SKIP() << "no network namespace: " << host.error().text;
  hawser::testing::TempDir dir;
  host->run([&] {
    auto rtnl = netlink::KernelRtnl::open();
    auto wireguard = netlink::KernelWireguard::open();
    ASSERT_TRUE(rtnl && wireguard);
    if (rtnl->add_link({.name = "wg0", .kind = "wireguard"})) GTEST_SKIP() << "this kernel has WireGuard";
    Settings settings{.backend = "wireguard"};
    settings.wireguard.key_file = dir.file("wgkey");
    std::vector<std::string> skipped;
    const Underlay underlay{.index = 1, .mtu = 1500, .address = *IpAddr::parse("192.0.2.11")};
    const Lease own{.node = "node-1", .pod_cidrs = {*Cidr::parse("10.244.1.0/24")}, .backend = "wireguard"};
    const std::vector<OverlaySpec> specs{make_spec(own, {}, underlay, settings, skipped)};
    auto r = WireguardDevice().sync(*rtnl, *wireguard, specs, settings);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("device flannel-wg: this kernel has no WireGuard (CONFIG_WIREGUARD)"));
    EXPECT_TRUE(is_not_found(wireguard->get("flannel-wg").error()));
  });
}

netlink::WgKey key(int n) {
  netlink::WgKey k;
  k.bytes.fill(static_cast<std::uint8_t>(n));
  return k;
}
kube::Object node_object(int n, const std::string& backend_data) {
  kube::Object annotations;
  if (!backend_data.empty()) {
    annotations = {{"flannel.alpha.coreos.com/backend-type", "wireguard"},
                   {"flannel.alpha.coreos.com/public-ip", fmt::format("192.0.2.1{}", n)},
                   {"flannel.alpha.coreos.com/backend-data", backend_data}};
  }
  return {{"metadata", {{"name", fmt::format("node-{}", n)}, {"annotations", annotations}}},
          {"spec", {{"podCIDRs", kube::Array{kube::Value(fmt::format("10.244.{}.0/24", n))}}}}};
}

// overlayd's daemon with models of links and WireGuard, in a namespace of its own for what it does beside them.
class WireguardNode {
 public:
  WireguardNode(const Host& host, kube::Client& api) : host_(host), api_(api) {
    const int eth0 = rtnl_.add_hardware("eth0", 1500);
    EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {.link = eth0, .cidr = *Cidr::parse("192.0.2.11/24")}));
  }
  // The daemon starts, runs until `done`, and ends.
  void run_until(const std::function<bool(const Daemon&)>& done) {
    UniqueFd stop(eventfd(0, EFD_CLOEXEC));
    std::mutex mu;
    const Daemon* running = nullptr;
    std::thread t([&] {
      host_.run([&] {
        auto monitor = netlink::Monitor::open();
        ASSERT_TRUE(monitor);
        metrics::Registry registry;
        KubeSource source({.node = "node-1"}, api_);
        Options o{.node = "node-1", .iface = {.names = {"eth0"}}, .cluster_cidrs = {*Cidr::parse("10.244.0.0/16")}};
        o.settings.backend = "wireguard";
        o.settings.wireguard.key_file = dir_.file("wgkey");
        o.paths.run_dir = dir_.path();
        Daemon d(o, source, {rtnl_, nft_, *monitor, &wireguard_}, registry);
        {
          std::lock_guard l(mu);
          running = &d;
        }
        EXPECT_TRUE(d.run(stop.get()));
        std::lock_guard l(mu);
        running = nullptr;
      });
    });
    EXPECT_TRUE(eventually([&] {
      std::lock_guard l(mu);
      return running && done(*running);
    }));
    const std::uint64_t one = 1;
    EXPECT_EQ(write(stop.get(), &one, sizeof one), 8);
    t.join();
  }
  netlink::WgDevice device() { return wireguard_.get("flannel-wg").value_or(netlink::WgDevice{}); }
  [[nodiscard]] std::string key_file() const { return dir_.file("wgkey"); }
  [[nodiscard]] int writes() const { return wireguard_.writes() + rtnl_.writes(); }

 private:
  const Host& host_;
  kube::Client& api_;
  hawser::testing::TempDir dir_;
  netlink::FakeRtnl rtnl_;
  netlink::FakeWireguard wireguard_{rtnl_};
  nft::FakeNft nft_;
};

TEST(OverlayWireguard, NodesTellEachOtherTheirKeys) {
  auto host = Host::make();
  if (!host) GTEST_SKIP() << "no network namespace: " << host.error().text;
  kube::FakeClient api;
  const std::string data = fmt::format(R"({{"PublicKey":"{}"}})", key(2).text());
  ASSERT_TRUE(api.create(kube::kNodes, "", node_object(1, "")));
  ASSERT_TRUE(api.create(kube::kNodes, "", node_object(2, data)));
  WireguardNode node(*host, api);
  auto published = [&] {
    auto n = api.get(kube::kNodes, "", "node-1");
    return n ? std::string(kube::str(**n, {"metadata", "annotations", "flannel.alpha.coreos.com/backend-data"}))
             : std::string();
  };
  node.run_until([&](const Daemon&) { return !published().empty(); });
  const auto own = netlink::FakeWireguard::public_of(*load_wireguard_key(node.key_file()));
  EXPECT_EQ(published(), fmt::format(R"({{"PublicKey":"{}"}})", own.text()));
  ASSERT_EQ(node.device().peers.size(), 1u);
  EXPECT_EQ(node.device().peers[0].public_key, key(2));
  EXPECT_EQ(node.device().peers[0].endpoint.text(), "192.0.2.12:51820");

  const int writes = node.writes();
  node.run_until([](const Daemon& d) { return d.status().ready; });
  EXPECT_EQ(node.writes(), writes) << "a restart changes nothing";

  ASSERT_TRUE(api.remove(kube::kNodes, "", "node-2"));
  node.run_until([](const Daemon& d) { return d.status().ready; });
  EXPECT_TRUE(node.device().peers.empty());

  ASSERT_EQ(unlink(node.key_file().c_str()), 0);
  const auto before = published();
  node.run_until([&](const Daemon&) { return published() != before; });
  EXPECT_NE(netlink::FakeWireguard::public_of(*load_wireguard_key(node.key_file())), own);
}

}  // namespace
}  // namespace hawser::overlay
