// SPDX-License-Identifier: Apache-2.0
// A node whose pods Debian's bridge and host-local have attached, as flannel's plugin runs them, goes over to ours
// while they run (FEATURES C50, C79).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/netns/cni_fixture.h"

namespace hawser {
namespace {

using hawser::testing::Host;
using hawser::testing::Ran;
using ::testing::HasSubstr;

constexpr const char* kPlugins = "/usr/lib/cni";

class ImportTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (!IsSkipped() && access("/usr/lib/cni/host-local", X_OK) != 0)
      GTEST_SKIP() << "needs " << kPlugins << " (containernetworking-plugins)";
  }
  // What flannel's plugin would have Debian's do for the network cbr0.
  Ran run_bridge(const std::string& verb, const std::string& container, const Host& p) {
    const auto in = dir_.file("bridge.in");
    EXPECT_TRUE(write_file(
        in, fmt::format(R"({{"cniVersion":"0.3.1","name":"cbr0","type":"bridge","isDefaultGateway":true,"mtu":1450,)"
                        R"("ipam":{{"type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.244.1.0/24"}}]]}}}})",
                        dir_.path())));
    Ran r;
    r.out = node_->sh(fmt::format("CNI_COMMAND={} CNI_CONTAINERID={} CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH={} "
                                  "{}/bridge <{}",
                                  verb, container, p.path(), kPlugins, kPlugins, in),
                      &r.status);
    EXPECT_EQ(r.status, 0) << r.out;
    return r;
  }
  [[nodiscard]] std::string ours(const std::string& extra = "") const {
    return conf(fmt::format(R"(,"mode":"bridge","isDefaultGateway":true,"ipam":{{"importHostLocal":"{}/cbr0"}}{})",
                            dir_.path(), extra));
  }
  [[nodiscard]] std::string asking(const std::string& address) const {
    return ours(fmt::format(R"(,"runtimeConfig":{{"ips":["{}"]}})", address));
  }
  [[nodiscard]] std::string reservations() const { return node_->sh("ls " + dir_.file("cbr0") + " | grep ^10"); }
};

TEST_F(ImportTest, PodsKeepTheirAddressesAndDelFreesThem) {
  auto a = pod(), b = pod(), c = pod();
  EXPECT_EQ(address(run_bridge("ADD", "c1", a)), "10.244.1.2/24");
  EXPECT_EQ(address(run_bridge("ADD", "c2", b)), "10.244.1.3/24");
  auto add = run("ADD", "c3", c.path(), ours());
  ASSERT_EQ(add.status, 0) << add.out;
  EXPECT_EQ(address(add), "10.244.1.4/24");
  EXPECT_TRUE(c.ok("ping -c1 -W5 10.244.1.2")) << "one bridge for both";
  auto again = run("ADD", "c1", a.path(), ours());
  EXPECT_THAT(again.out, HasSubstr("\"code\":101")) << "it is attached";
  EXPECT_EQ(reservations(), "10.244.1.2\n10.244.1.3\n");
  ASSERT_EQ(run("DEL", "c1", a.path(), ours()).status, 0);
  EXPECT_EQ(reservations(), "10.244.1.3\n");
  auto asks = run("ADD", "c4", pod().path(), asking("10.244.1.2"));
  EXPECT_EQ(asks.status, 0) << asks.out;
  EXPECT_THAT(run("ADD", "c5", pod().path(), asking("10.244.1.3")).out, HasSubstr("held by container c2"));
  auto gc = run("GC", "x", "''", ours(R"(,"cni.dev/valid-attachments":[])"));
  ASSERT_EQ(gc.status, 0) << gc.out;
  EXPECT_EQ(reservations(), "");
}

TEST_F(ImportTest, DelBeforeTheNodeIsReadyFreesTheReservation) {
  auto a = pod();
  run_bridge("ADD", "c1", a);
  ASSERT_TRUE(node_->ok("rm " + dir_.file("node.json")));
  ASSERT_EQ(run("DEL", "c1", a.path(), ours()).status, 0);
  EXPECT_EQ(reservations(), "");
}

}  // namespace
}  // namespace hawser
