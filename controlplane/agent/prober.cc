// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/prober.h"

#include <algorithm>

#include "lib/base/random.h"

namespace hawser::agent {
namespace {

constexpr Nanos kFirstQuickTry = std::chrono::milliseconds(50);

std::string_view word(ProbeKind k) {
  return k == ProbeKind::kStartup ? "Startup" : k == ProbeKind::kReadiness ? "Readiness" : "Liveness";
}

}  // namespace

Prober::Prober(CheckRunner& checks, Executor& executor, Changed changed, Failed failed, Clock& clock)
    : checks_(checks), executor_(executor), changed_(std::move(changed)), failed_(std::move(failed)), clock_(clock) {
  thread_ = std::thread([this] { loop(); });
}

Prober::~Prober() {
  stop();
}

void Prober::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Prober::watch(const ProbeSubject& subject, const ContainerSpec& spec, bool was_ready) {
  if (!spec.startup && !spec.readiness && !spec.liveness) return;
  std::lock_guard l(mu_);
  auto [it, added] = entries_.try_emplace(subject.target.container_id);
  Entry& e = it->second;
  e.subject.pod = subject.pod;
  if (!added) return;
  e.subject = subject;
  e.verdict.started = !spec.startup || was_ready;
  e.verdict.ready = !spec.readiness || was_ready;
  const MonoTime now = clock_.now();
  const auto add = [&](ProbeKind kind, const std::optional<Probe>& p) {
    if (!p) return;
    Run run{.kind = kind, .probe = *p};
    run.once_succeeded = was_ready;
    run.due = run.next_regular =
        now + (was_ready ? std::chrono::duration_cast<Nanos>(random_unit() * std::chrono::duration<double>(p->period))
                         : Nanos(p->initial_delay));
    run.quick = kFirstQuickTry;
    e.runs.emplace(kind, run);
  };
  if (!e.verdict.started) add(ProbeKind::kStartup, spec.startup);
  add(ProbeKind::kReadiness, spec.readiness);
  add(ProbeKind::kLiveness, spec.liveness);
  kicked_ = true;
  cv_.notify_all();
}

void Prober::forget(const std::string& container_id) {
  std::lock_guard l(mu_);
  entries_.erase(container_id);
}

std::optional<ProbeVerdict> Prober::verdict(const std::string& container_id) const {
  std::lock_guard l(mu_);
  const auto it = entries_.find(container_id);
  return it == entries_.end() ? std::nullopt : std::optional(it->second.verdict);
}

MonoTime Prober::next_due() const {
  MonoTime best = MonoTime::max();
  for (const auto& [id, e] : entries_) {
    for (const auto& [kind, run] : e.runs) {
      const bool waits_for_start = kind != ProbeKind::kStartup && !e.verdict.started;
      if (!run.in_flight && !waits_for_start) best = std::min(best, run.due);
    }
  }
  return best;
}

void Prober::start_due() {
  const MonoTime now = clock_.now();
  for (auto& [id, e] : entries_) {
    for (auto& [kind, run] : e.runs) {
      if (run.in_flight || run.due > now || (kind != ProbeKind::kStartup && !e.verdict.started)) continue;
      run.in_flight = true;
      executor_.submit([this, id = id, kind = kind] { execute(id, kind); });
    }
  }
}

void Prober::loop() {
  std::unique_lock l(mu_);
  while (!stopping_) {
    start_due();
    kicked_ = false;
    clock_.wait_until(l, cv_, next_due(), [this] { return stopping_ || kicked_; });
  }
}

void Prober::execute(const std::string& container_id, ProbeKind kind) {
  ProbeSubject subject;
  Probe probe;
  bool regular = false;
  {
    std::lock_guard l(mu_);
    const auto it = entries_.find(container_id);
    if (it == entries_.end()) return;
    const Run& run = it->second.runs.at(kind);
    subject = it->second.subject;
    probe = run.probe;
    regular = clock_.now() >= run.next_regular;
  }
  const auto result = checks_.run(probe.check, subject.target, probe.timeout);
  bool changed = false;
  {
    std::lock_guard l(mu_);
    const auto it = entries_.find(container_id);
    if (it == entries_.end()) return;
    auto run = it->second.runs.find(kind);
    if (run == it->second.runs.end()) return;
    changed = record(it->second, run->second, result.has_value(), regular);
    kicked_ = true;
    cv_.notify_all();
  }
  if (!result && regular) failed_(subject, fmt::format("{} probe failed: {}", word(kind), result.error().text));
  if (changed) changed_(subject.pod->uid);
}

bool Prober::record(Entry& e, Run& run, bool ok, bool regular) {
  const MonoTime now = clock_.now();
  const ProbeVerdict before = e.verdict;
  run.in_flight = false;
  if (ok) {
    run.failures = 0;
    ++run.successes;
    run.once_succeeded = true;
  } else if (regular) {
    run.successes = 0;
    ++run.failures;
  }
  if (regular || ok) run.next_regular = now + Nanos(run.probe.period);
  const bool quick = !run.once_succeeded && run.kind != ProbeKind::kLiveness;
  run.due = quick ? std::min(run.next_regular, now + run.quick) : run.next_regular;
  run.quick = std::min(run.quick * 2, Nanos(run.probe.period));

  const bool passed = run.successes >= run.probe.success_threshold;
  const bool failed = run.failures >= run.probe.failure_threshold;
  switch (run.kind) {
    case ProbeKind::kReadiness:
      if (passed) e.verdict.ready = true;
      if (failed) e.verdict.ready = false;
      break;
    case ProbeKind::kStartup:
      if (passed) e.verdict.started = true;
      [[fallthrough]];
    case ProbeKind::kLiveness:
      if (failed) {
        e.verdict.kill = fmt::format("Container {} failed {} probe, will be restarted", e.subject.container,
                                     run.kind == ProbeKind::kStartup ? "startup" : "liveness");
        e.verdict.grace = run.probe.grace;
      }
      break;
  }
  if (e.verdict.started && !before.started) {
    // The others begin now, their initial delays counted from the container's start and so over or soon over.
    e.runs.erase(ProbeKind::kStartup);  // `run` is gone from here on
  }
  return e.verdict.started != before.started || e.verdict.ready != before.ready || e.verdict.kill != before.kill;
}

}  // namespace hawser::agent
