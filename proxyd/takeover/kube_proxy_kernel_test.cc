// SPDX-License-Identifier: Apache-2.0
// With the machine's own iptables, in a network namespace of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/testing/netns_fixture.h"
#include "proxyd/takeover/kube_proxy.h"

namespace hawser::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class TakeoverTest : public testing::NetNsTest {};

constexpr const char* kRules = R"(*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -j MINE
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:KUBE-SEP-ABC - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-ABC
-A KUBE-SVC-ABC -j KUBE-SEP-ABC
-A KUBE-SEP-ABC -s 192.0.2.10/32 -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
)";

TEST_F(TakeoverTest, RemovesRealChainsAndTables) {
  auto before = run_program({"iptables-save"}, "");
  if (!before || !*before) GTEST_SKIP() << "iptables is not installed";
  if (auto made = run_program({"iptables-restore", "--noflush"}, kRules); !made) GTEST_SKIP() << made.error().text;
  auto nft = nft::KernelNft::open();
  ASSERT_TRUE(nft) << nft.error().text;
  nft::Transaction t(nft::Family::kIpv4, "kube-proxy");
  t.add_table();
  ASSERT_TRUE((*nft)->apply(t));
  auto rtnl = netlink::KernelRtnl::open();
  ASSERT_TRUE(rtnl);
  auto ipvs = netlink::KernelIpvs::open();
  ASSERT_TRUE(ipvs);
  auto did = remove_kube_proxy({**nft, *rtnl, *ipvs});
  ASSERT_TRUE(did) << did.error().text;
  EXPECT_EQ(did->size(), 2u);
  auto after = run_program({"iptables-save"}, "");
  ASSERT_TRUE(after && *after);
  EXPECT_THAT(**after, HasSubstr("-A INPUT -j MINE"));
  EXPECT_THAT(**after, HasSubstr("-A INPUT -j KUBE-FIREWALL")) << "the kubelet's";
  for (const char* gone : {"KUBE-SERVICES", "KUBE-SVC-ABC", "KUBE-SEP-ABC", "KUBE-MARK-MASQ", "KUBE-FORWARD"})
    EXPECT_THAT(**after, Not(HasSubstr(gone)));
  EXPECT_FALSE((*nft)->read_table(nft::Family::kIpv4, "kube-proxy")->exists);
  auto again = remove_kube_proxy({**nft, *rtnl, *ipvs});
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_THAT(*again, IsEmpty());
}

}  // namespace
}  // namespace hawser::proxy
