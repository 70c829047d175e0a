// SPDX-License-Identifier: Apache-2.0
// The small value parts: Result, Rollback, random values, time and base64 text, metrics.
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/base64.h"
#include "lib/base/log.h"
#include "lib/base/metrics.h"
#include "lib/base/random.h"
#include "lib/base/result.h"
#include "lib/base/rollback.h"
#include "lib/base/time_text.h"
#include "lib/testing/golden.h"

namespace hawser {
namespace {

TEST(ResultTest, ContextGoesInFront) {
  Result<int> r = fail_errno(ENOENT, "open {}", "/x");
  EXPECT_EQ(r.error().text, "open /x: No such file or directory");
  Result<> outer = propagate(r, "load {}", "config");
  EXPECT_EQ(outer.error().text, "load config: open /x: No such file or directory");
  EXPECT_EQ(outer.error().code, ENOENT);
}

TEST(ResultTest, Predicates) {
  EXPECT_TRUE(is_not_found({404, "", "NotFound"}));
  EXPECT_TRUE(is_not_found({ENODEV, "", ""}));
  EXPECT_TRUE(is_exists({409, "", "AlreadyExists"}));
  EXPECT_FALSE(is_conflict({409, "", "AlreadyExists"}));
  EXPECT_TRUE(is_conflict({409, "", "Conflict"}));
  EXPECT_TRUE(is_gone({410, "", "Expired"}));
  EXPECT_TRUE(is_temporary({503, "", ""}));
  EXPECT_TRUE(is_temporary({ECONNREFUSED, "", ""}));
  EXPECT_FALSE(is_temporary({422, "", "Invalid"}));
}

TEST(RollbackTest, UndoesLastFirstUnlessCommitted) {
  std::vector<int> undone;
  {
    Rollback undo;
    for (int i = 0; i < 3; i++) undo.push([&undone, i] { undone.push_back(i); });
  }
  EXPECT_EQ(undone, (std::vector{2, 1, 0}));
  {
    Rollback undo;
    undo.push([&] { undone.clear(); });
    undo.commit();
  }
  EXPECT_EQ(undone.size(), 3u);
  Rollback a;
  a.push([&] { undone.push_back(9); });
  Rollback b(std::move(a));
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): moved-from is empty by contract
  b.run();
  b.run();
  EXPECT_EQ(undone.size(), 4u);
}

TEST(RandomTest, UuidAndSuffixHaveTheirForm) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; i++) {
    auto u = uuid_v4();
    ASSERT_EQ(u.size(), 36u);
    EXPECT_EQ(u[14], '4');
    EXPECT_TRUE(std::string("89ab").contains(u[19])) << u;
    EXPECT_TRUE(seen.insert(u).second);
    auto s = name_suffix();
    ASSERT_EQ(s.size(), 5u);
    EXPECT_EQ(s.find_first_not_of("bcdfghjklmnpqrstvwxz2456789"), std::string::npos) << s;
    double d = random_unit();
    EXPECT_TRUE(d >= 0 && d < 1);
    auto j = with_jitter(std::chrono::seconds(1), 0.5);
    EXPECT_TRUE(j >= std::chrono::seconds(1) && j < std::chrono::milliseconds(1500));
  }
}

TEST(TimeTextTest, BothWays) {
  WallTime t(std::chrono::seconds(1767225600) + std::chrono::microseconds(123456));
  EXPECT_EQ(rfc3339(t), "2026-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339_micro(t), "2026-01-01T00:00:00.123456Z");
  EXPECT_EQ(parse_rfc3339(rfc3339_micro(t)), t);
  WallTime early(std::chrono::milliseconds(-1));
  EXPECT_EQ(rfc3339_micro(early), "1969-12-31T23:59:59.999000Z");
  EXPECT_EQ(parse_rfc3339(rfc3339_micro(early)), early);
  EXPECT_EQ(parse_rfc3339("2026-01-01T02:30:00+02:30"), WallTime(std::chrono::seconds(1767225600)));
  EXPECT_EQ(parse_rfc3339("2025-12-31T23:00:00.5-01:00"), WallTime(std::chrono::milliseconds(1767225600500)));
  EXPECT_EQ(parse_rfc3339("2024-02-29T00:00:00.123456789Z")->time_since_epoch().count() % 1000000000, 123456789);
  for (const char* bad :
       {"", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2025-02-29T00:00:00Z", "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z", "2026-01-01T00:00:00Zx", "2026-01-01T00:00:00.Z", "0001-01-01T00:00:00Z",
        "9999-01-01T00:00:00Z", "20x6-01-01T00:00:00Z", "2026-01-01T00:00:00+25:00"})
    EXPECT_FALSE(parse_rfc3339(bad)) << bad;
}

TEST(Base64Test, KnownPairsBothWays) {
  // RFC 4648 section 10.
  struct Case {
    const char* plain;
    const char* coded;
  };
  for (const auto& c : {Case{"", ""}, Case{"f", "Zg=="}, Case{"fo", "Zm8="}, Case{"foo", "Zm9v"},
                        Case{"foob", "Zm9vYg=="}, Case{"fooba", "Zm9vYmE="}, Case{"foobar", "Zm9vYmFy"}}) {
    EXPECT_EQ(base64_encode(c.plain), c.coded);
    EXPECT_EQ(base64_decode(c.coded), c.plain);
  }
  EXPECT_EQ(base64_decode("Zm9v\n YmFy\n"), "foobar");
  std::string all;
  for (int i = 0; i < 256; i++) all += static_cast<char>(i);
  EXPECT_EQ(base64_decode(base64_encode(all)), all);
  for (const char* bad : {"Z", "Zg", "Zg=", "Zg==Zg==x", "Z===", "====", "Zm9*", "=Zg="})
    EXPECT_FALSE(base64_decode(bad)) << bad;
}

TEST(MetricsTest, TextMatchesGolden) {
  metrics::Registry r;
  auto& errors = r.counter("hawser_errors_total", "Failed \"syncs\",\nby \\ stage.", {"stage", "kind"});
  errors.with({"apply", "quote\" slash\\ line\n"}).add();
  errors.with({"plan"}).add(2);
  r.gauge("hawser_peers", "Peers.").with().set(-1.5);
  auto& h = r.histogram("hawser_sync_seconds", "Sync time.", {0.1, 1, 10}, {"family"}).with({"ipv4"});
  for (double v : {0.05, 0.1, 0.5, 100.0}) h.observe(v);
  auto& collected = r.gauge("hawser_collected", "Read when asked.").with();
  r.on_collect([&] { collected.set(7); });
  testing::expect_golden("lib/base/testdata/metrics.txt", r.text());
  EXPECT_EQ(h.count(), 4u);
  EXPECT_EQ(metrics::exponential_buckets(1, 2, 4), (std::vector<double>{1, 2, 4, 8}));
}

TEST(MetricsTest, OneFamilyANameAndThreadsCountRight) {
  metrics::Registry r;
  auto& a = r.counter("n", "first");
  EXPECT_EQ(&a, &r.counter("n", "second"));
  // Another type under the name works, but does not spoil the text.
  r.gauge("n", "third").with().set(5);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; i++) r.counter("n", "").with().add();
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(r.text(), "# HELP n first\n# TYPE n counter\nn 4000\n");
}

TEST(MetricsTest, ProcessMetricsHaveValues) {
  metrics::Registry r;
  r.add_process_metrics();
  auto text = r.text();
  for (const char* name : {"process_resident_memory_bytes ", "process_open_fds ", "process_start_time_seconds "}) {
    auto at = text.find(std::string("\n") + name);
    ASSERT_NE(at, std::string::npos) << text;
    EXPECT_NE(text[at + 1 + std::string(name).size()], '0') << text;
  }
}

TEST(LogTest, LevelsFilter) {
  log::init("base_test", log::Level::kWarn);
  EXPECT_FALSE(log::enabled(log::Level::kInfo));
  EXPECT_TRUE(log::enabled(log::Level::kError));
  log::init("base_test", log::Level::kInfo);
}

}  // namespace
}  // namespace hawser
