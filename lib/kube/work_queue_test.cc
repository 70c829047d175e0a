// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/work_queue.h"

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

TEST(WorkQueueTest, FoldsWhatWaitsAndRepeatsWhatRuns) {
  FakeClock clock;
  WorkQueue q(clock);
  q.add("a");
  q.add("b");
  q.add("a");
  EXPECT_EQ(q.size(), 2u);
  EXPECT_EQ(q.get(), "a");
  q.add("a");
  q.add("a");
  EXPECT_EQ(q.size(), 1u) << "a runs, so it must not be handed out a second time yet";
  EXPECT_EQ(q.get(), "b");
  q.done("b");
  q.done("a");
  EXPECT_EQ(q.get(), "a");
  q.done("a");
  EXPECT_EQ(q.size(), 0u);
}

TEST(WorkQueueTest, DelaysCountFromTheEarliest) {
  FakeClock clock;
  WorkQueue q(clock);
  q.add_after("late", 60s);
  q.add_after("soon", 10s);
  q.add_after("late", 20s);
  q.add_after("late", 90s);
  std::atomic<int> got = 0;
  std::thread worker([&] {
    EXPECT_EQ(q.get(), "soon");
    got = 1;
    EXPECT_EQ(q.get(), "late");
    got = 2;
  });
  clock.advance(9s);
  EXPECT_EQ(got, 0);
  clock.advance(2s);
  while (got < 1) std::this_thread::yield();
  clock.advance(10s);
  worker.join();
  q.done("late");
  q.done("soon");
  clock.advance(1h);
  EXPECT_EQ(q.size(), 0u);
  q.shut_down();
  EXPECT_EQ(q.get(), std::nullopt) << "the earlier delay replaced the later one";
}

TEST(WorkQueueTest, RetriesSlowDownUntilForgotten) {
  FakeClock clock;
  WorkQueue q(clock, {.first_retry = 1s, .max_retry = 5s});
  for (Nanos want : {1s, 2s, 4s, 5s, 5s}) {
    auto begin = clock.now();
    q.add_rate_limited("k");
    std::thread worker([&] { EXPECT_EQ(q.get(), "k"); });
    clock.advance(want - 1ms);
    EXPECT_EQ(q.size(), 0u);
    clock.advance(1ms);
    worker.join();
    q.done("k");
    EXPECT_EQ(clock.now() - begin, want);
  }
  EXPECT_EQ(q.retries("k"), 5);
  q.forget("k");
  EXPECT_EQ(q.retries("k"), 0);
}

TEST(WorkQueueTest, ShutDownHandsOutTheRestThenEnds) {
  WorkQueue q;
  q.add("a");
  q.add_after("never", 1h);
  q.shut_down();
  q.add("ignored");
  EXPECT_EQ(q.get(), "a");
  q.done("a");
  EXPECT_EQ(q.get(), std::nullopt);
}

TEST(WorkQueueTest, ManyWorkersNeverShareAKey) {
  WorkQueue q;
  constexpr int kKeys = 10;
  std::atomic<int> running[kKeys] = {};
  std::atomic<int> clashes = 0;
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; i++)
    workers.emplace_back([&] {
      while (auto key = q.get()) {
        auto& r = running[std::stoi(*key)];
        if (r.fetch_add(1) != 0) clashes++;
        std::this_thread::yield();
        r.fetch_sub(1);
        q.done(*key);
      }
    });
  for (int i = 0; i < 2000; i++) q.add(std::to_string(i % kKeys));
  q.shut_down();
  for (auto& w : workers) w.join();
  EXPECT_EQ(clashes, 0);
}

}  // namespace
}  // namespace hawser::kube
