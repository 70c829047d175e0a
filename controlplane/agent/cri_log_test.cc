// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/cri_log.h"

#include <fstream>

#include <gtest/gtest.h>

#include "controlplane/agent/fake_cri.h"
#include "controlplane/agent/log_rotation.h"
#include "lib/base/time_text.h"
#include "lib/testing/temp_dir.h"

namespace hawser::agent {
namespace {

std::string record(int second, const std::string& text, const char* tag = "F") {
  return fmt::format("2026-01-01T00:00:{:02}.000000001Z stdout {} {}\n", second, tag, text);
}
void append(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}
std::string read_all(LogReader& r) {
  std::string out;
  auto more = r.read([&](std::string_view s) {
    out += s;
    return true;
  });
  return more ? out : "error: " + more.error().text;
}

TEST(ParseLogLine, AcceptsAndRefuses) {
  const auto full = parse_log_line("2026-01-01T00:00:00.1Z stderr F hello world");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->stream, "stderr");
  EXPECT_EQ(full->text, "hello world");
  EXPECT_FALSE(full->partial);
  EXPECT_TRUE(parse_log_line("t stdout P:x:y part")->partial);
  EXPECT_EQ(parse_log_line("t stdout F ")->text, "");
  EXPECT_EQ(parse_log_line("t stdout F")->text, "");
  for (const char* bad : {"", " ", "t", "t stdout", "t stdin F x", "t stdout Q x", " stdout F x", "{\"log\": 1}"})
    EXPECT_FALSE(parse_log_line(bad)) << bad;
}

TEST(ParseLogLine, TakesAnyBytes) {
  std::uint32_t x = 1;
  for (int i = 0; i < 20000; ++i) {
    std::string line;
    for (int n = static_cast<int>((x = x * 1664525 + 1013904223) >> 27); n > 0; --n)
      line += "t stdoutFP:\0\n\xff "[(x = x * 1664525 + 1013904223) >> 28];
    const auto r = parse_log_line(line);
    EXPECT_TRUE(!r || r->text.size() <= line.size());
  }
}

TEST(LogReader, Options) {
  hawser::testing::TempDir dir;
  const auto path = dir.file("0.log");
  append(path + ".20260101-000000.000000", record(1, "one") + record(2, "two"));
  append(path, record(3, "thr", "P") + record(3, "ee") + record(4, "four"));
  struct Case {
    const char* name;
    LogOptions o;
    const char* want;
  };
  for (const auto& c : std::vector<Case>{
           {"all", {}, "one\ntwo\nthree\nfour\n"},
           {"tail in the newest file", {.tail_lines = 1}, "four\n"},
           {"tail over two files", {.tail_lines = 4}, "two\nthree\nfour\n"},
           {"tail 0", {.tail_lines = 0}, ""},
           {"more than there is", {.tail_lines = 100}, "one\ntwo\nthree\nfour\n"},
           {"since", {.since = *parse_rfc3339("2026-01-01T00:00:04Z")}, "four\n"},
           {"limit", {.limit_bytes = 6}, "one\ntw"},
           {"timestamps", {.timestamps = true, .tail_lines = 1}, "2026-01-01T00:00:04.000000001Z four\n"}}) {
    LogReader r(path, c.o);
    EXPECT_EQ(read_all(r), c.want) << c.name;
  }
  LogReader missing(dir.file("none.log"), {});
  EXPECT_TRUE(read_all(missing).starts_with("error: log file"));
}

TEST(LogReader, FollowsThroughRotationAndHalfLines) {
  hawser::testing::TempDir dir;
  const auto path = dir.file("0.log");
  append(path, record(1, "one"));
  LogReader r(path, {.follow = true, .tail_lines = 0});
  EXPECT_EQ(read_all(r), "");
  const auto two = record(2, "two");
  append(path, two.substr(0, 20));
  EXPECT_EQ(read_all(r), "");
  append(path, two.substr(20));
  EXPECT_EQ(read_all(r), "two\n");
  append(path, record(3, "three"));
  std::filesystem::rename(path, path + ".20260101-000000.000000");
  append(path, record(4, "four"));
  EXPECT_EQ(read_all(r), "three\nfour\n");
  EXPECT_TRUE(r.wait_for_more(std::chrono::milliseconds(1)));
}

TEST(LogTail, LastLinesWithinBytes) {
  hawser::testing::TempDir dir;
  append(dir.file("l"), record(1, "aaaa") + record(2, "bbbb"));
  EXPECT_EQ(log_tail(dir.file("l"), 1, 100), "bbbb\n");
  EXPECT_EQ(log_tail(dir.file("l"), 2, 7), "a\nbbbb\n");
  EXPECT_EQ(log_tail(dir.file("none"), 2, 6), "");
}

TEST(RotateLog, KeepsSoManyPieces) {
  hawser::testing::TempDir dir;
  FakeClock clock;
  FakeCri cri(clock);
  const auto path = dir.file("0.log");
  for (int i = 0; i < 5; ++i) {
    append(path, std::string(100, 'x'));
    clock.advance(std::chrono::seconds(1));
    EXPECT_TRUE(rotate_log(path, "c", cri, {.max_bytes = 100, .max_files = 3}, clock.wall()).value_or(false));
  }
  append(path, "new");
  EXPECT_EQ(log_pieces(path).size(), 4u) << "one more than the limit until the next rotation counts the new file";
  EXPECT_FALSE(rotate_log(path, "c", cri, {.max_bytes = 100, .max_files = 3}, clock.wall()).value_or(true));
  append(path, std::string(100, 'x'));
  cri.fail_next("reopen_log", "no");
  EXPECT_FALSE(rotate_log(path, "c", cri, {.max_bytes = 100, .max_files = 3}, clock.wall()));
  EXPECT_TRUE(std::filesystem::exists(path)) << "the name is given back";
}

}  // namespace
}  // namespace hawser::agent
