// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/work_queue.h"

#include <algorithm>

namespace hawser::kube {

void WorkQueue::add(const std::string& key) {
  std::lock_guard l(mu_);
  add_locked(key);
}

void WorkQueue::add_locked(const std::string& key) {
  if (shut_down_ || !dirty_.insert(key).second) return;
  if (processing_.contains(key)) return;
  queue_.push_back(key);
  cv_.notify_all();
}

void WorkQueue::add_after(const std::string& key, Nanos delay) {
  std::lock_guard l(mu_);
  add_after_locked(key, delay);
}

void WorkQueue::add_after_locked(const std::string& key, Nanos delay) {
  if (shut_down_) return;
  if (delay <= Nanos(0)) return add_locked(key);
  MonoTime at = clock_.now() + delay;
  auto [it, fresh] = delayed_.try_emplace(key, at);
  if (!fresh) {
    if (it->second <= at) return;
    due_.erase({it->second, key});
    it->second = at;
  }
  due_.emplace(at, key);
  cv_.notify_all();
}

void WorkQueue::add_rate_limited(const std::string& key) {
  std::lock_guard l(mu_);
  int n = retries_[key]++;
  Nanos delay = options_.first_retry;
  for (int i = 0; i < n && delay < options_.max_retry; i++) delay *= 2;
  add_after_locked(key, std::min(delay, options_.max_retry));
}

void WorkQueue::forget(const std::string& key) {
  std::lock_guard l(mu_);
  retries_.erase(key);
}
int WorkQueue::retries(const std::string& key) const {
  std::lock_guard l(mu_);
  auto it = retries_.find(key);
  return it == retries_.end() ? 0 : it->second;
}

void WorkQueue::release_due() {
  MonoTime now = clock_.now();
  while (!due_.empty() && due_.begin()->first <= now) {
    std::string key = due_.begin()->second;
    due_.erase(due_.begin());
    delayed_.erase(key);
    add_locked(key);
  }
}

std::optional<std::string> WorkQueue::get() {
  std::unique_lock l(mu_);
  for (;;) {
    release_due();
    if (!queue_.empty()) break;
    if (shut_down_) return std::nullopt;
    MonoTime until = due_.empty() ? MonoTime::max() : due_.begin()->first;
    clock_.wait_until(l, cv_, until,
                      [&] { return shut_down_ || !queue_.empty() || (!due_.empty() && due_.begin()->first < until); });
  }
  std::string key = std::move(queue_.front());
  queue_.pop_front();
  dirty_.erase(key);
  processing_.insert(key);
  return key;
}

void WorkQueue::done(const std::string& key) {
  std::lock_guard l(mu_);
  processing_.erase(key);
  if (!dirty_.contains(key)) return;
  queue_.push_back(key);
  cv_.notify_all();
}

void WorkQueue::shut_down() {
  std::lock_guard l(mu_);
  shut_down_ = true;
  delayed_.clear();
  due_.clear();
  cv_.notify_all();
}

std::size_t WorkQueue::size() const {
  std::lock_guard l(mu_);
  return queue_.size();
}

}  // namespace hawser::kube
