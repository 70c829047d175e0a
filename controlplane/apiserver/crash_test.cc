// SPDX-License-Identifier: Apache-2.0
// Kill -9 of an API server that creates and deletes Services as fast as it can, again and again on one store. The
// server is this program itself (--server DIR), which names each acknowledged Service on a pipe. After each kill the
// next server must find every acknowledged Service, and allocations that agree with the Services exactly: nothing held
// twice, lost or leaked.
#include <csignal>
#include <cstdio>
#include <random>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/apiserver/registry_fixture.h"
#include "lib/base/unique_fd.h"
#include "lib/testing/temp_dir.h"

namespace hawser::apiserver {
namespace {

constexpr int kRounds = 15;
constexpr int kThreads = 3;

std::unique_ptr<store::Store> open_store(const std::string& dir) {
  auto s = store::open_sqlite({.path = dir + "/store.db"});
  EXPECT_TRUE(s) << s.error().text;
  return s ? std::move(*s) : nullptr;
}

void ensure_default(Registry& r) {
  Object o = parse(R"({"metadata":{"name":"default"}})");
  (void)r.create(kind("namespaces"), "", o, {});
}

// Never returns.
[[noreturn]] void serve(const std::string& dir, int out, int round) {
  auto s = open_store(dir);
  RegistryParts parts(*s);
  ensure_default(parts.registry);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int n = 0;; ++n) {
        auto name = fmt::format("s{}-{}-{}", round, t, n);
        Object o = parse(R"({"spec":{"type":"NodePort","ports":[{"port":80}]}})");
        o["metadata"] = Object{{"name", name}};
        auto made = parts.registry.create(kind("services"), "default", o, {});
        if (!made) continue;
        // Whole lines only: a pipe write this short is atomic.
        auto line = name + "\n";
        if (n % 8 == 0) {
          (void)!::write(out, line.data(), line.size());
        } else {
          (void)parts.registry.remove(kind("services"), {"default", name}, {});
        }
      }
    });
  }
  for (;;) ::pause();
}

std::set<std::string> read_lines(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  std::set<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    auto end = text.find('\n', at);
    lines.insert(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// Runs one server for a while and kills it; the Services it acknowledged.
std::set<std::string> run_and_kill(const std::string& dir, int round) {
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  auto self = std::string("/proc/self/exe");
  auto fd_text = std::to_string(::dup(out.get()));  // inherited by the child
  auto round_text = std::to_string(round);
  pid_t child = ::fork();
  if (child == 0) {
    ::execl(self.c_str(), self.c_str(), "--server", dir.c_str(), fd_text.c_str(), round_text.c_str(), nullptr);
    ::_exit(127);
  }
  UniqueFd inherited(std::stoi(fd_text));
  out.reset();
  inherited.reset();
  // The first acknowledgement says that it is at work; then it gets a random while.
  std::set<std::string> acknowledged;
  std::string first;
  for (char c = 0; c != '\n' && ::read(in.get(), &c, 1) == 1;) first += c;
  if (!first.empty()) acknowledged.insert(first.substr(0, first.size() - 1));
  std::mt19937 random(static_cast<unsigned>(round));
  timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(random() % 120'000'000)};
  ::nanosleep(&pause, nullptr);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  acknowledged.merge(read_lines(in.get()));
  return acknowledged;
}

TEST(ServiceCrash, AllocationsAgreeAfterEveryKill) {
  hawser::testing::TempDir dir;
  for (int round = 0; round < kRounds; ++round) {
    auto acknowledged = run_and_kill(dir.path(), round);
    EXPECT_FALSE(acknowledged.empty()) << "round " << round;
    auto s = open_store(dir.path());
    ASSERT_TRUE(s);
    RegistryParts parts(*s);
    auto services = parts.cache.of(kind("services")).list({}, 0);
    std::set<std::string> names;
    std::multiset<std::string> wanted;
    for (auto& e : services.items) {
      names.emplace(kube::name(*e->object));
      for (auto& key : ServiceAllocator::keys_of(*e->object)) wanted.insert(key);
    }
    for (auto& name : acknowledged) EXPECT_TRUE(names.contains(name)) << name;
    std::multiset<std::string> held;
    auto got = s->range({.key = "/allocator/", .end = store::prefix_end("/allocator/")});
    ASSERT_TRUE(got);
    for (auto& kv : got->kvs) held.insert(kv.key);
    EXPECT_EQ(held, wanted) << "round " << round;
    EXPECT_EQ(parts.allocator.repair(*s, services.items).value(), 0);
    // Room for the next round.
    for (auto& name : names) EXPECT_TRUE(parts.registry.remove(kind("services"), {"default", name}, {}));
  }
}

}  // namespace
}  // namespace hawser::apiserver

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "--server") {
    hawser::apiserver::serve(argv[2], std::stoi(argv[3]), std::stoi(argv[4]));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
