// SPDX-License-Identifier: Apache-2.0
// The names of namespaces that a killed containerd forgets (FEATURES X07), in a mount namespace of the test's own.
#include <functional>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cni-plugin/collect/leak_collector.h"
#include "cni-plugin/collect/netns_names.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "tests/netns/cni_fixture.h"

namespace hawser {
namespace {

using hawser::testing::Host;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kLive = "cni-00000000-1111-2222-3333-444455556666";
constexpr const char* kForgotten = "cni-0123abcd-1111-2222-3333-444455556666";
constexpr const char* kNew = "cni-89abcdef-1111-2222-3333-444455556666";

TEST(NetnsNames, OnlyTheRuntimesOwnForm) {
  EXPECT_TRUE(cni::is_runtime_netns_name(kLive));
  for (const char* other :
       {"", "cni-", "blue", "cni-00000000-1111-2222-3333-44445555666", "cni-00000000-1111-2222-3333-4444555566660",
        "cni-0000000011112222333344445555666600aa", "cni-0000000G-1111-2222-3333-444455556666",
        "cni-0000000A-1111-2222-3333-444455556666", "net-00000000-1111-2222-3333-444455556666"})
    EXPECT_FALSE(cni::is_runtime_netns_name(other)) << other;
}

class NamesTest : public hawser::testing::CniFixture {
 protected:
  void SetUp() override {
    CniFixture::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(mkdir(folder_.c_str(), 0755), 0);
  }
  // On a thread of its own, whose mounts nobody else sees and which go with it.
  static void in_mount_namespace(const std::function<void()>& fn) {
    std::thread([&] {
      ASSERT_EQ(unshare(CLONE_FS | CLONE_NEWNS), 0);
      ASSERT_EQ(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
      fn();
    }).join();
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // Empty and an hour old.
  void make_name(const std::string& name, const std::string& content = "") const {
    ASSERT_TRUE(write_file(path(name), content));
    timespec times[2]{};
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= 3600;
    times[1] = times[0];
    ASSERT_EQ(utimensat(AT_FDCWD, path(name).c_str(), times, 0), 0);
  }
  std::vector<std::string> collect() {
    std::vector<std::string> out;
    node_->run([&] {
      auto rtnl = netlink::KernelRtnl::open();
      auto nft = nft::KernelNft::open();
      auto conntrack = netlink::KernelConntrack::open();
      ASSERT_TRUE(rtnl && nft && conntrack);
      cni::LeakCollector c({.run_dir = dir_.path()}, *rtnl, {**nft, *conntrack}, registry_);
      auto sweep = c.run_once();
      EXPECT_TRUE(sweep.error) << sweep.error.error().text;
      for (const auto& leak : sweep.removed) out.push_back(leak.what);
    });
    return out;
  }
  const std::string folder_ = dir_.file("netns");
  metrics::Registry registry_;
};

TEST_F(NamesTest, ForgottenOnesGoAndLivingOnesStay) {
  in_mount_namespace([&] {
    auto p = pod();
    make_name(kLive);
    ASSERT_EQ(mount(p.path().c_str(), path(kLive).c_str(), nullptr, MS_BIND, nullptr), 0);
    make_name(kForgotten);
    make_name("blue");
    make_name("cni-00000000-1111-2222-3333-44445555ffff", "not empty");
    ASSERT_TRUE(write_file(path(kNew), ""));
    EXPECT_THAT(collect(), IsEmpty()) << "no runtime has said where its names are";
    auto add = run("ADD", "c1", path(kLive), conf());
    ASSERT_EQ(add.status, 0) << add.out;
    EXPECT_THAT(collect(), ElementsAre(HasSubstr(kForgotten)));
    EXPECT_NE(access(path(kForgotten).c_str(), F_OK), 0);
    for (const char* stays : {kLive, kNew, "blue"}) EXPECT_EQ(access(path(stays).c_str(), F_OK), 0) << stays;
    EXPECT_THAT(collect(), IsEmpty());
    EXPECT_THAT(registry_.text(), HasSubstr(R"(hawser_cni_leaks_collected_total{kind="netns_name"} 1)"));
    EXPECT_TRUE(node_->ok("nsenter --net=" + path(kLive) + " ip link show eth0"));
    ASSERT_EQ(umount2(path(kLive).c_str(), MNT_DETACH), 0);
  });
}

// There a living name does not look mounted.
TEST_F(NamesTest, NothingIsJudgedFromAnotherMountNamespace) {
  make_name(kLive);
  in_mount_namespace([&] {
    auto p = pod();
    ASSERT_EQ(mount(p.path().c_str(), path(kLive).c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(run("ADD", "c1", path(kLive), conf()).status, 0);
    in_mount_namespace([&] {
      ASSERT_EQ(umount2(path(kLive).c_str(), MNT_DETACH), 0);
      EXPECT_THAT(collect(), IsEmpty());
    });
    EXPECT_TRUE(node_->ok("nsenter --net=" + path(kLive) + " ip link show eth0"));
    make_name(kForgotten);
    EXPECT_THAT(collect(), ElementsAre(HasSubstr(kForgotten)));
    ASSERT_EQ(umount2(path(kLive).c_str(), MNT_DETACH), 0);
  });
}

}  // namespace
}  // namespace hawser
