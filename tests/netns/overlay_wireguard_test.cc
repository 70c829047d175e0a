// SPDX-License-Identifier: Apache-2.0
// The wireguard back end on a kernel that has no WireGuard; tests/vm has the one that does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/overlayd/wireguard.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/host.h"

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

}  // namespace
}  // namespace hawser::overlay
