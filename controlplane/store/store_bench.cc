// SPDX-License-Identifier: Apache-2.0
// Measures the SQLite store in a folder given as argument: one writer's latency, 64 writers' throughput, list and file
// and memory with 10,000 keys of 2 KiB. Prints one line each; not a test.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include "controlplane/store/store.h"
#include "lib/base/clock.h"

namespace hawser::store {
namespace {

double resident_mib() {
  std::ifstream in("/proc/self/statm");
  long total = 0, resident = 0;
  in >> total >> resident;
  return static_cast<double>(resident * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

double ms_since(MonoTime t) {
  return std::chrono::duration<double, std::milli>(system_clock().now() - t).count();
}

bool put(Store& s, const std::string& key, std::size_t bytes) {
  auto r = s.txn({.success = {{.key = key, .value = std::string(bytes, 'v')}}});
  if (!r) fmt::print(stderr, "{}\n", r.error().text);
  return r.has_value();
}

void one_writer(Store& s) {
  std::vector<double> ms;
  for (int i = 0; i < 1000; ++i) {
    const auto t = system_clock().now();
    if (!put(s, fmt::format("one/{}", i % 100), 1024)) return;
    ms.push_back(ms_since(t));
  }
  std::ranges::sort(ms);
  fmt::print("one writer, 1 KiB: median {:.2f} ms, p99 {:.2f} ms, max {:.2f} ms\n", ms[500], ms[990], ms[999]);
}

void many_writers(Store& s) {
  constexpr int kThreads = 64;
  constexpr int kEach = 300;
  std::vector<std::thread> threads;
  const auto t = system_clock().now();
  for (int n = 0; n < kThreads; ++n) {
    threads.emplace_back([&s, n] {
      for (int i = 0; i < kEach; ++i) put(s, fmt::format("many/{}/{}", n, i % 10), 1024);
    });
  }
  for (auto& x : threads) x.join();
  fmt::print("{} writers, 1 KiB: {:.0f} txn/s\n", kThreads, kThreads * kEach / ms_since(t) * 1000);
}

void many_keys(Store& s) {
  const double before = resident_mib();
  for (int i = 0; i < 10'000; i += 50) {
    Txn t;
    for (int k = i; k < i + 50; ++k)
      t.success.push_back({.key = fmt::format("keys/{:05}", k), .value = std::string(2048, 'v')});
    if (!s.txn(t)) return;
  }
  ::malloc_trim(0);
  fmt::print("10,000 keys of 2 KiB: resident {:.1f} MiB, before {:.1f}\n", resident_mib(), before);
  const auto t = system_clock().now();
  auto all = s.range({.key = "keys/", .end = prefix_end("keys/")});
  if (all) fmt::print("list of {}: {:.1f} ms\n", all->count, ms_since(t));
  all = RangeReply{};
  ::malloc_trim(0);
  fmt::print("after the list: resident {:.1f} MiB\n", resident_mib());
}

}  // namespace
}  // namespace hawser::store

int main(int argc, char** argv) {
  using namespace hawser::store;
  using hawser::system_clock;
  ::mallopt(M_ARENA_MAX, 2);
  const std::filesystem::path path = std::filesystem::path(argc > 1 ? argv[1] : ".") / "store-bench.db";
  auto s = open_sqlite({.path = path.string()});
  if (!s) {
    fmt::print(stderr, "{}\n", s.error().text);
    return 1;
  }
  fmt::print("resident at start {:.1f} MiB\n", resident_mib());
  one_writer(**s);
  many_writers(**s);
  many_keys(**s);
  if (auto ok = (*s)->compact((*s)->revision()); !ok) fmt::print(stderr, "{}\n", ok.error().text);
  s->reset();
  const auto t = system_clock().now();
  s = open_sqlite({.path = path.string()});
  if (!s) return 1;
  fmt::print("opening it again, with the check of every page: {:.1f} ms\n", ms_since(t));
  s->reset();
  fmt::print("file after compaction: {:.1f} MiB\n", static_cast<double>(std::filesystem::file_size(path)) / (1 << 20));
  for (const char* suffix : {"", ".lock"}) std::filesystem::remove(path.string() + suffix);
  return 0;
}
