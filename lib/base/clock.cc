// SPDX-License-Identifier: Apache-2.0
#include "lib/base/clock.h"

namespace hawser {
namespace {

class RealClock final : public Clock {
 public:
  MonoTime now() const override { return std::chrono::steady_clock::now(); }
  WallTime wall() const override { return std::chrono::system_clock::now(); }
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& cv, MonoTime deadline,
                  const std::function<bool()>& pred) override {
    if (deadline == MonoTime::max()) {
      cv.wait(lock, pred);
      return true;
    }
    return cv.wait_until(lock, deadline, pred);
  }
};

}  // namespace

Clock& system_clock() {
  static RealClock clock;
  return clock;
}

// 2026-01-01T00:00:00Z: a fixed start makes stamps in goldens stable.
static constexpr std::chrono::seconds kFakeEpoch{1767225600};

MonoTime FakeClock::now() const {
  std::lock_guard l(mu_);
  return MonoTime(since_start_ + std::chrono::hours(1));
}
WallTime FakeClock::wall() const {
  std::lock_guard l(mu_);
  return WallTime(kFakeEpoch + since_start_);
}
bool FakeClock::wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& cv, MonoTime deadline,
                           const std::function<bool()>& pred) {
  {
    std::lock_guard l(mu_);
    waiting_.insert(&cv);
  }
  // A waiter may test the time just before advance() notifies, so it also looks again on its own every millisecond.
  while (!pred() && now() < deadline) cv.wait_for(lock, std::chrono::milliseconds(1));
  std::lock_guard l(mu_);
  waiting_.erase(waiting_.find(&cv));
  return pred();
}
void FakeClock::advance(Nanos by) {
  std::lock_guard l(mu_);
  since_start_ += by;
  for (auto* cv : waiting_) cv->notify_all();
}

}  // namespace hawser
