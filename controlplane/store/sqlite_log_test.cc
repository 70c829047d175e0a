// SPDX-License-Identifier: Apache-2.0
// What only the SQLite store can get wrong: its file. Wrong files, second openers, full disks, growth.
#include "controlplane/store/sqlite_log.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/store/collector.h"
#include "controlplane/store/temp_dir.h"

namespace hawser::store {
namespace {

const std::string kAll(1, '\0');

Result<TxnReply> put(Store& s, const std::string& key, const std::string& value) {
  return s.txn({.success = {{.key = key, .value = value}}});
}

Error open_error(const std::string& path) {
  auto s = open_sqlite({.path = path});
  EXPECT_FALSE(s) << "opened";
  return s ? Error{} : s.error();
}

void run_sql(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
}

void fill(const std::string& path, int keys) {
  auto s = open_sqlite({.path = path});
  ASSERT_TRUE(s) << s.error().text;
  for (int i = 0; i < keys; ++i) ASSERT_TRUE(put(**s, fmt::format("key{}", i), std::string(2000, 'v')));
}

TEST(SqliteFile, EveryStatementIsValid) {
  TempDir dir;
  fill(dir.file("db"), 1);
  SqliteConnection c;
  ASSERT_TRUE(c.open(dir.file("db")));
  for (const auto& s : kStatements) {
    auto row = c.query(s.name).step();  // parameters unbound: null, which at most violates NOT NULL
    if (!row) {
      EXPECT_EQ(row.error().text.find("syntax"), std::string::npos) << s.text << ": " << row.error().text;
    }
    c.rollback();
  }
}

TEST(SqliteFile, IsForItsOwnerOnly) {
  TempDir dir;
  auto s = open_sqlite({.path = dir.file("db")});
  ASSERT_TRUE(s);
  ASSERT_TRUE(put(**s, "a", "secret"));
  for (const char* name : {"db", "db-wal", "db-shm", "db.lock"}) {
    struct stat st {};
    ASSERT_EQ(::stat(dir.file(name).c_str(), &st), 0) << name;
    EXPECT_EQ(st.st_mode & 0777, 0600u) << name;
  }
}

TEST(SqliteFile, FolderMustExist) {
  TempDir dir;
  const Error e = open_error(dir.file("no/such/store.db"));
  EXPECT_EQ(e.code, ENOENT);
  EXPECT_NE(e.text.find("no/such/store.db"), std::string::npos) << e.text;
}

TEST(SqliteFile, SecondOpenerIsRefusedUntilTheFirstIsGone) {
  TempDir dir;
  auto first = open_sqlite({.path = dir.file("db")});
  ASSERT_TRUE(first);
  ASSERT_TRUE(put(**first, "a", "1"));
  const Error e = open_error(dir.file("db"));
  EXPECT_EQ(e.code, EBUSY);
  EXPECT_NE(e.text.find(fmt::format("in use by another process (pid {})", ::getpid())), std::string::npos) << e.text;
  ASSERT_TRUE(put(**first, "a", "2")) << "the refused one did no harm";
  first->reset();
  EXPECT_TRUE(open_sqlite({.path = dir.file("db")}));
}

TEST(SqliteFile, AnotherProgramsDatabaseIsNotTouched) {
  TempDir dir;
  run_sql(dir.file("db"), "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
  const auto before = std::filesystem::file_size(dir.file("db"));
  const Error e = open_error(dir.file("db"));
  EXPECT_EQ(e.code, EBADMSG);
  EXPECT_NE(e.text.find("another program"), std::string::npos) << e.text;
  EXPECT_EQ(std::filesystem::file_size(dir.file("db")), before);
}

TEST(SqliteFile, NoDatabaseAtAll) {
  TempDir dir;
  std::ofstream(dir.file("db")) << std::string(5000, 'x');
  const Error e = open_error(dir.file("db"));
  EXPECT_EQ(e.code, EBADMSG);
  EXPECT_NE(e.text.find("not a database"), std::string::npos) << e.text;
}

TEST(SqliteFile, NewerFormat) {
  TempDir dir;
  fill(dir.file("db"), 1);
  run_sql(dir.file("db"), "PRAGMA user_version=99");
  const Error e = open_error(dir.file("db"));
  EXPECT_EQ(e.code, ENOTSUP);
  EXPECT_NE(e.text.find("format version 99"), std::string::npos) << e.text;
}

TEST(SqliteFile, DamagedPagesAreFoundAtOpen) {
  TempDir dir;
  fill(dir.file("db"), 50);
  {
    std::fstream f(dir.file("db"), std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(std::filesystem::file_size(dir.file("db")) / 2));
    f << std::string(20'000, '\x5a');
  }
  const Error e = open_error(dir.file("db"));
  EXPECT_EQ(e.code, EBADMSG) << e.text;
  EXPECT_NE(e.text.find("damaged"), std::string::npos) << e.text;
}

TEST(SqliteFile, TruncatedFileIsFoundAtOpen) {
  TempDir dir;
  fill(dir.file("db"), 50);
  std::filesystem::resize_file(dir.file("db"), 3 * 4096);
  EXPECT_EQ(open_error(dir.file("db")).code, EBADMSG);
}

// Overwriting a few keys for long must not make the file grow: compaction frees pages, they are used again, and a file
// that was once large becomes small.
TEST(SqliteFile, CompactionBoundsTheFile) {
  TempDir dir;
  auto opened = open_sqlite({.path = dir.file("db")});
  ASSERT_TRUE(opened);
  Store& s = **opened;
  const std::string value(2000, 'v');
  auto total = [&] {
    return std::filesystem::file_size(dir.file("db")) + std::filesystem::file_size(dir.file("db-wal"));
  };
  for (int i = 0; i < 4000; ++i) ASSERT_TRUE(put(s, fmt::format("k{}", i % 10), value));
  const auto grown = total();
  EXPECT_GT(grown, 4000u * 2000u);
  ASSERT_TRUE(s.compact(s.revision()));
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(put(s, fmt::format("k{}", i % 10), value));
    if (i % 250 == 0) {
      ASSERT_TRUE(s.compact(s.revision()));
    }
  }
  ASSERT_TRUE(s.compact(s.revision()));
  opened->reset();  // the last connection moves the write-ahead log into the file
  EXPECT_LT(std::filesystem::file_size(dir.file("db")), grown / 3);
  auto again = open_sqlite({.path = dir.file("db")});
  ASSERT_TRUE(again) << again.error().text;
  EXPECT_EQ((*again)->range({.key = "", .end = kAll})->count, 10);
}

// A sweep goes in chunks; what a kill leaves between two chunks is finished by the next start.
TEST(SqliteFile, InterruptedSweepIsFinishedAfterReopen) {
  TempDir dir;
  {
    auto s = open_sqlite({.path = dir.file("db")});
    ASSERT_TRUE(s);
    for (int i = 0; i < 1500; ++i) ASSERT_TRUE(put(**s, fmt::format("k{}", i % 3), "v"));
  }
  // As after a kill just behind the first step of compact(1400).
  run_sql(dir.file("db"), "UPDATE meta SET value = 1400 WHERE name = 'compacted'");
  FakeClock clock;
  auto open = SqliteLog::open(dir.file("db"));
  ASSERT_TRUE(open);
  EXPECT_EQ(open->state.compacted, 1400);
  int steps = 0;
  while (*open->log->maintain()) ++steps;
  EXPECT_GE(steps, 3);
  auto history = open->log->history({.span = KeySpan::of("", kAll), .from = 1400, .to = 1501, .max_events = 5000});
  ASSERT_TRUE(history);
  EXPECT_EQ(history->events.size(), 102u);
  open->log.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(dir.file("db").c_str(), &db), SQLITE_OK);
  sqlite3_stmt* q = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(db, "SELECT count(*) FROM history", -1, &q, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_step(q), SQLITE_ROW);
  EXPECT_EQ(sqlite3_column_int(q, 0), 104) << "revisions 1400..1501, and the newest below of the two keys not at 1400";
  sqlite3_finalize(q);
  sqlite3_close(db);
}

// Runs `body` in a child with its own mount namespace and a tmpfs of `bytes` at `at`. Returns its failure text, "" for
// success, or nothing if mounting is not permitted.
std::optional<std::string> on_small_disk(const std::string& at, int bytes, const std::function<std::string()>& body) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return "pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    std::string text;
    const std::string options = fmt::format("size={}", bytes);
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", at.c_str(), "tmpfs", 0, options.c_str()) != 0) {
      text = "!";
    } else {
      text = body();
    }
    (void)!::write(fds[1], text.data(), text.size());
    ::_exit(0);
  }
  UniqueFd in(fds[0]);
  UniqueFd(fds[1]).reset();
  std::string text;
  char buffer[512];
  while (true) {
    const auto n = ::read(in.get(), buffer, sizeof(buffer));
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (text == "!") return std::nullopt;
  if (text.empty() && status != 0) return fmt::format("the child ended with status {}", status);
  return text;
}

// In a child: no gtest assertions, the first thing wrong is returned as text.
std::string use_full_disk(const std::string& folder) {
  const std::string path = folder + "/store.db";
  const std::string value(20'000, 'v');
  int written = 0;
  {
    auto opened = open_sqlite({.path = path});
    if (!opened) return "open: " + opened.error().text;
    Store& s = **opened;
    Collector c;
    auto w = s.watch("", kAll, 2, c.fn());
    Error full;
    for (int i = 0; i < 10'000 && full.code == 0; ++i) {
      // Two keys a transaction: a half would show.
      auto r =
          s.txn({.success = {{.key = fmt::format("a{:05}", i), .value = value}, {.key = fmt::format("b{:05}", i)}}});
      if (!r) {
        full = r.error();
      } else {
        ++written;
      }
    }
    if (full.code != ENOSPC) return fmt::format("wanted ENOSPC, got {} {}", full.code, full.text);
    if (full.text.find(path) == std::string::npos || full.text.find("no space left") == std::string::npos) {
      return "unclear: " + full.text;
    }
    for (int i = 0; i < 20; ++i) {
      if (auto r = put(s, "more", value); r || r.error().code != ENOSPC)
        return "a write on the full disk did not fail as such";
    }
    auto all = s.range({.key = "", .end = kAll, .keys_only = true});
    if (!all) return "range on the full disk: " + all.error().text;
    if (all->count != 2 * written || all->revision != 1 + written) return "half a transaction is visible";
    auto read =
        s.txn({.compare = {{.key = "a00000", .number = 2}}, .success = {{.type = Op::Type::kGet, .key = "a00000"}}});
    if (!read || !read->succeeded || read->got.size() != 1) return "a transaction that only reads failed";
    if (std::ssize(c.until(1 + written)) != 2 * written) return "wrong events";
    if (::mount(nullptr, folder.c_str(), nullptr, MS_REMOUNT, "size=64m") != 0) return "cannot enlarge the disk";
    auto again = put(s, "more", value);
    if (!again) return "no recovery: " + again.error().text;
    if (again->revision != 2 + written) return "failed writes took revisions";
  }
  auto reopened = open_sqlite({.path = path});
  if (!reopened) return "reopen: " + reopened.error().text;
  if ((*reopened)->range({.key = "", .end = kAll, .count_only = true})->count != 2 * written + 1)
    return "lost after reopen";
  return "";
}

TEST(SqliteFile, FullDiskFailsWritesCleanlyAndRecovers) {
  for (const int bytes : {1 << 20, 6 << 20}) {  // full in the write-ahead log, and in a checkpoint
    TempDir dir;
    auto failure = on_small_disk(dir.path(), bytes, [&] { return use_full_disk(dir.path()); });
    if (!failure) GTEST_SKIP() << "needs permission to mount a tmpfs in a mount namespace of its own";
    EXPECT_EQ(*failure, "") << bytes;
  }
}

TEST(SqliteFile, FullDiskAtOpenSaysSo) {
  TempDir dir;
  auto failure = on_small_disk(dir.path(), 8192, [&]() -> std::string {
    auto s = open_sqlite({.path = dir.file("store.db")});
    if (s) return "opened on a disk of 8 KiB";
    if (s.error().code != ENOSPC || s.error().text.find("store.db") == std::string::npos)
      return "got: " + s.error().text;
    return "";
  });
  if (!failure) GTEST_SKIP() << "needs permission to mount a tmpfs in a mount namespace of its own";
  EXPECT_EQ(*failure, "");
}

}  // namespace
}  // namespace hawser::store
