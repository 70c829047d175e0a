// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/collector.h"

#include <chrono>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/base/clock.h"

namespace hawser::store {

constexpr std::chrono::seconds kPatience{30};  // only ever waited for by a test that fails

WatchFn Collector::fn() {
  return [this](const EventBatch& b) {
    std::lock_guard l(mu_);
    batches_.push_back(b);
    told_.notify_all();
  };
}

bool Collector::wait(const std::function<bool()>& pred, std::unique_lock<std::mutex>& l) {
  return system_clock().wait_until(l, told_, system_clock().now() + kPatience, pred);
}

std::vector<Event> Collector::until(Revision r) {
  std::unique_lock l(mu_);
  EXPECT_TRUE(wait([&] { return !batches_.empty() && batches_.back().progress >= r; }, l)) << "no progress to " << r;
  std::vector<Event> all;
  for (auto& b : batches_) all.insert(all.end(), b.events.begin(), b.events.end());
  return all;
}

bool Collector::until_lost() {
  std::unique_lock l(mu_);
  return wait([&] { return !batches_.empty() && batches_.back().lost; }, l);
}

std::vector<EventBatch> Collector::batches() {
  std::lock_guard l(mu_);
  return batches_;
}

std::string text(const std::vector<Event>& events) {
  std::string out;
  for (const auto& e : events) {
    if (!out.empty()) out += "; ";
    const bool put = e.type == Event::Type::kPut;
    out += fmt::format("{} {}{} r{}", put ? "put" : "delete", e.kv.key, put ? "=" + e.kv.value : "", e.kv.mod_revision);
    if (e.previous) out += fmt::format(" ({})", e.previous->value);
  }
  return out;
}

}  // namespace hawser::store
