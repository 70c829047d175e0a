// SPDX-License-Identifier: Apache-2.0
// A short churn run. How late a request may be is `./bench proxy-churn`'s business: a busy machine delays everything.
// Here no request may fail, and a change that was never applied would be seen as a request to an endpoint long dead.
#include "tests/churn/churn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/netns.h"
#include "lib/testing/temp_dir.h"

namespace hawser::churn {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

IpAddr address(const char* text) {
  return *IpAddr::parse(text);
}

TEST(Ledger, DeadEndpointsHaveSomeGrace) {
  Ledger l;
  const MonoTime at = system_clock().now();
  l.add(1, address("10.0.0.1"));
  l.answered(1, address("10.0.0.1"), at + 1h);
  l.remove(address("10.0.0.1"), at);
  l.answered(1, address("10.0.0.1"), at - 1ms);
  l.answered(1, address("10.0.0.1"), at + 50ms);
  EXPECT_EQ(l.report().late, 0u);
  EXPECT_EQ(l.report().soon, 1u);
  l.answered(1, address("10.0.0.1"), at + 51ms);
  EXPECT_EQ(l.report().late, 1u);
  EXPECT_EQ(l.report().late_at_restart, 0u);
  EXPECT_EQ(l.report().latest_running, 51ms);
  EXPECT_EQ(l.report().requests, 4u);
  EXPECT_EQ(l.report().failures, 0u);
}

TEST(Ledger, LateBecauseOfARestart) {
  Ledger l;
  const MonoTime at = system_clock().now();
  l.add(1, address("10.0.0.1"));
  l.remove(address("10.0.0.1"), at);
  l.restarted(true, at + 1ms);
  l.answered(1, address("10.0.0.1"), at + 60ms);
  l.served(at + 70ms);
  l.answered(1, address("10.0.0.1"), at + 80ms);
  EXPECT_EQ(l.report().late, 2u);
  EXPECT_EQ(l.report().late_at_restart, 2u);
  l.add(1, address("10.0.0.2"));
  l.remove(address("10.0.0.2"), at + 100ms);
  l.answered(1, address("10.0.0.2"), at + 200ms);
  EXPECT_EQ(l.report().late, 3u);
  EXPECT_EQ(l.report().late_at_restart, 2u);
  EXPECT_EQ(l.report().latest, 100ms);
  EXPECT_EQ(l.report().latest_running, 100ms);
}

TEST(Ledger, AnswersOfOthersAndLostDatagramsAreFailures) {
  Ledger l;
  const MonoTime at = system_clock().now();
  l.add(1, address("10.0.0.1"));
  l.add(1, address("10.0.0.2"));
  l.answered(2, address("10.0.0.1"), at);
  EXPECT_EQ(l.report().failures, 1u);
  EXPECT_THAT(l.report().first_failures[0], HasSubstr("of another Service"));
  l.unanswered(1, address("10.0.0.1"), at, 0);
  EXPECT_EQ(l.report().failures, 2u) << "nothing happened to the endpoint";
  l.remove(address("10.0.0.1"), at + 10ms);
  l.unanswered(1, address("10.0.0.1"), at, 0);
  l.unanswered(1, address("10.0.0.2"), at, 1);
  EXPECT_EQ(l.report().lost_with_endpoint, 2u);
  EXPECT_EQ(l.report().late, 0u);
  l.unanswered(1, address("10.0.0.1"), at + 70ms, 0);
  EXPECT_EQ(l.report().late, 1u) << "a flow that went to a dead endpoint too long";
  EXPECT_EQ(l.report().failures, 2u);
  l.unanswered(1, address("10.0.0.2"), at, 0);
  l.unanswered(1, address("10.0.0.2"), at, 1000);
  EXPECT_EQ(l.report().failures, 4u);
}

TEST(Churn, NoRequestFails) {
  if (!NetNs::create()) GTEST_SKIP() << "needs the right to make network namespaces";
  const hawser::testing::TempDir folder;
  auto r = run({.controlplane = HAWSER_CONTROLPLANE,
                .proxyd = HAWSER_PROXYD,
                .folder = folder.path(),
                .length = 20s,
                .changes_a_minute = 6000,
                .restart_every = 3s,
                .connections_a_second = 200});
  ASSERT_TRUE(r) << r.error().text;
  for (const auto& f : r->first_failures) ADD_FAILURE() << f;
  EXPECT_EQ(r->failures, 0u);
  EXPECT_EQ(r->refused_changes, 0u);
  EXPECT_GT(r->changes, 0u);
  EXPECT_GT(r->requests, 0u);
  EXPECT_GT(r->kills, 0u);
  EXPECT_LT(r->latest, 15s) << "a removal did not reach the kernel";
}

}  // namespace
}  // namespace hawser::churn
