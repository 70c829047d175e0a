// SPDX-License-Identifier: Apache-2.0
// WorkQueue: keys to reconcile, each at most once at a time. A key added while it waits is folded into that; added
// while it is being processed, it waits again once done() is called. Retries of a key come at growing intervals. The
// contract of client-go's workqueue. Any thread; any number of workers:
//
//   while (auto key = queue.get()) {
//     if (sync(*key)) queue.forget(*key); else queue.add_rate_limited(*key);
//     queue.done(*key);
//   }
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "lib/base/clock.h"

namespace hawser::kube {

struct WorkQueueOptions {
  Nanos first_retry = std::chrono::milliseconds(5);  // doubles with each retry of the key
  Nanos max_retry = std::chrono::seconds(30);
};

class WorkQueue {
 public:
  explicit WorkQueue(Clock& clock = system_clock(), const WorkQueueOptions& options = {})
      : clock_(clock), options_(options) {}

  void add(const std::string& key);
  // Adds `key` once `delay` has passed; of several delays of one key the earliest counts.
  void add_after(const std::string& key, Nanos delay);
  // Adds after the key's own back-off, which grows until forget().
  void add_rate_limited(const std::string& key);
  void forget(const std::string& key);
  [[nodiscard]] int retries(const std::string& key) const;

  // Blocks for the next key. Empty after shut_down(), once what waited has been handed out.
  std::optional<std::string> get();
  void done(const std::string& key);
  // Later adds are ignored; delayed keys are dropped.
  void shut_down();
  [[nodiscard]] std::size_t size() const;  // keys that wait now, those with a delay apart

 private:
  void add_locked(const std::string& key);
  void add_after_locked(const std::string& key, Nanos delay);
  void release_due();

  Clock& clock_;
  const WorkQueueOptions options_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  std::deque<std::string> queue_;                   // guarded by mu_
  std::set<std::string> dirty_;                     // guarded by mu_; waits, or must wait again
  std::set<std::string> processing_;                // guarded by mu_
  std::map<std::string, int> retries_;              // guarded by mu_
  std::map<std::string, MonoTime> delayed_;         // guarded by mu_
  std::set<std::pair<MonoTime, std::string>> due_;  // guarded by mu_; the same, by time
  bool shut_down_ = false;                          // guarded by mu_
};

}  // namespace hawser::kube
