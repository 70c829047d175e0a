// SPDX-License-Identifier: Apache-2.0
// LogStore and WatchHub against an engine that fails and callbacks that stall; the small pure parts.
#include "controlplane/store/log_store.h"

#include <atomic>
#include <latch>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "controlplane/store/collector.h"
#include "controlplane/store/compactor.h"
#include "controlplane/store/memory_log.h"

namespace hawser::store {
namespace {

const std::string kAll(1, '\0');

// MemoryLog whose commits and appends fail on demand, and whose commits can be held up so that callers pile into one
// batch.
class FaultyLog final : public Log {
 public:
  Result<> begin() override { return log_.begin(); }
  Result<> commit() override {
    ++commits;
    gate.wait(true);
    std::this_thread::yield();
    if (fail_commits > 0) {
      --fail_commits;
      return fail(ENOSPC, "store test: no space left");
    }
    return log_.commit();
  }
  void rollback() override { log_.rollback(); }
  Result<std::shared_ptr<const KeyValue>> latest(const std::string& key) override { return log_.latest(key); }
  Result<> append(const Event& e, int position) override {
    if (e.kv.value == "too large") return fail(ENOSPC, "store test: no space left");
    return log_.append(e, position);
  }
  Result<> set_compacted(Revision r) override { return log_.set_compacted(r); }
  Result<> set_lease(LeaseId id, std::int64_t ttl) override { return log_.set_lease(id, ttl); }
  Result<std::vector<std::string>> lease_keys(LeaseId id) override { return log_.lease_keys(id); }
  Result<bool> maintain() override { return log_.maintain(); }
  Result<RangeReply> range(const RangeRequest& r) override { return log_.range(r); }
  Result<History> history(const HistoryRequest& r) override {
    ++histories;
    return log_.history(r);
  }

  void close_gate() { gate = true; }
  void open_gate() {
    gate = false;
    gate.notify_all();
  }
  std::atomic<int> fail_commits = 0;
  std::atomic<int> commits = 0;
  std::atomic<int> histories = 0;
  std::atomic<bool> gate = false;

 private:
  MemoryLog log_;
};

class LogStoreTest : public testing::Test {
 protected:
  LogStoreTest() {
    auto log = std::make_unique<FaultyLog>();
    log_ = log.get();
    store_ = std::make_unique<LogStore>(OpenLog{std::move(log), {}}, clock_);
  }
  Result<TxnReply> put(const std::string& key, const std::string& value, LeaseId lease = 0) {
    return store_->txn({.success = {{.key = key, .value = value, .lease = lease}}});
  }
  FakeClock clock_;
  FaultyLog* log_ = nullptr;
  std::unique_ptr<LogStore> store_;
};

TEST_F(LogStoreTest, FailedCommitLeavesNothing) {
  Collector c;
  auto w = store_->watch("", kAll, 0, c.fn());
  ASSERT_TRUE(w);
  log_->fail_commits = 1;
  auto r = put("a", "lost");
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ENOSPC);
  EXPECT_EQ(store_->revision(), 1);
  ASSERT_TRUE(put("b", "kept"));
  EXPECT_EQ(text(c.until(2)), "put b=kept r2");
}

// Callers that arrive during a commit share the next one.
TEST_F(LogStoreTest, WaitingCallersShareACommit) {
  constexpr int kThreads = 16;
  constexpr int kEach = 20;
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) EXPECT_TRUE(put(fmt::format("k{}", t), std::to_string(i)));
    });
  }
  for (auto& t : callers) t.join();
  EXPECT_EQ(store_->revision(), 1 + kThreads * kEach);
  EXPECT_LT(log_->commits, kThreads * kEach);
}

// One that cannot be written must not take along its neighbours in the batch.
TEST_F(LogStoreTest, OneBadTransactionFailsAlone) {
  std::vector<std::thread> callers;
  std::atomic<int> refused = 0;
  log_->close_gate();
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([&, i] {
      auto r = put(fmt::format("k{:02}", i), i % 10 == 3 ? "too large" : "v");
      EXPECT_EQ(r.has_value(), i % 10 != 3);
      if (!r) ++refused;
    });
  }
  log_->open_gate();
  for (auto& t : callers) t.join();
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(store_->revision(), 19);
  EXPECT_EQ(store_->range({.key = "", .end = kAll})->count, 18);
}

TEST_F(LogStoreTest, ExpiryThatFailsIsTriedAgain) {
  auto lease = store_->lease_grant(5);
  ASSERT_TRUE(lease);
  ASSERT_TRUE(put("a", "1", *lease));
  Collector c;
  auto w = store_->watch("", kAll, 0, c.fn());
  ASSERT_TRUE(w);
  const int before = log_->commits;
  log_->fail_commits = 1;
  clock_.advance(std::chrono::seconds(6));
  while (log_->commits == before) std::this_thread::yield();
  EXPECT_EQ(store_->range({.key = "a"})->count, 1);
  // The postponement is made after the failed commit: move the time until it is due.
  while (store_->revision() == 2) clock_.advance(std::chrono::milliseconds(500));
  EXPECT_EQ(text(c.until(3)), "delete a r3 (1)");
}

TEST_F(LogStoreTest, FailedCompactionIsReportedAndCanBeRepeated) {
  ASSERT_TRUE(put("a", "1"));
  ASSERT_TRUE(put("a", "2"));
  log_->fail_commits = 1;
  EXPECT_EQ(store_->compact(3).error().code, ENOSPC);
  EXPECT_EQ(store_->compacted(), 0);
  ASSERT_TRUE(store_->compact(3));
  EXPECT_EQ(store_->compacted(), 3);
}

std::vector<Event> one_event(MemoryLog& log, Revision r) {
  Event e{
      .kv = {.key = "k", .value = std::string(1000, 'v'), .create_revision = 2, .mod_revision = r, .version = r - 1}};
  EXPECT_TRUE(log.begin() && log.append(e, 0) && log.commit());
  return {e};
}

// A stalled callback, and far more events than the queue may hold: they are dropped and read again, in order, each
// once.
TEST(WatchHubTest, OverflowIsReadAgainFromTheHistory) {
  MemoryLog log;
  auto hub = std::make_shared<WatchHub>(log, 1, 20'000);
  hub->start();
  std::latch stalled(1), resume(1);
  Collector slow, fast;
  bool first = true;
  auto ws = hub->add(KeySpan::of("k", ""), 0, [&](const EventBatch& b) {
    if (std::exchange(first, false)) {
      stalled.count_down();
      resume.wait();
    }
    slow.fn()(b);
  });
  auto wf = hub->add(KeySpan::of("", kAll), 0, fast.fn());
  Revision r = 2;
  hub->publish(one_event(log, r));
  stalled.wait();
  while (r < 300) hub->publish(one_event(log, ++r));
  resume.count_down();
  for (Collector* c : {&slow, &fast}) {
    auto events = c->until(300);
    ASSERT_EQ(events.size(), 299u);
    for (std::size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].kv.mod_revision, static_cast<Revision>(i) + 2);
  }
  hub->stop();
}

TEST(WatchHubTest, WatcherOvertakenByCompactionIsTold) {
  MemoryLog log;
  auto hub = std::make_shared<WatchHub>(log, 1, 2'000);
  hub->start();
  std::latch stalled(1), resume(1);
  Collector c;
  bool first = true;
  auto w = hub->add(KeySpan::of("k", ""), 0, [&](const EventBatch& b) {
    if (std::exchange(first, false)) {
      stalled.count_down();
      resume.wait();
    }
    c.fn()(b);
  });
  Revision r = 2;
  hub->publish(one_event(log, r));
  stalled.wait();
  while (r < 50) hub->publish(one_event(log, ++r));
  ASSERT_TRUE(log.begin() && log.set_compacted(50) && log.commit());
  resume.count_down();
  EXPECT_TRUE(c.until_lost());
  hub->stop();
}

TEST(LeaseTableTest, EndsInOrderOfTime) {
  using std::chrono::seconds;
  LeaseTable t;
  const MonoTime zero{};
  EXPECT_EQ(t.next_due(), MonoTime::max());
  t.add(1, 10, zero);
  t.add(2, 5, zero);
  EXPECT_EQ(t.next_due(), zero + seconds(5));
  EXPECT_TRUE(t.take_due(zero + seconds(4)).empty());
  EXPECT_TRUE(t.keep_alive(2, zero + seconds(4)));
  EXPECT_EQ(t.take_due(zero + seconds(9)), std::vector<LeaseId>{2});
  EXPECT_FALSE(t.keep_alive(2, zero + seconds(9))) << "it is being revoked";
  EXPECT_TRUE(t.contains(2));
  t.postpone(2, zero + seconds(12));
  EXPECT_EQ(t.take_due(zero + seconds(20)), (std::vector<LeaseId>{1, 2}));
  t.remove(1);
  t.remove(2);
  t.remove(3);
  EXPECT_FALSE(t.contains(1));
  EXPECT_EQ(t.next_due(), MonoTime::max());
}

TEST(RetentionPlanTest, KeepsTimeUnlessThereIsTooMuch) {
  using std::chrono::seconds;
  RetentionPlan p({.keep_time = seconds(300), .max_revisions = 1000, .interval = seconds(30)});
  const MonoTime zero{};
  const struct {
    int at;
    Revision revision;
    Revision compacted;
    Revision want;
  } steps[] = {
      {0, 10, 0, 0},
      {30, 40, 0, 0},
      {299, 100, 0, 0},
      {300, 110, 0, 10},  // what was current at 0
      {330, 120, 10, 40},
      {360, 120, 40, 0},      // nothing newly old enough
      {390, 2000, 40, 1000},  // a storm: the newest 1000 stay
      {1000, 2000, 1000, 2000},
      {1030, 2000, 2000, 0},
  };
  for (const auto& s : steps) {
    EXPECT_EQ(p.observe(zero + seconds(s.at), s.revision, s.compacted), s.want) << "at " << s.at;
  }
}

TEST(CompactorTest, CompactsAsTimePasses) {
  FakeClock clock;
  auto store = make_memory_store(&clock);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(store->txn({.success = {{.key = "a", .value = "v"}}}));
  Compactor c(*store, clock, {.keep_time = std::chrono::seconds(60), .interval = std::chrono::seconds(10)});
  while (store->compacted() != 11) clock.advance(std::chrono::seconds(1));
  EXPECT_EQ(store->range({.key = "a"})->count, 1);
}

}  // namespace
}  // namespace hawser::store
