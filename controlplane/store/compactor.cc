// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/compactor.h"

#include <algorithm>

#include "lib/base/log.h"

namespace hawser::store {

Revision RetentionPlan::observe(MonoTime now, Revision revision, Revision compacted) {
  samples_.push_back({now, revision});
  while (samples_.size() > 1 && samples_[1].at <= now - retention_.keep_time) samples_.pop_front();
  Revision target = 0;
  if (samples_.front().at <= now - retention_.keep_time) target = samples_.front().revision;
  target = std::max(target, revision - retention_.max_revisions);
  return target > compacted ? target : 0;
}

Compactor::Compactor(Store& store, Clock& clock, const Retention& retention)
    : store_(store), clock_(clock), retention_(retention), thread_([this] { run(); }) {}

Compactor::~Compactor() {
  {
    std::lock_guard l(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Compactor::run() {
  RetentionPlan plan(retention_);
  std::unique_lock l(mu_);
  MonoTime next = clock_.now();
  while (!stop_) {
    if (clock_.now() < next) {
      clock_.wait_until(l, wake_, next, [this] { return stop_; });
      continue;
    }
    next = clock_.now() + retention_.interval;
    l.unlock();
    if (const Revision to = plan.observe(clock_.now(), store_.revision(), store_.compacted()); to > 0) {
      if (auto ok = store_.compact(to); !ok) log::warn("compaction to revision {}: {}", to, ok.error().text);
    }
    l.lock();
  }
}

}  // namespace hawser::store
