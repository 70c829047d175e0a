// SPDX-License-Identifier: Apache-2.0
#include "lib/base/bounded_runner.h"

#include <algorithm>

namespace hawser {

BoundedRunner::BoundedRunner(const BoundedRunnerOptions& options, std::function<Result<>()> work, Clock& clock)
    : options_(options), work_(std::move(work)), clock_(clock) {}

void BoundedRunner::start() {
  if (thread_.joinable()) return;
  {
    std::lock_guard l(mu_);
    last_end_ = clock_.now();
  }
  thread_ = std::thread([this] { loop(); });
}

void BoundedRunner::run() {
  std::lock_guard l(mu_);
  requested_ = true;
  cv_.notify_all();
}

void BoundedRunner::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

MonoTime BoundedRunner::next_run() const {
  // Before the first run there is nothing to keep a distance to.
  MonoTime earliest = ran_ ? last_end_ + options_.min_interval : last_end_;
  MonoTime due = last_end_ + options_.max_interval;
  if (failed_) due = std::min(due, last_end_ + options_.retry_interval);
  if (requested_) due = earliest;
  return std::max(due, earliest);
}

void BoundedRunner::loop() {
  std::unique_lock l(mu_);
  while (!stopping_) {
    MonoTime due = next_run();
    // Wakes early when a request moves the due time forward.
    clock_.wait_until(l, cv_, due, [&] { return stopping_ || next_run() < due; });
    if (stopping_) return;
    if (clock_.now() < next_run()) continue;
    requested_ = false;
    l.unlock();
    bool ok = work_().has_value();
    l.lock();
    failed_ = !ok;
    ran_ = true;
    last_end_ = clock_.now();
  }
}

}  // namespace hawser
