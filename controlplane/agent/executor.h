// SPDX-License-Identifier: Apache-2.0
// Executor: runs jobs on at most `max_threads` threads that are started when needed and end after `idle` without work.
// Any thread may submit. The destructor drops jobs that have not begun and waits for those that have.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "lib/base/clock.h"

namespace hawser::agent {

class Executor {
 public:
  explicit Executor(int max_threads, Nanos idle = std::chrono::seconds(20), Clock& clock = system_clock());
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  void submit(std::function<void()> job);
  void stop();

 private:
  void loop();
  bool add_thread();  // mu_ held; false: the system refused
  void reap();        // mu_ held: joins threads that have ended

  const int max_threads_;
  const Nanos idle_;
  Clock& clock_;
  std::mutex mu_;
  std::condition_variable cv_;
  std::deque<std::function<void()>> jobs_;  // guarded by mu_
  std::vector<std::thread> threads_;        // guarded by mu_
  std::vector<std::thread::id> ended_;      // guarded by mu_
  int waiting_ = 0;                         // guarded by mu_: threads without a job
  bool stopping_ = false;                   // guarded by mu_
};

}  // namespace hawser::agent
