// SPDX-License-Identifier: Apache-2.0
// Collector: what a watch told, for tests to wait on and look at. Tests only.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "controlplane/store/store.h"

namespace hawser::store {

// A watcher that keeps everything it was told.
class Collector {
 public:
  WatchFn fn();
  // Waits until it knows everything up to `r`, and returns the events so far.
  std::vector<Event> until(Revision r);
  bool until_lost();
  std::vector<EventBatch> batches();

 private:
  bool wait(const std::function<bool()>& pred, std::unique_lock<std::mutex>& l);
  std::mutex mu_;
  std::condition_variable told_;
  std::vector<EventBatch> batches_;  // guarded by mu_
};

// "put a=x r2" / "delete a r4 (x)" joined by "; ": events as text, the previous value in brackets.
std::string text(const std::vector<Event>& events);

}  // namespace hawser::store
