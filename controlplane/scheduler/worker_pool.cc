// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/worker_pool.h"

#include <utility>

namespace hawser::scheduler {

void WorkerPool::post(std::function<void()> job) {
  {
    const std::lock_guard lock(mu_);
    if (stopping_) return;
    jobs_.push_back(std::move(job));
    if (idle_ < jobs_.size() && threads_.size() < max_threads_) {
      ++idle_;
      threads_.emplace_back([this](const std::stop_token& stop) { run(stop); });
    }
  }
  cv_.notify_one();
}

void WorkerPool::stop() {
  std::vector<std::jthread> ending;
  {
    const std::lock_guard lock(mu_);
    stopping_ = true;
    jobs_.clear();
    ending.swap(threads_);
    for (std::jthread& t : ending) t.request_stop();
  }
  cv_.notify_all();
}

void WorkerPool::run(const std::stop_token& stop) {
  std::unique_lock lock(mu_);
  // A new thread counts as idle from its creation on.
  while (cv_.wait(lock, stop, [&] { return !jobs_.empty(); })) {
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    --idle_;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    ++idle_;
  }
}

}  // namespace hawser::scheduler
