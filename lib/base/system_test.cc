// SPDX-License-Identifier: Apache-2.0
// The parts that talk to the kernel without privileges: files, locks, descriptors, signals, clocks and the bounded
// runner.
#include <atomic>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/bounded_runner.h"
#include "lib/base/listen_fds.h"
#include "lib/base/signals.h"
#include "lib/base/sysctl.h"
#include "lib/testing/fd_leak_check.h"
#include "lib/testing/temp_dir.h"

namespace hawser {
namespace {

using namespace std::chrono_literals;

TEST(FileTest, WritesWholeFilesOrNothing) {
  testing::FdLeakCheck leaks;
  testing::TempDir dir;
  auto path = dir.file("f");
  ASSERT_TRUE(write_file(path, "one", {.mode = 0600, .durable = true}));
  EXPECT_EQ(read_file(path), "one");
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(write_file_if_changed(path, "one"), false);
  EXPECT_EQ(write_file_if_changed(path, "two"), true);
  EXPECT_EQ(read_file(path), "two");

  // A folder in the way: rename fails, and the temporary file must not stay.
  std::filesystem::create_directories(dir.file("folder/full"));
  auto bad = write_file(dir.file("folder"), "x");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().text.find(dir.file("folder")), std::string::npos);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 2);

  EXPECT_TRUE(is_not_found(read_file(dir.file("absent")).error()));
  EXPECT_EQ(read_file(path, 2).error().code, EFBIG);
  EXPECT_TRUE(read_file("/proc/self/status")->contains("VmRSS"));
}

TEST(FileTest, MakesFolders) {
  testing::TempDir dir;
  auto deep = dir.file("a/b/c");
  ASSERT_TRUE(make_folders(deep));
  ASSERT_TRUE(make_folders(deep + "/"));
  EXPECT_TRUE(std::filesystem::is_directory(deep));
  ASSERT_TRUE(write_file(dir.file("file"), ""));
  EXPECT_FALSE(make_folders(dir.file("file")));
  EXPECT_FALSE(make_folders(dir.file("file/below")));
}

TEST(FileTest, LockExcludesOthersUntilGone) {
  testing::TempDir dir;
  auto path = dir.file("lock");
  {
    auto held = FileLock::acquire(path);
    ASSERT_TRUE(held);
    auto second = FileLock::try_acquire(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EWOULDBLOCK);
  }
  EXPECT_TRUE(FileLock::try_acquire(path));
}

TEST(UniqueFdTest, OwnsAndCloses) {
  testing::FdLeakCheck leaks;
  auto fd = UniqueFd::open("/dev/null", O_RDONLY).value();
  EXPECT_NE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  UniqueFd moved(std::move(fd));
  EXPECT_FALSE(fd);  // NOLINT(bugprone-use-after-move): moved-from is empty by contract
  int raw = moved.release();
  moved.reset(raw);
  EXPECT_FALSE(UniqueFd::open("/nowhere/x", O_RDONLY));
}

TEST(SysctlTest, ReadsAndRefusesPathTricks) {
  auto type = sysctl::read("kernel.ostype");
  ASSERT_TRUE(type) << type.error().text;
  EXPECT_EQ(*type, "Linux");
  EXPECT_EQ(sysctl::read("kernel/ostype"), "Linux");
  for (const char* key : {"", "/etc/passwd", "net/../../etc/passwd", "kernel.nothing_like_it"})
    EXPECT_FALSE(sysctl::read(key)) << key;
  EXPECT_EQ(sysctl::ensure("kernel.ostype", "Linux"), false);
}

// The environment and descriptors of this process are changed, so it happens in a child.
TEST(ListenFdsTest, TakesThePassedDescriptorsOnly) {
  testing::TempDir dir;
  auto child = [&](bool for_us) {
    pid_t pid = ::fork();
    if (pid == 0) {
      int a = ::open("/dev/null", O_RDONLY);
      ::dup2(a, 3);
      ::dup2(a, 4);
      ::setenv("LISTEN_PID", std::to_string(for_us ? ::getpid() : 1).c_str(), 1);
      ::setenv("LISTEN_FDS", "2", 1);
      ::setenv("LISTEN_FDNAMES", "https:metrics", 1);
      auto got = take_listen_fds();
      bool ok = ::getenv("LISTEN_FDS") == nullptr && got.size() == (for_us ? 2u : 0u);
      if (ok && for_us) {
        ok = got[0].fd.get() == 3 && got[0].name == "https" && got[1].name == "metrics" &&
             (::fcntl(4, F_GETFD) & FD_CLOEXEC) != 0;
      }
      ok = ok && take_listen_fds().empty();
      ::_exit(ok ? 0 : 1);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  EXPECT_TRUE(child(true));
  EXPECT_TRUE(child(false));
}

TEST(SignalsTest, WaitReturnsTheSignal) {
  pid_t pid = ::fork();
  if (pid == 0) {
    auto s = TerminationSignals::block();
    if (!s) ::_exit(1);
    auto none = s->wait_for(1ms);
    if (!none || none->has_value()) ::_exit(2);
    ::kill(::getpid(), SIGTERM);
    auto got = s->wait();
    ::_exit(got && *got == SIGTERM ? 0 : 3);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ClockTest, FakeClockWakesAtItsTimeOnly) {
  FakeClock clock;
  auto begin = clock.now();
  std::mutex mu;
  std::condition_variable cv;
  std::atomic<bool> woke = false;
  std::thread waiter([&] {
    std::unique_lock l(mu);
    clock.wait_until(l, cv, begin + 10s, [] { return false; });
    EXPECT_GE(clock.now(), begin + 10s);
    woke = true;
  });
  clock.advance(9s);
  EXPECT_FALSE(woke);
  clock.advance(1s);
  waiter.join();
  EXPECT_EQ(clock.wall(), FakeClock().wall() + 10s);
}

// Counts runs and lets the test wait for one.
struct Work {
  explicit Work(const BoundedRunnerOptions& o)
      : runner(
            o, [this] { return run(); }, clock) {}
  ~Work() { runner.stop(); }
  Result<> run() {
    std::unique_lock l(mu);
    runs++;
    at = clock.now();
    cv.notify_all();
    cv.wait(l, [&] { return !hold; });
    if (failing) return fail(EIO, "no");
    return {};
  }
  // Waits for run number n; the time it began.
  MonoTime wait(int n) {
    std::unique_lock l(mu);
    EXPECT_TRUE(cv.wait_for(l, 20s, [&] { return runs >= n; })) << "run " << n;
    return at;
  }
  int count() {
    std::lock_guard l(mu);
    return runs;
  }
  void set(bool* flag, bool value) {
    std::lock_guard l(mu);
    *flag = value;
    cv.notify_all();
  }
  // Moves the clock on in small steps until run n has begun; the time it began.
  MonoTime advance_to(int n, Nanos step, Nanos limit) {
    for (Nanos moved{0}; moved < limit && count() < n; moved += step) {
      clock.advance(step);
      // The runner needs real time to notice; a run that never comes is caught by the limit.
      std::unique_lock l(mu);
      cv.wait_for(l, 5ms, [&] { return runs >= n; });
    }
    return wait(n);
  }
  FakeClock clock;
  std::mutex mu;
  std::condition_variable cv;
  int runs = 0;          // guarded by mu
  MonoTime at{};         // guarded by mu
  bool hold = false;     // guarded by mu
  bool failing = false;  // guarded by mu
  BoundedRunner runner;
};

TEST(BoundedRunnerTest, FirstRequestRunsAtOnceAndTheNextKeepsTheDistance) {
  Work w({.min_interval = 10s, .retry_interval = 60s, .max_interval = 1h});
  w.runner.start();
  w.runner.run();
  auto first = w.wait(1);
  w.runner.run();
  w.runner.run();
  auto second = w.advance_to(2, 1s, 60s);
  EXPECT_GE(second - first, 10s);
  EXPECT_LE(second - first, 15s);
  w.clock.advance(20s);
  EXPECT_EQ(w.count(), 2) << "folded requests must give one run";
}

TEST(BoundedRunnerTest, RequestDuringARunIsNotLost) {
  Work w({.min_interval = 0s, .max_interval = 1h});
  w.set(&w.hold, true);
  w.runner.start();
  w.runner.run();
  w.wait(1);
  w.runner.run();
  w.set(&w.hold, false);
  w.wait(2);
}

TEST(BoundedRunnerTest, FailureIsRetried) {
  Work w({.min_interval = 1s, .retry_interval = 30s, .max_interval = 1h});
  w.set(&w.failing, true);
  w.runner.start();
  w.runner.run();
  auto first = w.wait(1);
  auto second = w.advance_to(2, 1s, 120s);
  EXPECT_GE(second - first, 30s);
  EXPECT_LE(second - first, 35s);
}

TEST(BoundedRunnerTest, RunsByItselfAfterTheMaximum) {
  Work w({.min_interval = 1s, .retry_interval = 30s, .max_interval = 100s});
  auto begin = w.clock.now();
  w.runner.start();
  auto first = w.advance_to(1, 5s, 300s);
  EXPECT_GE(first - begin, 100s);
  EXPECT_LE(first - begin, 120s);
}

TEST(BoundedRunnerTest, StopsWhileWaiting) {
  Work w({.min_interval = 1h});
  w.runner.start();
  w.runner.run();
  w.wait(1);
  w.runner.run();
  w.runner.stop();
  EXPECT_EQ(w.count(), 1);
}

}  // namespace
}  // namespace hawser
