// SPDX-License-Identifier: Apache-2.0
// BoundedRunner: decides when a periodic piece of work runs, on a thread of its own. Guarantees, after kube-proxy's
// BoundedFrequencyRunner:
//   - requests (run()) made while the work waits or runs are folded into one further run; none is lost;
//   - at least min_interval passes between the end of one run and the start of the next;
//   - after a failed run the next starts no later than retry_interval after its end;
//   - without any request the work runs again max_interval after the end of the last (or after start()).
// run() is safe from any thread, the work included. stop() waits for a run in progress and must not be called by the
// work.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "lib/base/clock.h"
#include "lib/base/result.h"

namespace hawser {

struct BoundedRunnerOptions {
  Nanos min_interval{0};
  Nanos retry_interval = std::chrono::seconds(10);
  Nanos max_interval = std::chrono::hours(1);
};

class BoundedRunner {
 public:
  BoundedRunner(const BoundedRunnerOptions& options, std::function<Result<>()> work, Clock& clock = system_clock());
  ~BoundedRunner() { stop(); }
  BoundedRunner(const BoundedRunner&) = delete;
  BoundedRunner& operator=(const BoundedRunner&) = delete;

  void start();
  void run();
  void stop();

 private:
  void loop();
  [[nodiscard]] MonoTime next_run() const;  // mu_ held

  const BoundedRunnerOptions options_;
  const std::function<Result<>()> work_;
  Clock& clock_;
  std::mutex mu_;
  std::condition_variable cv_;
  bool requested_ = false;  // guarded by mu_
  bool failed_ = false;     // guarded by mu_
  bool ran_ = false;        // guarded by mu_
  bool stopping_ = false;   // guarded by mu_
  MonoTime last_end_{};     // guarded by mu_; the start of the thread before the first run
  std::thread thread_;
};

}  // namespace hawser
