// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: the threads that run handlers, started as they are needed. Work comes in two lanes, reads and
// writes; each has a bound on what waits, and leaves some threads to the other, so that neither a crowd of long lists
// nor a slow disk stops both. Any thread.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hawser::http {

enum class Lane { kRead, kWrite };

class Workers {
 public:
  // At most so many reads and writes wait or run.
  Workers(int threads, std::size_t max_reads, std::size_t max_writes);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False if the lane is full; then `work` will not run.
  [[nodiscard]] bool submit(Lane lane, std::function<void()> work);
  // Drops what has not begun and waits for the rest.
  void stop();

 private:
  struct Queue {
    std::size_t limit = 0;
    std::deque<std::function<void()>> waiting;
    std::size_t running = 0;
  };
  void loop();
  Queue* next();

  const std::size_t max_threads_;
  const std::size_t max_running_;  // of one lane
  std::mutex mu_;
  std::condition_variable cv_;
  std::array<Queue, 2> lanes_;        // guarded by mu_, by Lane
  std::vector<std::thread> threads_;  // guarded by mu_
  std::size_t idle_ = 0;              // guarded by mu_
  bool stopping_ = false;             // guarded by mu_
};

}  // namespace hawser::http
