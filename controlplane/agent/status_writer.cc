// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/status_writer.h"

#include <algorithm>

#include "lib/base/log.h"

namespace hawser::agent {
namespace {

constexpr std::chrono::milliseconds kCalm{300};  // how long a status that nobody waits for may be delayed
constexpr std::chrono::milliseconds kFirstRetry{250};
constexpr std::chrono::seconds kMaxRetry{10};

}  // namespace

StatusWriter::StatusWriter(kube::Client& client, Clock& clock, int threads) : client_(client), clock_(clock) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
}

StatusWriter::~StatusWriter() {
  stop();
}

void StatusWriter::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    cv_.notify_all();
  }
  for (auto& t : threads_)
    if (t.joinable()) t.join();
}

void StatusWriter::publish(const PodSpecPtr& spec, kube::Object status, bool urgent) {
  std::lock_guard l(mu_);
  auto [it, added] = pending_.try_emplace(spec->uid);
  Pending& p = it->second;
  if (p.finish) return;
  const MonoTime due = clock_.now() + (urgent ? Nanos(0) : Nanos(kCalm));
  p.due = added || !p.status ? due : std::min(p.due, due);
  p.spec = spec;
  p.status = std::move(status);
  ++changes_;
  cv_.notify_all();
}

void StatusWriter::finish(const PodSpecPtr& spec) {
  std::lock_guard l(mu_);
  Pending& p = pending_[spec->uid];
  p.spec = spec;
  p.finish = true;
  p.due = clock_.now();
  ++changes_;
  cv_.notify_all();
}

bool StatusWriter::drain(Nanos timeout) {
  std::unique_lock l(mu_);
  return clock_.wait_until(l, cv_, clock_.now() + timeout, [this] { return pending_.empty(); });
}

bool StatusWriter::write(const Pending& p) {
  const auto settled = [&](const Result<>& r, const char* what) {
    // Gone, or another pod of the same name: nothing of ours is left to write to.
    if (r || is_not_found(r.error()) || is_conflict(r.error())) return true;
    log::debug("pod {}: {}: {}", p.spec->key(), what, r.error().text);
    // Refused for good: trying again would not help, a later status may.
    return r.error().code >= 400 && r.error().code < 500 && r.error().code != 429;
  };
  if (p.status) {
    const kube::Object body{{"metadata", {{"uid", p.spec->uid}}}, {"status", *p.status}};
    auto r = client_.patch(kube::kPods, p.spec->ns, p.spec->name, kube::PatchType::kMerge, body, "status");
    if (!r && r.error().code >= 400 && r.error().code < 500 && !is_not_found(r.error()) && !is_conflict(r.error()))
      log::warn("pod {}: status refused: {}", p.spec->key(), r.error().text);
    if (!settled(r ? Result<>{} : Result<>(std::unexpected(r.error())), "status")) return false;
  }
  if (!p.finish) return true;
  auto r = client_.remove(kube::kPods, p.spec->ns, p.spec->name, {.grace_period_seconds = 0, .uid = p.spec->uid});
  return settled(r, "delete");
}

void StatusWriter::loop() {
  std::unique_lock l(mu_);
  while (!stopping_) {
    const MonoTime now = clock_.now();
    MonoTime next = MonoTime::max();
    auto chosen = pending_.end();
    for (auto it = pending_.begin(); it != pending_.end(); ++it) {
      if (it->second.in_flight) continue;
      if (it->second.due <= now && (chosen == pending_.end() || it->second.due < chosen->second.due)) chosen = it;
      next = std::min(next, it->second.due);
    }
    if (chosen == pending_.end()) {
      const auto seen = changes_;
      clock_.wait_until(l, cv_, next, [&] { return stopping_ || changes_ != seen; });
      continue;
    }
    const std::string uid = chosen->first;
    chosen->second.in_flight = true;
    Pending work = chosen->second;
    chosen->second.status.reset();
    l.unlock();
    const bool done = write(work);
    l.lock();
    Pending& p = pending_[uid];
    p.in_flight = false;
    if (done && !p.status && p.finish == work.finish) {
      pending_.erase(uid);
    } else if (!done) {
      if (!p.status) p.status = std::move(work.status);
      const Nanos delay = std::min<Nanos>(kMaxRetry, Nanos(kFirstRetry) * (1 << std::min(p.failures++, 6)));
      p.due = clock_.now() + delay;
    }
    ++changes_;
    cv_.notify_all();
  }
}

}  // namespace hawser::agent
