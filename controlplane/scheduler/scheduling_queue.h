// SPDX-License-Identifier: Apache-2.0
// SchedulingQueue: pods that wait for a node. Active ones by priority and then by age; those that failed wait out a
// back-off (1 s doubling to 10 s); those that no node can take wait until something changes that could help, or five
// minutes at most. Values only: the caller guards it and passes the time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "controlplane/scheduler/cluster_state.h"
#include "lib/base/clock.h"

namespace hawser::scheduler {

class SchedulingQueue {
 public:
  // A new pod, or a new version of one that waits; `spec_changed`: what it asks for is different, so it is tried again.
  void put(const PodPtr& pod, bool spec_changed, MonoTime now);
  void remove(const std::string& key);
  // The next pod to try. It belongs to the caller until done() or unschedulable().
  PodPtr pop(MonoTime now);
  void done(const std::string& key);
  // No node can take it now. If anything moved while it was tried, it only backs off.
  void unschedulable(const std::string& key, MonoTime now);
  // Something went wrong: back-off. Also for a pod that was done() and whose binding then failed.
  void failed(const PodPtr& pod, MonoTime now);
  // Something changed that may make room: everything unschedulable is tried again when its back-off is over.
  void move_all(MonoTime now);

  // When pop() may have something; nothing: not before the next call of another function. A time in the past: now.
  [[nodiscard]] std::optional<MonoTime> next(MonoTime now) const;
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  enum class Where { kActive, kBackoff, kUnschedulable, kTaken };
  struct Entry {
    PodPtr pod;
    Where where = Where::kActive;
    std::uint64_t age = 0;
    int attempts = 0;
    MonoTime until{};  // back-off, or the flush of an unschedulable one
    MonoTime backoff_end{};
    std::uint64_t moves = 0;  // move_all() calls before it was taken
  };
  using ActiveKey = std::tuple<std::int64_t, std::uint64_t, std::string>;  // -priority, age, key

  void set(const std::string& key, Entry& e, Where to, MonoTime until = {});
  void wake(MonoTime now);

  std::map<std::string, Entry> entries_;
  std::set<ActiveKey> active_;
  std::set<std::pair<MonoTime, std::string>> timed_;  // back-off and unschedulable
  std::uint64_t ages_ = 0;
  std::uint64_t moves_ = 0;
};

}  // namespace hawser::scheduler
