// SPDX-License-Identifier: Apache-2.0
// NetNsTest: each test runs in a fresh network namespace with only `lo`, up. The thread that runs the tests moves
// there; threads it starts are there too. Skips, saying why, without the privilege. Never touches the namespace of the
// machine.
//
//   class LinkTest : public hawser::testing::NetNsTest {};
//   TEST_F(LinkTest, MakesVeth) { ... }
#pragma once

#include <optional>

#include <gtest/gtest.h>

#include "lib/base/netns.h"

namespace hawser::testing {

class NetNsTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // The namespace of this test. Only after a SetUp that did not skip.
  [[nodiscard]] const NetNs& netns() const { return *netns_; }

 private:
  std::optional<NetNs> netns_;
  std::optional<NetNsGuard> inside_;
};

// Sets `lo` up in the calling thread's namespace.
Result<> loopback_up();

// True if this process may make network namespaces; else `why` says what is missing.
[[nodiscard]] bool can_make_netns(std::string& why);

}  // namespace hawser::testing
