// SPDX-License-Identifier: Apache-2.0
// Compactor: keeps a store's history short. It remembers which revision was current when, on a thread of its own, and
// compacts to the newest revision that is older than `keep_time`, sooner if the history is longer than `max_revisions`.
// Whoever runs the store owns one; it ends before the store does. A failure is logged and tried again with the next
// interval.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>

#include "controlplane/store/store.h"
#include "lib/base/clock.h"

namespace hawser::store {

struct Retention {
  std::chrono::seconds keep_time{300};   // clients may resume a watch or a paged list this far back
  std::int64_t max_revisions = 100'000;  // whatever their age: bounds the file under a storm of writes
  std::chrono::seconds interval{30};
};

// The decision alone: fed with the time and the revision, says how far to compact.
class RetentionPlan {
 public:
  explicit RetentionPlan(const Retention& r) : retention_(r) {}
  // The revision to compact to now; 0: nothing to do.
  Revision observe(MonoTime now, Revision revision, Revision compacted);

 private:
  struct Sample {
    MonoTime at;
    Revision revision;
  };
  Retention retention_;
  std::deque<Sample> samples_;  // oldest first, one an interval: the newest too old to keep, and all younger ones
};

class Compactor {
 public:
  Compactor(Store& store, Clock& clock, const Retention& retention = {});
  ~Compactor();
  Compactor(const Compactor&) = delete;
  Compactor& operator=(const Compactor&) = delete;

 private:
  void run();

  Store& store_;
  Clock& clock_;
  const Retention retention_;
  std::mutex mu_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::store
