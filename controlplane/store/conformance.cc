// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/conformance.h"

#include <atomic>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include <fmt/format.h>

namespace hawser::store {

void StoreConformance::SetUp() {
  engine_ = GetParam().make();
  auto s = engine_->open(clock_);
  ASSERT_TRUE(s) << s.error().text;
  store_ = std::move(*s);
}

Revision StoreConformance::put(const std::string& key, const std::string& value, LeaseId lease) {
  auto r = store_->txn({.success = {{.key = key, .value = value, .lease = lease}}});
  EXPECT_TRUE(r) << (r ? "" : r.error().text);
  return r ? r->revision : 0;
}

Revision StoreConformance::del(const std::string& key) {
  auto r = store_->txn({.success = {{.type = Op::Type::kDelete, .key = key}}});
  EXPECT_TRUE(r) << (r ? "" : r.error().text);
  return r ? r->revision : 0;
}

std::string StoreConformance::dump(Revision at, const std::string& key, const std::string& end) {
  auto r = store_->range({.key = key, .end = end, .revision = at});
  if (!r) return fmt::format("error {}", r.error().code);
  EXPECT_EQ(r->count, std::ssize(r->kvs));
  std::string out;
  for (auto& kv : r->kvs) out += fmt::format("{}{}={}", out.empty() ? "" : " ", kv.key, kv.value);
  return out;
}

TEST_P(StoreConformance, StartsEmptyAtRevisionOne) {
  EXPECT_EQ(store_->revision(), 1);
  EXPECT_EQ(store_->compacted(), 0);
  auto r = store_->range({.key = "a"});
  ASSERT_TRUE(r);
  EXPECT_EQ(r->revision, 1);
  EXPECT_EQ(r->count, 0);
}

// The example of store.h, step by step.
TEST_P(StoreConformance, WorkedExample) {
  EXPECT_EQ(put("a", "x"), 2);
  auto both = store_->txn({.success = {{.key = "a", .value = "y"}, {.key = "b", .value = "z"}}});
  ASSERT_TRUE(both);
  EXPECT_EQ(both->revision, 3);
  ASSERT_EQ(both->previous.size(), 1u);
  EXPECT_EQ(both->previous[0].value, "x");
  EXPECT_EQ(del("a"), 4);
  EXPECT_EQ(put("a", "w"), 5);
  EXPECT_EQ(del("q"), 5);

  EXPECT_EQ(dump(), "a=w b=z");
  EXPECT_EQ(dump(1), "");
  EXPECT_EQ(dump(2), "a=x");
  EXPECT_EQ(dump(3), "a=y b=z");
  EXPECT_EQ(dump(4), "b=z");
  auto a = store_->range({.key = "a"});
  ASSERT_TRUE(a);
  EXPECT_EQ(a->kvs.at(0).create_revision, 5);
  EXPECT_EQ(a->kvs.at(0).version, 1);
  auto old = store_->range({.key = "a", .revision = 3});
  ASSERT_TRUE(old);
  EXPECT_EQ(old->revision, 5);
  EXPECT_EQ(old->kvs.at(0).create_revision, 2);
  EXPECT_EQ(old->kvs.at(0).mod_revision, 3);
  EXPECT_EQ(old->kvs.at(0).version, 2);

  Collector from3;
  auto w = store_->watch("a", "z", 3, from3.fn());
  ASSERT_TRUE(w);
  EXPECT_EQ(text(from3.until(5)), "put a=y r3 (x); put b=z r3; delete a r4 (y); put a=w r5");

  ASSERT_TRUE(store_->compact(4));
  EXPECT_EQ(store_->compacted(), 4);
  EXPECT_EQ(dump(3), "error 410");
  EXPECT_EQ(dump(4), "b=z");
  EXPECT_EQ(dump(5), "a=w b=z");
  auto gone = store_->watch("a", "z", 3, from3.fn());
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, kCompacted);
  Collector from4;
  auto w4 = store_->watch("a", "z", 4, from4.fn());
  ASSERT_TRUE(w4);
  EXPECT_EQ(text(from4.until(5)), "delete a r4; put a=w r5");

  ASSERT_TRUE(store_->compact(5));
  EXPECT_EQ(dump(), "a=w b=z");
  EXPECT_EQ(dump(4), "error 410");
  ASSERT_TRUE(store_->compact(5)) << "again: nothing to do";
  EXPECT_EQ(store_->revision(), 5);
}

TEST_P(StoreConformance, RevisionSurvivesCompactionOfATombstone) {
  put("a", "x");
  EXPECT_EQ(del("a"), 3);
  ASSERT_TRUE(store_->compact(3));
  EXPECT_EQ(dump(), "");
  EXPECT_EQ(store_->revision(), 3);
  EXPECT_EQ(put("a", "x"), 4);
  ASSERT_TRUE(store_->compact(4));
  EXPECT_EQ(dump(4), "a=x");
}

TEST_P(StoreConformance, Compares) {
  put("k", "one");                   // 2
  const auto now = put("k", "two");  // 3: create 2, version 2
  using T = Compare::Target;
  const struct {
    int line;
    Compare c;
    bool want;
  } cases[] = {
      {__LINE__, {"k", T::kModRevision, 3, ""}, true},    {__LINE__, {"k", T::kModRevision, 2, ""}, false},
      {__LINE__, {"k", T::kCreateRevision, 2, ""}, true}, {__LINE__, {"k", T::kCreateRevision, 0, ""}, false},
      {__LINE__, {"k", T::kVersion, 2, ""}, true},        {__LINE__, {"k", T::kVersion, 1, ""}, false},
      {__LINE__, {"k", T::kValue, 0, "two"}, true},       {__LINE__, {"k", T::kValue, 0, "one"}, false},
      {__LINE__, {"no", T::kModRevision, 0, ""}, true},   {__LINE__, {"no", T::kModRevision, 1, ""}, false},
      {__LINE__, {"no", T::kVersion, 0, ""}, true},       {__LINE__, {"no", T::kCreateRevision, 0, ""}, true},
      {__LINE__, {"no", T::kValue, 0, ""}, false},
  };
  for (const auto& c : cases) {
    auto r = store_->txn({.compare = {c.c}, .success = {}, .failure = {{.type = Op::Type::kGet, .key = "k"}}});
    ASSERT_TRUE(r) << "line " << c.line;
    EXPECT_EQ(r->succeeded, c.want) << "line " << c.line;
    EXPECT_EQ(r->got.size(), c.want ? 0u : 1u) << "line " << c.line;
    EXPECT_EQ(r->revision, now) << "line " << c.line;
  }
}

TEST_P(StoreConformance, AllComparesMustHoldAndOnlyOneBranchRuns) {
  put("k", "v");
  auto r = store_->txn({.compare = {{.key = "k", .number = 2}, {.key = "other", .number = 7}},
                        .success = {{.key = "k", .value = "never"}},
                        .failure = {{.type = Op::Type::kGet, .key = "k"}, {.key = "log", .value = "lost"}}});
  ASSERT_TRUE(r);
  EXPECT_FALSE(r->succeeded);
  ASSERT_EQ(r->got.size(), 1u);
  EXPECT_EQ(r->got[0].value, "v");
  EXPECT_EQ(dump(), "k=v log=lost");
}

TEST_P(StoreConformance, OperationsRunInOrder) {
  put("a", "1");
  auto r = store_->txn({.success = {{.type = Op::Type::kGet, .key = "a"},
                                    {.key = "a", .value = "2"},
                                    {.type = Op::Type::kGet, .key = "a"},
                                    {.type = Op::Type::kDelete, .key = "b"}}});
  ASSERT_TRUE(r);
  ASSERT_EQ(r->got.size(), 2u);
  EXPECT_EQ(r->got[0].value, "1");
  EXPECT_EQ(r->got[1].value, "2");
}

TEST_P(StoreConformance, RefusesMalformedRequests) {
  const Op good{.key = "k", .value = "v"};
  const struct {
    int line;
    Txn t;
    int code;
  } cases[] = {
      {__LINE__, {.success = {{.key = ""}}}, EINVAL},
      {__LINE__, {.success = {good}, .failure = {{.key = ""}}}, EINVAL},
      {__LINE__, {.success = {good, good}}, EINVAL},
      {__LINE__, {.success = {good, {.type = Op::Type::kDelete, .key = "k"}}}, EINVAL},
      {__LINE__, {.success = {{.key = std::string(kMaxKeyBytes + 1, 'k')}}}, EINVAL},
      {__LINE__, {.success = {good, {.key = "x", .lease = 4711}}}, 404},
  };
  for (const auto& c : cases) {
    auto r = store_->txn(c.t);
    ASSERT_FALSE(r) << "line " << c.line;
    EXPECT_EQ(r.error().code, c.code) << "line " << c.line << ": " << r.error().text;
    EXPECT_FALSE(r.error().text.empty());
  }
  EXPECT_EQ(store_->revision(), 1);
  EXPECT_EQ(store_->range({.key = "k", .revision = 2}).error().code, EINVAL);
  EXPECT_EQ(store_->range({.key = "k", .revision = -1}).error().code, EINVAL);
  EXPECT_EQ(store_->range({.key = "k", .limit = -1}).error().code, EINVAL);
  EXPECT_EQ(store_->compact(2).error().code, EINVAL);
  EXPECT_EQ(store_->lease_grant(0).error().code, EINVAL);
  EXPECT_EQ(store_->lease_revoke(12).error().code, 404);
  EXPECT_EQ(store_->lease_keep_alive(12).error().code, 404);
}

TEST_P(StoreConformance, Ranges) {
  for (const char* k : {"a", "b/1", "b/2", "b/3", "b0", "c"}) put(k, k);
  del("b/2");
  const Revision old = store_->revision() - 1;  // b/2 still there
  put("b/1", "changed");
  const std::string all(1, '\0');
  const struct {
    int line;
    RangeRequest r;
    std::string want;
    bool more;
    std::int64_t count;
  } cases[] = {
      {__LINE__, {.key = "b/1"}, "b/1", false, 1},
      {__LINE__, {.key = "b"}, "", false, 0},
      {__LINE__, {.key = "b/", .end = prefix_end("b/")}, "b/1 b/3", false, 2},
      {__LINE__, {.key = "b/", .end = prefix_end("b/"), .revision = old}, "b/1 b/2 b/3", false, 3},
      {__LINE__, {.key = "", .end = all}, "a b/1 b/3 b0 c", false, 5},
      {__LINE__, {.key = "b/3", .end = all}, "b/3 b0 c", false, 3},
      {__LINE__, {.key = "c", .end = "a"}, "", false, 0},
      {__LINE__, {.key = "", .end = all, .limit = 2}, "a b/1", true, 5},
      {__LINE__, {.key = "", .end = all, .limit = 5}, "a b/1 b/3 b0 c", false, 5},
      {__LINE__, {.key = "b/", .end = prefix_end("b/"), .limit = 2, .revision = old}, "b/1 b/2", true, 3},
      {__LINE__, {.key = "", .end = all, .count_only = true}, "", false, 5},
      {__LINE__, {.key = "", .end = all, .revision = old, .count_only = true}, "", false, 6},
  };
  for (const auto& c : cases) {
    auto r = store_->range(c.r);
    ASSERT_TRUE(r) << "line " << c.line << r.error().text;
    std::string keys;
    for (auto& kv : r->kvs) keys += (keys.empty() ? "" : " ") + kv.key;
    EXPECT_EQ(keys, c.want) << "line " << c.line;
    EXPECT_EQ(r->more, c.more) << "line " << c.line;
    EXPECT_EQ(r->count, c.count) << "line " << c.line;
  }
  auto keys_only = store_->range({.key = "a", .keys_only = true});
  ASSERT_TRUE(keys_only);
  EXPECT_EQ(keys_only->kvs.at(0).value, "");
  EXPECT_EQ(keys_only->kvs.at(0).mod_revision, 2);
}

TEST_P(StoreConformance, KeysAndValuesAreBytes) {
  const std::string key("\x00k\xff\x80", 4);
  const std::string value("\x00\xff\x00", 3);
  put(key, value);
  put("\xff\xff", "");
  put("plain", std::string(300'000, 'x'));
  auto r = store_->range({.key = std::string(1, '\0'), .end = std::string(1, '\0')});
  ASSERT_TRUE(r);
  ASSERT_EQ(r->kvs.size(), 3u);
  EXPECT_EQ(r->kvs[0].key, key);
  EXPECT_EQ(r->kvs[0].value, value);
  EXPECT_EQ(r->kvs[1].value.size(), 300'000u);
  EXPECT_EQ(r->kvs[2].key, "\xff\xff") << "keys sort as unsigned bytes";
  EXPECT_EQ(r->kvs[2].value, "");
}

TEST(PrefixEnd, Table) {
  EXPECT_EQ(prefix_end("a"), "b");
  EXPECT_EQ(prefix_end("/registry/pods/"), "/registry/pods0");
  EXPECT_EQ(prefix_end("a\xff\xff"), "b");
  EXPECT_EQ(prefix_end("\x7f"), "\x80");
  EXPECT_EQ(prefix_end("\xff"), std::string(1, '\0'));
  EXPECT_EQ(prefix_end(""), std::string(1, '\0'));
}

TEST_P(StoreConformance, WatchFiltersAndTellsProgress) {
  Collector pods;
  auto w = store_->watch("pods/", prefix_end("pods/"), 0, pods.fn());
  ASSERT_TRUE(w);
  put("nodes/1", "n");
  put("pods/1", "p");
  ASSERT_TRUE(
      store_->txn({.success = {{.key = "nodes/2"}, {.key = "pods/2", .value = "q"}, {.key = "pods/3", .value = "r"}}}));
  const Revision last = put("nodes/3", "n");
  EXPECT_EQ(text(pods.until(last)), "put pods/1=p r3; put pods/2=q r4; put pods/3=r r4");
  for (auto& b : pods.batches()) {
    if (!b.events.empty()) {
      EXPECT_GE(b.progress, b.events.back().kv.mod_revision);
    }
  }
}

TEST_P(StoreConformance, WatchFromTheFutureSkipsWhatComesBefore) {
  Collector c;
  auto w = store_->watch("a", "", 4, c.fn());
  ASSERT_TRUE(w);
  for (const char* v : {"r2", "r3", "r4", "r5"}) put("a", v);
  EXPECT_EQ(text(c.until(5)), "put a=r4 r4 (r3); put a=r5 r5 (r4)");
}

TEST_P(StoreConformance, WatchCatchesUpThroughALongHistoryWhileWritesGoOn) {
  constexpr int kEach = 1500;
  for (int i = 0; i < kEach; ++i) put("k", std::to_string(i));
  Collector c;
  auto w = store_->watch("k", "", 2, c.fn());
  ASSERT_TRUE(w);
  Revision last = 0;
  for (int i = kEach; i < kEach + 300; ++i) last = put("k", std::to_string(i));
  auto events = c.until(last);
  ASSERT_EQ(std::ssize(events), kEach + 300);
  for (int i = 0; i < kEach + 300; ++i) {
    EXPECT_EQ(events[i].kv.mod_revision, i + 2);
    EXPECT_EQ(events[i].kv.version, i + 1);
    EXPECT_EQ(events[i].previous != nullptr, i > 0);
  }
}

TEST_P(StoreConformance, WatchEndsItselfFromItsCallback) {
  std::unique_ptr<Watch> self;
  std::mutex mu;
  std::atomic<int> calls = 0;
  {
    std::lock_guard l(mu);
    auto w = store_->watch("a", "", 0, [&](const EventBatch&) {
      ++calls;
      std::lock_guard hold(mu);
      self.reset();
    });
    ASSERT_TRUE(w);
    self = std::move(*w);
  }
  Collector other;
  auto w = store_->watch("a", "", 0, other.fn());
  ASSERT_TRUE(w);
  put("a", "1");
  other.until(put("a", "2"));
  EXPECT_EQ(calls, 1);
}

TEST_P(StoreConformance, NoCallbackAfterTheWatchIsGone) {
  for (int round = 0; round < 50; ++round) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    auto w = store_->watch("a", "", 0, [flag = alive.get()](const EventBatch&) { EXPECT_TRUE(flag->load()); });
    ASSERT_TRUE(w);
    std::thread writer([&] { put("a", "v"); });
    w->reset();
    *alive = false;
    alive.reset();  // a late callback is a use after free under ASan
    writer.join();
  }
}

// Random writes and compactions against a model that keeps the whole state of every revision.
TEST_P(StoreConformance, RangesEqualAModelAcrossCompactions) {
  std::mt19937 random(7);
  auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  std::map<Revision, std::map<std::string, std::string>> model{{1, {}}};
  for (int step = 0; step < 600; ++step) {
    auto next = model.rbegin()->second;
    Txn t;
    std::map<std::string, bool> used;
    for (int i = pick(3); i >= 0; --i) {
      const std::string key = fmt::format("k{}", pick(12));
      if (!used.emplace(key, true).second) continue;
      if (pick(3) == 0) {
        t.success.push_back({.type = Op::Type::kDelete, .key = key});
        next.erase(key);
      } else {
        t.success.push_back({.key = key, .value = std::to_string(step)});
        next[key] = std::to_string(step);
      }
    }
    auto r = store_->txn(t);
    ASSERT_TRUE(r);
    if (r->revision > model.rbegin()->first) model[r->revision] = next;
    ASSERT_EQ(r->revision, model.rbegin()->first);
    ASSERT_EQ(model.rbegin()->second, next) << "a transaction that changed something took no revision";
    if (pick(20) == 0) {
      ASSERT_TRUE(store_->compact(std::max<Revision>(store_->compacted(), store_->revision() - pick(30))));
    }
    const Revision at = store_->revision() - pick(40);
    if (at < 1) continue;
    std::string want;
    for (auto& [k, v] : model[at]) want += fmt::format("{}{}={}", want.empty() ? "" : " ", k, v);
    ASSERT_EQ(dump(at), at < store_->compacted() ? "error 410" : want) << "at " << at;
  }
}

TEST_P(StoreConformance, LeaseExpiryDeletesItsKeysInOneRevision) {
  auto lease = store_->lease_grant(10);
  ASSERT_TRUE(lease);
  put("a", "1", *lease);
  put("b", "1", *lease);
  put("c", "1", *lease);
  const Revision before = put("c", "2");  // without the lease: c leaves it
  Collector c;
  auto w = store_->watch("a", "z", 0, c.fn());
  ASSERT_TRUE(w);
  clock_.advance(std::chrono::seconds(9));
  ASSERT_TRUE(store_->lease_keep_alive(*lease));
  clock_.advance(std::chrono::seconds(9));
  EXPECT_EQ(dump(), "a=1 b=1 c=2");
  clock_.advance(std::chrono::seconds(2));
  EXPECT_EQ(text(c.until(before + 1)), fmt::format("delete a r{0} (1); delete b r{0} (1)", before + 1));
  EXPECT_EQ(dump(), "c=2");
  EXPECT_EQ(store_->lease_keep_alive(*lease).error().code, 404);
  EXPECT_EQ(store_->txn({.success = {{.key = "x", .lease = *lease}}}).error().code, 404);
}

TEST_P(StoreConformance, LeaseRevoke) {
  auto lease = store_->lease_grant(10);
  auto empty = store_->lease_grant(10);
  ASSERT_TRUE(lease && empty);
  EXPECT_NE(*lease, *empty);
  const Revision before = put("a", "1", *lease);
  EXPECT_EQ(store_->range({.key = "a"})->kvs.at(0).lease, *lease);
  ASSERT_TRUE(store_->lease_revoke(*empty));
  EXPECT_EQ(store_->revision(), before);
  ASSERT_TRUE(store_->lease_revoke(*lease));
  EXPECT_EQ(store_->revision(), before + 1);
  EXPECT_EQ(dump(), "");
  EXPECT_EQ(store_->lease_revoke(*lease).error().code, 404);
}

// Many clients raise shared counters by compare-and-swap: every success must count exactly once, a watcher must see
// each revision exactly once, and no reader may ever see time go back.
TEST_P(StoreConformance, ConcurrentCompareAndSwap) {
  constexpr int kThreads = 8;
  constexpr int kRaises = 40;
  Collector c;
  auto w = store_->watch("counter/", prefix_end("counter/"), 2, c.fn());
  ASSERT_TRUE(w);
  std::atomic<bool> writing = true;
  std::thread reader([&] {
    Revision seen = 0;
    while (writing) {
      auto r = store_->range({.key = "counter/", .end = prefix_end("counter/")});
      ASSERT_TRUE(r);
      EXPECT_GE(r->revision, seen);
      seen = r->revision;
      for (auto& kv : r->kvs) EXPECT_LE(kv.mod_revision, r->revision);
    }
  });
  auto raise = [&](const std::string& key) {
    auto now = store_->range({.key = key});
    ASSERT_TRUE(now);
    Revision seen = now->kvs.empty() ? 0 : now->kvs[0].mod_revision;
    int value = now->kvs.empty() ? 0 : std::stoi(now->kvs[0].value);
    while (true) {
      auto r = store_->txn({.compare = {{.key = key, .number = seen}},
                            .success = {{.key = key, .value = std::to_string(value + 1)}},
                            .failure = {{.type = Op::Type::kGet, .key = key}}});
      ASSERT_TRUE(r);
      if (r->succeeded) return;
      seen = r->got.at(0).mod_revision;
      value = std::stoi(r->got.at(0).value);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRaises; ++i) raise(fmt::format("counter/{}", (t + i) % 2));
    });
  }
  for (auto& t : threads) t.join();
  writing = false;
  reader.join();
  EXPECT_EQ(store_->revision(), 1 + kThreads * kRaises);
  EXPECT_EQ(dump(), fmt::format("counter/0={0} counter/1={0}", kThreads * kRaises / 2));
  auto events = c.until(store_->revision());
  ASSERT_EQ(std::ssize(events), kThreads * kRaises);
  for (int i = 0; i < std::ssize(events); ++i) EXPECT_EQ(events[i].kv.mod_revision, i + 2);
}

TEST_P(StoreConformance, CompactionDuringWritesAndReads) {
  std::atomic<bool> writing = true;
  std::thread compacting([&] {
    while (writing) EXPECT_TRUE(store_->compact(std::max<Revision>(1, store_->revision() - 20)));
  });
  std::thread reading([&] {
    while (writing) {
      const Revision at = std::max<Revision>(1, store_->revision() - 15);
      auto r = store_->range({.key = "", .end = std::string(1, '\0'), .revision = at});
      // Between asking for the revision and reading it the compaction may have passed it, but a range that answers is
      // whole.
      if (r) {
        EXPECT_EQ(r->count, std::min<std::int64_t>(at - 1, 5)) << "at " << at;
      } else {
        EXPECT_EQ(r.error().code, kCompacted);
      }
    }
  });
  for (int i = 0; i < 500; ++i) put(fmt::format("k{}", i % 5), std::to_string(i));
  writing = false;
  compacting.join();
  reading.join();
  EXPECT_EQ(dump(), "k0=495 k1=496 k2=497 k3=498 k4=499");
}

TEST_P(StoreConformance, ReopenedStoreIsTheSame) {
  if (!engine_->persistent()) GTEST_SKIP() << GetParam().name << " keeps nothing";
  auto lease = store_->lease_grant(10);
  ASSERT_TRUE(lease);
  put("a", "1");
  put("a", "2");
  put("leased", "x", *lease);
  del("a");
  put("b", "1");
  ASSERT_TRUE(store_->compact(3));
  clock_.advance(std::chrono::seconds(8));
  store_.reset();
  auto s = engine_->open(clock_);
  ASSERT_TRUE(s) << s.error().text;
  store_ = std::move(*s);
  EXPECT_EQ(store_->revision(), 6);
  EXPECT_EQ(store_->compacted(), 3);
  EXPECT_EQ(dump(), "b=1 leased=x");
  EXPECT_EQ(dump(3), "a=2");
  EXPECT_EQ(dump(2), "error 410");
  Collector c;
  auto w = store_->watch("", std::string(1, '\0'), 3, c.fn());
  ASSERT_TRUE(w);
  EXPECT_EQ(text(c.until(6)), "put a=2 r3; put leased=x r4; delete a r5 (2); put b=1 r6");
  clock_.advance(std::chrono::seconds(8));
  EXPECT_EQ(dump(), "b=1 leased=x") << "a restart gives the lease its whole time again";
  clock_.advance(std::chrono::seconds(3));
  c.until(7);
  EXPECT_EQ(dump(), "b=1");
}

}  // namespace hawser::store
