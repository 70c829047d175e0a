// SPDX-License-Identifier: Apache-2.0
// Parallel: a few threads that help a caller through a batch of blocking API calls, so that the store can commit them
// as one group. Threads are started when first needed and end with the object. for_each() may be called from several
// threads at once; the caller works too, so it always gets on, even when every helper is busy with another batch.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace hawser::controllers {

class Parallel {
 public:
  explicit Parallel(std::size_t helpers) : max_helpers_(helpers) {}
  ~Parallel();
  Parallel(const Parallel&) = delete;
  Parallel& operator=(const Parallel&) = delete;

  // Calls fn(0) ... fn(n-1), each once, in no particular order; returns when all have returned.
  void for_each(std::size_t n, const std::function<void(std::size_t)>& fn);

 private:
  void run(std::stop_token stop);

  const std::size_t max_helpers_;
  std::mutex mu_;
  std::condition_variable_any cv_;
  // guarded by mu_
  std::deque<std::function<void()>> tasks_;
  std::size_t idle_ = 0;
  std::vector<std::jthread> helpers_;
};

}  // namespace hawser::controllers
