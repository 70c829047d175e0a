// SPDX-License-Identifier: Apache-2.0
#include "lib/base/netns.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/base/sysctl.h"
#include "lib/testing/fd_leak_check.h"
#include "lib/testing/netns_fixture.h"
#include "lib/testing/temp_dir.h"

namespace hawser {
namespace {

class NetNsFixtureTest : public testing::NetNsTest {};

TEST_F(NetNsFixtureTest, GuardGoesInAndBack) {
  testing::FdLeakCheck leaks;
  auto home = NetNs::current()->inode();
  ASSERT_TRUE(home);
  EXPECT_EQ(home, netns().inode());
  EXPECT_NE(home, NetNs::of_pid(1)->inode());
  auto other = NetNs::create();
  ASSERT_TRUE(other) << other.error().text;
  EXPECT_NE(other->inode(), home);
  {
    auto inside = NetNsGuard::enter(*other);
    ASSERT_TRUE(inside) << inside.error().text;
    EXPECT_EQ(NetNs::current()->inode(), other->inode());
    // Each namespace has its own values; the change below must not be seen at home.
    ASSERT_TRUE(sysctl::write("net.ipv4.ip_forward", "1"));
    EXPECT_EQ(sysctl::ensure("net.ipv4.ip_forward", "1"), false);
  }
  EXPECT_EQ(NetNs::current()->inode(), home);
  EXPECT_EQ(sysctl::read("net.ipv4.ip_forward"), "0");
  EXPECT_EQ(sysctl::ensure("net/ipv4/ip_forward", "1"), true);
}

TEST_F(NetNsFixtureTest, LoopbackIsUp) {
  EXPECT_EQ(sysctl::read("net.ipv4.conf.lo.forwarding"), "0");
}

TEST(NetNsErrorTest, RefusesWhatIsNoNamespace) {
  testing::TempDir dir;
  EXPECT_FALSE(NetNs::open(dir.file("absent")));
  UniqueFd(::open(dir.file("plain").c_str(), O_CREAT | O_CLOEXEC | O_WRONLY, 0600));
  auto plain = NetNs::open(dir.file("plain"));
  ASSERT_FALSE(plain);
  EXPECT_NE(plain.error().text.find("not a namespace"), std::string::npos);
  EXPECT_FALSE(NetNs::of_pid(-1));
}

}  // namespace
}  // namespace hawser
