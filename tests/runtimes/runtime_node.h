// SPDX-License-Identifier: Apache-2.0
// RuntimeNode: the namespaces that the test program is alone in, as one node of ours: the real overlayd has written the
// CNI configuration, and a folder holds the plugin under the names that a runtime looks for. One for all tests.
#pragma once

#include <optional>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "controlplane/agent/containerd_fixture.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/overlayd_process.h"

namespace hawser::testing {

// A shell command: its output (both streams), and its exit status if asked for.
std::string shell(const std::string& command, int* status = nullptr);

class RuntimeNode {
 public:
  RuntimeNode();
  // The one that main() has made; nullptr: the machine cannot.
  static RuntimeNode* get();

  [[nodiscard]] std::string plugins() const { return folder_.file("bin"); }
  [[nodiscard]] std::string networks() const { return folder_.file("net.d"); }
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }
  [[nodiscard]] const std::string& cgroup() const { return cgroup_; }
  // Links, routes, queues, nftables rules, records of host ports: everything that an attachment may leave, as text.
  [[nodiscard]] std::string state() const;
  // Every address held; one held twice is a failure.
  [[nodiscard]] std::set<std::string> held() const;

 private:
  TempDir folder_;
  std::string cgroup_;
  std::optional<OverlaydProcess> overlayd_;
};

// Nothing that the test's containers made outlives it: checked at the end of each test.
class RuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  RuntimeNode* node_ = nullptr;
  std::string before_;
};

}  // namespace hawser::testing
