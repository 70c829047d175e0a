// SPDX-License-Identifier: Apache-2.0
// WorkerPool: threads that run posted jobs, started as they are needed, up to a limit. For the API calls of the
// scheduler, so that the next pod is placed while the last ones are being bound. post() from any thread; jobs still
// waiting at stop() are dropped.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hawser::scheduler {

class WorkerPool {
 public:
  explicit WorkerPool(std::size_t max_threads) : max_threads_(max_threads) {}
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void post(std::function<void()> job);
  void stop();

 private:
  void run(const std::stop_token& stop);

  const std::size_t max_threads_;
  std::mutex mu_;
  std::condition_variable_any cv_;
  // guarded by mu_
  std::deque<std::function<void()>> jobs_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace hawser::scheduler
