// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/scheduling_queue.h"

#include <algorithm>

namespace hawser::scheduler {
namespace {

constexpr Nanos kFirstBackoff = std::chrono::seconds(1);
constexpr Nanos kMaxBackoff = std::chrono::seconds(10);
constexpr Nanos kUnschedulableFlush = std::chrono::minutes(5);

Nanos backoff(int attempts) {
  Nanos out = kFirstBackoff;
  for (int i = 1; i < attempts && out < kMaxBackoff; ++i) out *= 2;
  return std::min(out, kMaxBackoff);
}

}  // namespace

void SchedulingQueue::set(const std::string& key, Entry& e, Where to, MonoTime until) {
  active_.erase({-e.pod->priority, e.age, key});
  timed_.erase({e.until, key});
  e.where = to;
  e.until = until;
  if (to == Where::kActive) active_.emplace(-e.pod->priority, e.age, key);
  if (to == Where::kBackoff || to == Where::kUnschedulable) timed_.emplace(until, key);
}

void SchedulingQueue::put(const PodPtr& pod, bool spec_changed, MonoTime now) {
  const auto it = entries_.find(pod->key);
  if (it == entries_.end()) {
    Entry& e = entries_[pod->key];
    e.pod = pod;
    e.age = ++ages_;
    set(pod->key, e, Where::kActive);
    return;
  }
  Entry& e = it->second;
  const bool replaced = e.pod->uid != pod->uid;
  const Where where = e.where;
  if (where == Where::kActive) active_.erase({-e.pod->priority, e.age, pod->key});
  e.pod = pod;
  if (replaced) e.attempts = 0;
  if (where == Where::kActive)
    set(pod->key, e, Where::kActive);
  else if (where == Where::kTaken)
    // What is being tried is the old version.
    e.moves = spec_changed || replaced ? ~std::uint64_t{0} : e.moves;
  else if (replaced || (spec_changed && e.backoff_end <= now))
    set(pod->key, e, Where::kActive);
  else if (spec_changed)
    set(pod->key, e, Where::kBackoff, e.backoff_end);
}

void SchedulingQueue::remove(const std::string& key) {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return;
  active_.erase({-it->second.pod->priority, it->second.age, key});
  timed_.erase({it->second.until, key});
  entries_.erase(it);
}

void SchedulingQueue::wake(MonoTime now) {
  while (!timed_.empty() && timed_.begin()->first <= now) {
    const std::string key = timed_.begin()->second;
    set(key, entries_.at(key), Where::kActive);
  }
}

PodPtr SchedulingQueue::pop(MonoTime now) {
  wake(now);
  if (active_.empty()) return nullptr;
  const std::string key = std::get<2>(*active_.begin());
  Entry& e = entries_.at(key);
  set(key, e, Where::kTaken);
  e.moves = moves_;
  ++e.attempts;
  return e.pod;
}

void SchedulingQueue::done(const std::string& key) {
  const auto it = entries_.find(key);
  if (it != entries_.end() && it->second.where == Where::kTaken) entries_.erase(it);
}

void SchedulingQueue::unschedulable(const std::string& key, MonoTime now) {
  const auto it = entries_.find(key);
  if (it == entries_.end() || it->second.where != Where::kTaken) return;
  Entry& e = it->second;
  e.backoff_end = now + backoff(e.attempts);
  if (e.moves != moves_)
    set(key, e, Where::kBackoff, e.backoff_end);
  else
    set(key, e, Where::kUnschedulable, now + kUnschedulableFlush);
}

void SchedulingQueue::failed(const PodPtr& pod, MonoTime now) {
  Entry& e = entries_[pod->key];
  if (e.pod == nullptr) {
    e.pod = pod;
    e.age = ++ages_;
    e.attempts = 1;
  }
  e.backoff_end = now + backoff(e.attempts);
  set(pod->key, e, Where::kBackoff, e.backoff_end);
}

void SchedulingQueue::move_all(MonoTime now) {
  ++moves_;
  for (auto& [key, e] : entries_) {
    if (e.where != Where::kUnschedulable) continue;
    if (e.backoff_end <= now)
      set(key, e, Where::kActive);
    else
      set(key, e, Where::kBackoff, e.backoff_end);
  }
}

std::optional<MonoTime> SchedulingQueue::next(MonoTime now) const {
  if (!active_.empty()) return now;
  if (timed_.empty()) return std::nullopt;
  return timed_.begin()->first;
}

}  // namespace hawser::scheduler
