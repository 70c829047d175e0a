// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/scheduling_queue.h"

#include <gtest/gtest.h>

#include "controlplane/scheduler/scheduler_testing.h"

namespace hawser::scheduler {
namespace {

using namespace std::chrono_literals;

constexpr MonoTime kStart{};

std::string popped(SchedulingQueue& q, MonoTime now) {
  const PodPtr p = q.pop(now);
  return p == nullptr ? "" : p->name;
}

TEST(SchedulingQueue, PriorityThenAge) {
  SchedulingQueue q;
  q.put(pod_spec("first"), true, kStart);
  q.put(pod_spec("second"), true, kStart);
  q.put(pod_spec("urgent", R"("priority":1000)"), true, kStart);
  EXPECT_EQ(popped(q, kStart), "urgent");
  EXPECT_EQ(popped(q, kStart), "first");
  EXPECT_EQ(popped(q, kStart), "second");
  EXPECT_EQ(popped(q, kStart), "");
}

TEST(SchedulingQueue, UnschedulableWaitsForAChangeAndItsBackoff) {
  SchedulingQueue q;
  q.put(pod_spec("p"), true, kStart);
  EXPECT_EQ(popped(q, kStart), "p");
  q.unschedulable("default/p", kStart);
  EXPECT_EQ(popped(q, kStart + 60s), "") << "nothing changed";
  EXPECT_EQ(q.next(kStart), kStart + 5min);
  q.move_all(kStart + 500ms);
  EXPECT_EQ(popped(q, kStart + 500ms), "");
  EXPECT_EQ(q.next(kStart), kStart + 1s);
  EXPECT_EQ(popped(q, kStart + 1s), "p");
  // The second time it backs off for two seconds; long after that a change makes it active at once.
  q.unschedulable("default/p", kStart + 1s);
  q.move_all(kStart + 10s);
  EXPECT_EQ(popped(q, kStart + 10s), "p");
  q.unschedulable("default/p", kStart + 10s);
  EXPECT_EQ(popped(q, kStart + 10s + 5min), "p") << "flushed";
}

TEST(SchedulingQueue, AChangeDuringTheAttemptIsNotLost) {
  SchedulingQueue q;
  q.put(pod_spec("p"), true, kStart);
  EXPECT_EQ(popped(q, kStart), "p");
  q.move_all(kStart);
  q.unschedulable("default/p", kStart);
  EXPECT_EQ(popped(q, kStart + 1s), "p");
}

TEST(SchedulingQueue, BackoffGrowsToTenSeconds) {
  SchedulingQueue q;
  const PodPtr p = pod_spec("p");
  q.put(p, true, kStart);
  MonoTime now = kStart;
  for (const Nanos want : {1s, 2s, 4s, 8s, 10s, 10s}) {
    ASSERT_EQ(popped(q, now), "p");
    q.failed(p, now);
    EXPECT_EQ(popped(q, now + want - 1ms), "");
    now += want;
  }
}

TEST(SchedulingQueue, UpdatesAndRemoval) {
  SchedulingQueue q;
  q.put(pod_spec("p"), true, kStart);
  EXPECT_EQ(popped(q, kStart), "p");
  q.unschedulable("default/p", kStart);
  q.put(pod_spec("p"), false, kStart + 2s);
  EXPECT_EQ(popped(q, kStart + 2s), "") << "its own new condition is no news";
  q.put(pod_spec("p", R"("priority":1)"), true, kStart + 2s);
  EXPECT_EQ(popped(q, kStart + 2s), "p");
  q.done("default/p");
  EXPECT_EQ(q.size(), 0u);
  q.put(pod_spec("p"), true, kStart);
  q.remove("default/p");
  EXPECT_EQ(popped(q, kStart), "");
  EXPECT_EQ(q.next(kStart), std::nullopt);
}

}  // namespace
}  // namespace hawser::scheduler
