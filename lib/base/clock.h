// SPDX-License-Identifier: Apache-2.0
// Clock: time, injected. Code that waits or stamps takes a Clock&; tests pass FakeClock and move it by hand.
// Thread-safe. Nothing outside lib/base sleeps or reads a clock itself.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>

namespace hawser {

using Nanos = std::chrono::nanoseconds;
using MonoTime = std::chrono::time_point<std::chrono::steady_clock, Nanos>;
using WallTime = std::chrono::time_point<std::chrono::system_clock, Nanos>;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual MonoTime now() const = 0;
  [[nodiscard]] virtual WallTime wall() const = 0;
  // Waits on `cv` (its mutex held by `lock`) until pred() or `deadline`; returns pred().
  virtual bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& cv, MonoTime deadline,
                          const std::function<bool()>& pred) = 0;
};

// The machine's clocks; one shared instance.
Clock& system_clock();

class FakeClock final : public Clock {
 public:
  [[nodiscard]] MonoTime now() const override;
  [[nodiscard]] WallTime wall() const override;
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& cv, MonoTime deadline,
                  const std::function<bool()>& pred) override;
  // Moves both times on and wakes every waiter.
  void advance(Nanos by);

 private:
  mutable std::mutex mu_;
  Nanos since_start_{0};                             // guarded by mu_
  std::multiset<std::condition_variable*> waiting_;  // guarded by mu_
};

}  // namespace hawser
