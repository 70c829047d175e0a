// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/parallel.h"

#include <algorithm>
#include <atomic>
#include <memory>

namespace hawser::controllers {
namespace {

// One call of for_each(). Shared with helpers that may get to it only when it is over; then they find nothing left.
struct Batch {
  explicit Batch(std::size_t size, const std::function<void(std::size_t)>& f) : n(size), fn(f) {}
  void work() {
    for (std::size_t i = next++; i < n; i = next++) {
      fn(i);
      const std::lock_guard lock(mu);
      if (++done == n) cv.notify_all();
    }
  }
  const std::size_t n;
  const std::function<void(std::size_t)>& fn;  // only used for an index below n: the caller still waits then
  std::atomic<std::size_t> next{0};
  std::mutex mu;
  std::condition_variable cv;
  std::size_t done = 0;  // guarded by mu
};

}  // namespace

Parallel::~Parallel() {
  std::vector<std::jthread> ending;
  {
    const std::lock_guard lock(mu_);
    ending.swap(helpers_);
    for (std::jthread& t : ending) t.request_stop();
  }
  cv_.notify_all();
}

void Parallel::for_each(std::size_t n, const std::function<void(std::size_t)>& fn) {
  if (n == 0) return;
  const auto batch = std::make_shared<Batch>(n, fn);
  const std::size_t helpers = std::min(n - 1, max_helpers_);
  if (helpers > 0) {
    const std::lock_guard lock(mu_);
    for (std::size_t i = 0; i < helpers; ++i) tasks_.emplace_back([batch] { batch->work(); });
    while (idle_ < tasks_.size() && helpers_.size() < max_helpers_) {
      ++idle_;
      helpers_.emplace_back([this](std::stop_token stop) { run(std::move(stop)); });
    }
  }
  cv_.notify_all();
  batch->work();
  std::unique_lock lock(batch->mu);
  batch->cv.wait(lock, [&] { return batch->done == batch->n; });
}

void Parallel::run(std::stop_token stop) {
  std::unique_lock lock(mu_);
  // A new helper counts as idle from its creation on.
  while (cv_.wait(lock, stop, [&] { return !tasks_.empty(); })) {
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    --idle_;
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
    ++idle_;
  }
}

}  // namespace hawser::controllers
