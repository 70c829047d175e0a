// SPDX-License-Identifier: Apache-2.0
// A real containerd, driven over CRI, starts and stops 100 pods at once on our network.
#include <mutex>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtimes/runtime_node.h"

namespace hawser::testing {
namespace {

using agent::CriClient;
using agent::SandboxConfig;
using ::testing::HasSubstr;

constexpr int kPods = 100;

class ContainerdTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    if (!node_) return;
    containerd_ = std::make_unique<agent::testing::Containerd>(
        folder_.path(), HAWSER_PAUSE_IMAGE, HAWSER_TEST_IMAGE,
        agent::testing::CniFolders{.bin_dir = node_->plugins(), .conf_dir = node_->networks()});
    cri_ = std::make_unique<CriClient>(containerd_->endpoint());
    before_ = node_->state();
  }
  void TearDown() override {
    if (!cri_) return;
    for (const auto& s : cri_->list("")->sandboxes) (void)cri_->remove_sandbox(s.id);
    RuntimeTest::TearDown();
  }
  // Runs fn(0) to fn(kPods - 1) at the same time; the failures' texts.
  static std::vector<std::string> all_at_once(const std::function<Result<>(int)>& fn) {
    std::vector<std::string> failures;
    std::mutex mu;
    std::vector<std::jthread> threads;
    for (int i = 0; i < kPods; i++) {
      threads.emplace_back([&, i] {
        auto r = fn(i);
        std::lock_guard l(mu);
        if (!r) failures.push_back(r.error().text);
      });
    }
    threads.clear();
    return failures;
  }
  // Some of each kind: with a host port, with a limit of bandwidth, with neither.
  SandboxConfig config(int i) const {
    SandboxConfig c;
    c.name = fmt::format("pod-{}", i);
    c.ns = "default";
    c.uid = fmt::format("uid-{}", i);
    c.hostname = c.name;
    c.log_directory = containerd_->folder() + "/logs";
    c.cgroup_parent = node_->cgroup();
    if (i % 2 == 0) c.port_mappings.push_back({.container_port = 8080, .host_port = 20000 + i});
    if (i % 10 == 0) c.annotations["kubernetes.io/egress-bandwidth"] = "10M";
    return c;
  }

  TempDir folder_;
  std::unique_ptr<agent::testing::Containerd> containerd_;
  std::unique_ptr<CriClient> cri_;
};

TEST_F(ContainerdTest, HundredPodsAtOnceEachWithItsOwnAddressLeaveNothing) {
  std::vector<std::string> ids(kPods);
  EXPECT_THAT(all_at_once([&](int i) -> Result<> {
                auto id = cri_->run_sandbox(config(i));
                if (!id) return propagate(id, "pod {}", i);
                ids[static_cast<std::size_t>(i)] = *id;
                return {};
              }),
              ::testing::IsEmpty());
  std::set<std::string> given;
  for (const auto& id : ids) {
    if (id.empty()) continue;
    auto s = cri_->sandbox_status(id);
    ASSERT_TRUE(s) << s.error().text;
    EXPECT_EQ(s->ips.size(), 2u) << s->name << ": one of each family";
    for (const auto& ip : s->ips) EXPECT_TRUE(given.insert(ip).second) << s->name << ": " << ip << " is another pod's";
  }
  EXPECT_EQ(given, node_->held());
  const auto full = node_->state();
  EXPECT_THAT(full, HasSubstr("20098")) << "rules of host ports";
  EXPECT_EQ(shell("ip -o link show type ifb | grep -c ': hb'"), "10\n");

  EXPECT_THAT(all_at_once([&](int i) -> Result<> {
                const auto& id = ids[static_cast<std::size_t>(i)];
                if (id.empty()) return {};
                if (auto r = cri_->stop_sandbox(id); !r) return r;
                return cri_->remove_sandbox(id);
              }),
              ::testing::IsEmpty());
  EXPECT_TRUE(cri_->list("")->sandboxes.empty());
  EXPECT_THAT(node_->held(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace hawser::testing
