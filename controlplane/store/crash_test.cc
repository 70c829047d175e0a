// SPDX-License-Identifier: Apache-2.0
// Kill -9 of a writing process at random moments, again and again on one file. The writer is this program itself
// (--writer) and reports on a pipe, one line each: what it is about to write, what was acknowledged, what its watch was
// told, how far it compacted. After each kill the file is opened and must hold every acknowledged write and every event
// that was told, nothing that nobody issued, no half of a two-key transaction, and no gap in the revisions.
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/store/collector.h"
#include "controlplane/store/temp_dir.h"
#include "lib/base/unique_fd.h"

namespace hawser::store {
namespace {

constexpr int kRounds = 60;
constexpr int kThreads = 4;
constexpr int kKeysEach = 6;
const std::string kAll(1, '\0');

// ---- the writer ----

class Writer {
 public:
  Writer(Store& s, int out, unsigned round) : store_(s), out_(out), round_(round) {}

  void run() {
    auto watch = store_.watch("", kAll, 0, [this](const EventBatch& b) {
      for (const auto& e : b.events) {
        const bool put = e.type == Event::Type::kPut;
        tell(fmt::format("event {} {} {}", e.kv.mod_revision, e.kv.key, put ? value_head(e.kv.value) : "-"));
      }
    });
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) threads.emplace_back([this, t] { write_for_ever(t); });
    for (auto& t : threads) t.join();
  }

  // Values are padded to span pages now and then; their first word is their identity.
  static std::string value_head(const std::string& v) { return v.substr(0, v.find(' ')); }

 private:
  // At most PIPE_BUF bytes: one whole line or none, whenever the kill comes.
  void tell(const std::string& line) {
    const std::string text = line + "\n";
    (void)!::write(out_, text.data(), text.size());
  }

  void write_for_ever(int thread) {
    std::mt19937 random(round_ * 100 + static_cast<unsigned>(thread));
    for (int n = 0;; ++n) {
      const std::string id = fmt::format("{}.{}.{}", round_, thread, n);
      const std::string key = fmt::format("t{}/k{}", thread, random() % kKeysEach);
      const std::string value = id + " " + std::string(random() % 8 == 0 ? 9000 : random() % 500, 'x');
      Txn t;
      switch (random() % 4) {
        case 0:
          t.success = {{.type = Op::Type::kDelete, .key = key}};
          tell(fmt::format("delete {} {}", id, key));
          break;
        case 1:
          t.success = {{.key = key, .value = value}, {.key = key + "-twin", .value = value}};
          tell(fmt::format("twin {} {}", id, key));
          break;
        default:
          t.success = {{.key = key, .value = value}};
          tell(fmt::format("put {} {}", id, key));
      }
      auto r = store_.txn(t);
      if (!r) return tell("error " + r.error().text);
      const bool nothing = t.success[0].type == Op::Type::kDelete && r->previous.empty();
      if (!nothing) tell(fmt::format("ack {} {}", id, r->revision));
      if (thread == 0 && n % 40 == 39) {
        const Revision to = store_.revision() - 150;
        if (to > store_.compacted() && store_.compact(to)) tell(fmt::format("compacted {}", to));
      }
    }
  }

  Store& store_;
  const int out_;
  const unsigned round_;
};

int writer_main(const std::string& path, int out, unsigned round) {
  auto s = open_sqlite({.path = path});
  if (!s) {
    fmt::print(stderr, "writer: {}\n", s.error().text);
    return 1;
  }
  Writer(**s, out, round).run();
  return 0;
}

// ---- the judge ----

struct Written {
  Revision revision = 0;
  std::string id;  // "-": deleted
  bool operator==(const Written&) const = default;
};

class Judge {
 public:
  void read_line(const std::string& line) {
    std::istringstream in(line);
    std::string word, id, key;
    Revision revision = 0;
    in >> word;
    if (word == "put" || word == "twin" || word == "delete") {
      in >> id >> key;
      issued_[id] = {word, key};
      if (word == "delete") deletes_.insert(key);
    } else if (word == "ack") {
      in >> id >> revision;
      ++acks;
      const auto& [what, k] = issued_.at(id);
      note(k, revision, what == "delete" ? "-" : id);
      if (what == "twin") note(k + "-twin", revision, id);
    } else if (word == "event") {
      in >> revision >> key >> id;
      note(key, revision, id);
    } else if (word == "compacted") {
      in >> revision;
      compacted_ = std::max(compacted_, revision);
    } else {
      ADD_FAILURE() << "writer: " << line;
    }
  }

  void judge(Store& s) {
    EXPECT_GE(s.revision(), newest_) << "an acknowledged or told revision is lost";
    EXPECT_GE(s.compacted(), compacted_);
    Collector c;
    const Revision from = std::max<Revision>(1, s.compacted());
    auto w = s.watch("", kAll, from, c.fn());
    ASSERT_TRUE(w);
    judge_history(s.revision() >= from && s.revision() > 1 ? c.until(s.revision()) : std::vector<Event>{}, from,
                  s.revision());
    judge_present(s);
  }

  int acks = 0;

 private:
  void note(const std::string& key, Revision revision, const std::string& id) {
    promised_[{revision, key}] = id;
    newest_ = std::max(newest_, revision);
    if (revision >= latest_[key].revision) latest_[key] = {revision, id};
  }

  void judge_history(const std::vector<Event>& events, Revision from, Revision to) {
    std::map<std::pair<Revision, std::string>, std::string> found;
    std::map<std::string, std::set<Revision>> revisions_of;
    std::set<Revision> revisions;
    for (const auto& e : events) {
      const bool put = e.type == Event::Type::kPut;
      const std::string id = put ? Writer::value_head(e.kv.value) : "-";
      EXPECT_TRUE(found.emplace(std::pair(e.kv.mod_revision, e.kv.key), id).second) << "told twice";
      revisions.insert(e.kv.mod_revision);
      if (!put) {
        EXPECT_TRUE(deletes_.contains(e.kv.key)) << "phantom deletion of " << e.kv.key;
        continue;
      }
      auto issued = issued_.find(id);
      ASSERT_NE(issued, issued_.end()) << "phantom event " << e.kv.key << " " << id;
      EXPECT_TRUE(e.kv.key == issued->second.second || e.kv.key == issued->second.second + "-twin");
      revisions_of[id].insert(e.kv.mod_revision);
      if (issued->second.first == "twin") twins_[id].insert(e.kv.key);
    }
    for (auto& [id, r] : revisions_of) EXPECT_EQ(r.size(), 1u) << id << " was applied twice";
    for (auto& [id, keys] : twins_) EXPECT_EQ(keys.size(), 2u) << "half of " << id;
    for (Revision r = std::max<Revision>(from + 1, 2); r <= to; ++r)
      EXPECT_TRUE(revisions.contains(r)) << "gap at " << r;
    for (auto it = promised_.lower_bound({from, ""}); it != promised_.end(); ++it) {
      auto here = found.find(it->first);
      ASSERT_NE(here, found.end()) << "lost: " << it->first.second << " at " << it->first.first << " " << it->second;
      EXPECT_EQ(here->second, it->second);
    }
    // What was in flight at the kill and made it counts from now on.
    for (auto& [at, id] : found) note(at.second, at.first, id);
    promised_.erase(promised_.begin(), promised_.lower_bound({from, ""}));
    twins_.clear();
  }

  void judge_present(Store& s) {
    auto r = s.range({.key = "", .end = kAll});
    ASSERT_TRUE(r) << r.error().text;
    std::map<std::string, Written> present;
    for (auto& kv : r->kvs) present[kv.key] = {kv.mod_revision, Writer::value_head(kv.value)};
    std::map<std::string, Written> wanted;
    for (auto& [key, w] : latest_) {
      if (w.id != "-") wanted[key] = w;
    }
    EXPECT_EQ(present.size(), wanted.size());
    for (auto& [key, w] : wanted) EXPECT_EQ(present[key], w) << key << ": want revision " << w.revision << " " << w.id;
  }

  std::map<std::string, std::pair<std::string, std::string>> issued_;  // id -> what, key
  std::set<std::string> deletes_;
  std::map<std::pair<Revision, std::string>, std::string> promised_;  // acknowledged or told
  std::map<std::string, Written> latest_;
  std::map<std::string, std::set<std::string>> twins_;
  Revision newest_ = 0;
  Revision compacted_ = 0;
};

struct Child {
  pid_t pid = -1;
  UniqueFd out;
};

Child start_writer(const std::string& path, int round) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return {};
  Child c{.pid = ::fork(), .out = UniqueFd(fds[0])};
  UniqueFd write_end(fds[1]);
  if (c.pid != 0) return c;
  ::fcntl(write_end.get(), F_SETFD, 0);
  const std::string fd = std::to_string(write_end.get());
  const std::string n = std::to_string(round);
  ::execl("/proc/self/exe", "store_crash_test", "--writer", path.c_str(), fd.c_str(), n.c_str(), nullptr);
  ::_exit(127);
}

// Hands the writer's lines to the judge: until `deadline` after its first acknowledgement, or to the end.
class LineReader {
 public:
  LineReader(int fd, Judge& j) : fd_(fd), judge_(j) {}
  void until(std::chrono::microseconds after_first_ack) {
    const int before = judge_.acks;
    while (judge_.acks == before && read_some(-1)) {
    }
    const MonoTime end = system_clock().now() + after_first_ack;
    while (true) {
      const auto left = end - system_clock().now();
      if (left.count() <= 0 || !read_some(left.count())) return;
    }
  }
  void to_end() {
    while (read_some(-1)) {
    }
  }

 private:
  bool read_some(std::int64_t timeout_ns) {
    pollfd p{.fd = fd_, .events = POLLIN, .revents = 0};
    const timespec wait{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
    if (::ppoll(&p, 1, timeout_ns < 0 ? nullptr : &wait, nullptr) == 0) return true;
    char buffer[65536];
    const auto n = ::read(fd_, buffer, sizeof(buffer));
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<std::size_t>(n));
    std::size_t start = 0;
    for (auto at = pending_.find('\n'); at != std::string::npos; at = pending_.find('\n', start)) {
      judge_.read_line(pending_.substr(start, at - start));
      start = at + 1;
    }
    pending_.erase(0, start);
    return true;
  }
  int fd_;
  Judge& judge_;
  std::string pending_;
};

TEST(Crash, NoAcknowledgedWriteIsLostByKill) {
  TempDir dir;
  const std::string path = dir.file("store.db");
  std::mt19937 random(std::random_device{}());
  Judge judge;
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    Child child = start_writer(path, round);
    ASSERT_GT(child.pid, 0);
    LineReader reader(child.out.get(), judge);
    reader.until(std::chrono::microseconds(random() % 60'000));
    ASSERT_EQ(::kill(child.pid, SIGKILL), 0);
    reader.to_end();
    int status = 0;
    ::waitpid(child.pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the writer ended by itself, status " << status;
    auto s = open_sqlite({.path = path});
    ASSERT_TRUE(s) << s.error().text;
    judge.judge(**s);
  }
  EXPECT_GE(judge.acks, kRounds);
  fmt::print("{} kills, {} acknowledged writes\n", kRounds, judge.acks);
}

// The writer being alive holds the file; its death, however sudden, releases it.
TEST(Crash, TheFileIsLockedByTheLivingOnly) {
  TempDir dir;
  Judge judge;
  Child child = start_writer(dir.file("store.db"), 0);
  ASSERT_GT(child.pid, 0);
  LineReader reader(child.out.get(), judge);
  reader.until(std::chrono::microseconds(0));
  auto refused = open_sqlite({.path = dir.file("store.db")});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  EXPECT_NE(refused.error().text.find(fmt::format("pid {}", child.pid)), std::string::npos) << refused.error().text;
  ::kill(child.pid, SIGKILL);
  reader.to_end();
  ::waitpid(child.pid, nullptr, 0);
  EXPECT_TRUE(open_sqlite({.path = dir.file("store.db")}));
}

}  // namespace
}  // namespace hawser::store

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "--writer") {
    return hawser::store::writer_main(argv[2], std::stoi(argv[3]), static_cast<unsigned>(std::stoi(argv[4])));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
