// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/executor.h"

#include <algorithm>
#include <system_error>

#include "lib/base/log.h"

namespace hawser::agent {

Executor::Executor(int max_threads, Nanos idle, Clock& clock) : max_threads_(max_threads), idle_(idle), clock_(clock) {}
Executor::~Executor() {
  stop();
}

void Executor::submit(std::function<void()> job) {
  std::lock_guard l(mu_);
  if (stopping_) return;
  jobs_.push_back(std::move(job));
  reap();
  if (static_cast<int>(jobs_.size()) > waiting_ && static_cast<int>(threads_.size()) < max_threads_ && add_thread())
    return;
  cv_.notify_one();
}

bool Executor::add_thread() {
  try {
    threads_.emplace_back([this] { loop(); });
    return true;
  } catch (const std::system_error& e) {
    // The machine has no process to spare (a pod forks without end): those that run take the job in their turn.
    log::warn("no new thread: {}", e.what());
    return false;
  }
}

void Executor::stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    jobs_.clear();
    threads.swap(threads_);
    ended_.clear();
    cv_.notify_all();
  }
  for (auto& t : threads) t.join();
}

void Executor::reap() {
  for (const auto id : ended_) {
    const auto it = std::ranges::find_if(threads_, [&](const std::thread& t) { return t.get_id() == id; });
    if (it == threads_.end()) continue;
    it->join();
    threads_.erase(it);
  }
  ended_.clear();
}

void Executor::loop() {
  std::unique_lock l(mu_);
  while (true) {
    ++waiting_;
    const bool work = clock_.wait_until(l, cv_, clock_.now() + idle_, [this] { return stopping_ || !jobs_.empty(); });
    --waiting_;
    // The last one stays: a job must not depend on a thread that cannot be made.
    if (!work && !stopping_ && threads_.size() - ended_.size() == 1) continue;
    if (stopping_ || !work) break;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    l.unlock();
    job();
    job = nullptr;  // what it captured goes before the lock is taken
    l.lock();
  }
  // Joined by the next submit(); stop() joins it as well if it comes first.
  if (!stopping_) ended_.push_back(std::this_thread::get_id());
}

}  // namespace hawser::agent
