// SPDX-License-Identifier: Apache-2.0
#include "lib/http/workers.h"

#include <algorithm>

namespace hawser::http {
namespace {

// Threads that one lane leaves to the other, where there are enough.
constexpr int kReserved = 2;
constexpr int kFewThreads = 4;

}  // namespace

Workers::Workers(int threads, std::size_t max_reads, std::size_t max_writes)
    : max_threads_(static_cast<std::size_t>(threads)),
      max_running_(static_cast<std::size_t>(threads < kFewThreads ? threads : threads - kReserved)) {
  lanes_[static_cast<std::size_t>(Lane::kRead)].limit = max_reads;
  lanes_[static_cast<std::size_t>(Lane::kWrite)].limit = max_writes;
}

Workers::~Workers() {
  stop();
}

bool Workers::submit(Lane lane, std::function<void()> work) {
  std::lock_guard l(mu_);
  if (stopping_) return true;  // dropped, as all that has not begun
  auto& q = lanes_[static_cast<std::size_t>(lane)];
  if (q.waiting.size() + q.running >= q.limit) return false;
  q.waiting.push_back(std::move(work));
  if (idle_ < lanes_[0].waiting.size() + lanes_[1].waiting.size() && threads_.size() < max_threads_)
    threads_.emplace_back([this] { loop(); });
  cv_.notify_one();
  return true;
}

void Workers::stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    for (auto& q : lanes_) q.waiting.clear();
    threads.swap(threads_);
    cv_.notify_all();
  }
  for (auto& t : threads) t.join();
}

// The lane to serve: of those that may run more, the one with fewer running, so that they take turns.
Workers::Queue* Workers::next() {
  Queue* best = nullptr;
  for (auto& q : lanes_) {
    if (q.waiting.empty() || q.running >= max_running_) continue;
    if (best == nullptr || q.running < best->running) best = &q;
  }
  return best;
}

void Workers::loop() {
  std::unique_lock l(mu_);
  for (;;) {
    Queue* q = nullptr;
    idle_++;
    cv_.wait(l, [&] { return stopping_ || (q = next()) != nullptr; });
    idle_--;
    if (q == nullptr) return;
    auto work = std::move(q->waiting.front());
    q->waiting.pop_front();
    q->running++;
    l.unlock();
    work();
    work = nullptr;
    l.lock();
    q->running--;
  }
}

}  // namespace hawser::http
