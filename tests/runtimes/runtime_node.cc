// SPDX-License-Identifier: Apache-2.0
#include "tests/runtimes/runtime_node.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cni-plugin/ipam/store.h"

namespace hawser::testing {
namespace {

namespace fs = std::filesystem;
using agent::testing::eventually;
using std::chrono::seconds;

RuntimeNode* g_node = nullptr;
std::string g_cgroup;

void must(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "runtimes_test: %s\n", what.c_str());
  std::_Exit(2);
}

int run_tests() {
  RuntimeNode node;
  g_node = &node;
  const int rc = RUN_ALL_TESTS();
  g_node = nullptr;
  return rc;
}

}  // namespace

std::string shell(const std::string& command, int* status) {
  std::string out;
  FILE* p = popen(("{ " + command + "\n} 2>&1").c_str(), "re");
  must(p != nullptr, "popen");
  std::array<char, 4096> buf{};
  for (size_t n; (n = fread(buf.data(), 1, buf.size(), p)) > 0;) out.append(buf.data(), n);
  const int rc = pclose(p);
  if (status) *status = WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
  return out;
}

RuntimeNode::RuntimeNode() : cgroup_(g_cgroup) {
  // CNI's library keeps results below /var/lib, podman keeps a cache there and its locks in /dev/shm, whatever it is
  // told.
  for (const char* place : {"/var/lib", "/dev/shm"})
    must(mount("tmpfs", place, "tmpfs", 0, "mode=0755") == 0, std::string("mount ") + place);
  fs::create_directories(plugins());
  for (const char* name : {"hawser", "loopback"}) fs::create_symlink(HAWSER_CNI, plugins() + "/" + name);
  int status = 0;
  const auto said = shell(OverlaydProcess::underlay_command(), &status);
  must(status == 0, said);
  overlayd_.emplace(HAWSER_OVERLAYD, folder_.path(), 60);
  overlayd_->start();
  must(overlayd_->wait_until_up(), "overlayd did not come up: " + overlayd_->log());
}

RuntimeNode* RuntimeNode::get() {
  return g_node;
}

std::string RuntimeNode::state() const {
  return shell(
      "ip -o link show type veth; ip -o link show type ifb; ip route; ip -6 route show proto 72; tc qdisc; ls " +
      folder() +
      "/hostports 2>/dev/null | grep 'json$'; nft list ruleset; find /run/netns /var/lib/cni/results -type f "
      "2>/dev/null");
}

std::set<std::string> RuntimeNode::held() const {
  std::set<std::string> out;
  auto store = cni::ipam::Store::open(overlayd_->store());
  EXPECT_TRUE(store);
  const auto held = store->list();
  EXPECT_TRUE(held);
  for (const auto& h : *held) EXPECT_TRUE(out.insert(h.address.text()).second) << h.address.text() << " is held twice";
  return out;
}

void RuntimeTest::SetUp() {
  node_ = RuntimeNode::get();
  if (!node_) GTEST_SKIP() << agent::testing::why_no_containerd();
  ASSERT_TRUE(node_->held().empty());
}

void RuntimeTest::TearDown() {
  if (!node_ || before_.empty()) return;
  // The kernel takes links away some time after their namespace; everything else is gone when DEL has answered.
  EXPECT_TRUE(eventually([&] { return node_->state() == before_; }, seconds(30)))
      << "before: " << before_ << "\nafter: " << node_->state();
  EXPECT_THAT(node_->held(), ::testing::IsEmpty());
}

}  // namespace hawser::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!hawser::agent::testing::why_no_containerd().empty()) return RUN_ALL_TESTS();
  hawser::testing::g_cgroup = fmt::format("/hawser-test-{}", getpid());
  return hawser::agent::testing::in_new_namespaces(hawser::testing::g_cgroup, hawser::testing::run_tests);
}
