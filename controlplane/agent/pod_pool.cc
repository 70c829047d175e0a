// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_pool.h"

#include <algorithm>

#include "lib/base/log.h"

namespace hawser::agent {
namespace {

// What a relist compares: ids and states.
using Shape = std::set<std::pair<std::string, int>>;
Shape shape_of(const std::vector<Sandbox>& sandboxes, const std::vector<Container>& containers) {
  Shape out;
  for (const auto& s : sandboxes) out.emplace(s.id, s.ready ? 1 : 0);
  for (const auto& c : containers) out.emplace(c.id, static_cast<int>(c.state));
  return out;
}

std::string label(const StringMap& labels, const char* key) {
  const auto it = labels.find(key);
  return it == labels.end() ? std::string() : it->second;
}

// Enough of a pod to take it down.
PodSpecPtr orphan_spec(const std::string& uid, const StringMap& labels) {
  constexpr int kOrphanGraceSeconds = 5;
  auto o = std::make_shared<kube::Object>();
  (*o)["metadata"] = {
      {"namespace", label(labels, kLabelPodNamespace)}, {"name", label(labels, kLabelPodName)}, {"uid", uid}};
  (*o)["spec"] = {{"terminationGracePeriodSeconds", kOrphanGraceSeconds}};
  return parse_pod(std::move(o));
}

}  // namespace

PodPool::PodPool(PodContext& context, int threads)
    : ctx_(context), executor_(threads, std::chrono::seconds(20), context.clock) {
  timer_ = std::thread([this] { timer_loop(); });
}

PodPool::~PodPool() {
  stop();
}

void PodPool::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    cv_.notify_all();
  }
  if (timer_.joinable()) timer_.join();
  executor_.stop();
}

void PodPool::set_pod(PodSpecPtr spec) {
  std::lock_guard l(mu_);
  auto& slot = slots_[spec->uid];
  if (slot.worker)
    slot.worker->update(spec);
  else
    slot.worker = std::make_shared<PodWorker>(ctx_, spec, false);
  enqueue(spec->uid, slot);
}

void PodPool::remove_pod(const std::string& uid) {
  std::lock_guard l(mu_);
  const auto it = slots_.find(uid);
  if (it == slots_.end()) return;
  it->second.worker->mark_removed();
  enqueue(uid, it->second);
}

void PodPool::wake(const std::string& uid) {
  std::lock_guard l(mu_);
  const auto it = slots_.find(uid);
  if (it != slots_.end()) enqueue(uid, it->second);
}

void PodPool::enqueue(const std::string& uid, Slot& slot) {
  if (stopping_) return;
  if (slot.running) {
    slot.again = true;
  } else if (!slot.queued) {
    slot.queued = true;
    executor_.submit([this, uid] { run(uid); });
  }
}

void PodPool::run(const std::string& uid) {
  std::shared_ptr<PodWorker> worker;
  {
    std::lock_guard l(mu_);
    const auto it = slots_.find(uid);
    if (it == slots_.end()) return;
    it->second.queued = false;
    it->second.running = true;
    it->second.again = false;
    worker = it->second.worker;
  }
  const auto wake = worker->tick();
  std::lock_guard l(mu_);
  const auto it = slots_.find(uid);
  if (it == slots_.end()) return;
  it->second.running = false;
  it->second.wake.reset();
  if (wake) it->second.wake = ctx_.clock.now() + (*wake - ctx_.clock.wall());
  if (worker->done()) {
    slots_.erase(it);
    return;
  }
  if (it->second.again) enqueue(uid, it->second);
  timer_changed_ = true;
  cv_.notify_all();
}

void PodPool::timer_loop() {
  std::unique_lock l(mu_);
  while (!stopping_) {
    const MonoTime now = ctx_.clock.now();
    MonoTime next = MonoTime::max();
    for (auto& [uid, slot] : slots_) {
      if (!slot.wake) continue;
      if (*slot.wake <= now) {
        slot.wake.reset();
        enqueue(uid, slot);
      } else {
        next = std::min(next, *slot.wake);
      }
    }
    timer_changed_ = false;
    ctx_.clock.wait_until(l, cv_, next, [this] { return stopping_ || timer_changed_; });
  }
}

void PodPool::on_exit(const std::string& container_id) {
  std::lock_guard l(mu_);
  for (auto& [uid, slot] : slots_) {
    const auto view = slot.worker->view();
    const bool ours = std::ranges::any_of(view->containers, [&](const Container& c) { return c.id == container_id; }) ||
                      std::ranges::any_of(view->sandboxes, [&](const Sandbox& s) { return s.id == container_id; });
    // A container that ends while its pod is being worked on may not be in the view yet.
    if (!ours && !slot.running) continue;
    slot.worker->expect_exit(container_id);
    enqueue(uid, slot);
  }
}

Result<> PodPool::relist(bool take_orphans) {
  auto all = ctx_.runtime.list("");
  if (!all) return propagate(all);
  std::map<std::string, RuntimeSnapshot> by_pod;
  std::map<std::string, StringMap> labels;
  for (auto& s : all->sandboxes) {
    const auto uid = label(s.labels, kLabelPodUid);
    labels.try_emplace(uid, s.labels);
    by_pod[uid].sandboxes.push_back(std::move(s));
  }
  for (auto& c : all->containers) {
    const auto uid = label(c.labels, kLabelPodUid);
    labels.try_emplace(uid, c.labels);
    by_pod[uid].containers.push_back(std::move(c));
  }
  std::lock_guard l(mu_);
  for (auto& [uid, slot] : slots_) {
    if (slot.running || slot.queued) continue;
    const auto view = slot.worker->view();
    const auto& found = by_pod[uid];
    if (shape_of(view->sandboxes, view->containers) == shape_of(found.sandboxes, found.containers)) continue;
    slot.worker->mark_stale();
    enqueue(uid, slot);
  }
  if (!take_orphans) return {};
  for (const auto& [uid, snapshot] : by_pod) {
    if (slots_.contains(uid) || uid.empty() || (snapshot.sandboxes.empty() && snapshot.containers.empty())) continue;
    log::info("pod {}/{}: the API does not know it, taking it down", label(labels[uid], kLabelPodNamespace),
              label(labels[uid], kLabelPodName));
    auto& slot = slots_[uid];
    slot.worker = std::make_shared<PodWorker>(ctx_, orphan_spec(uid, labels[uid]), true);
    enqueue(uid, slot);
  }
  return {};
}

void PodPool::refresh_volumes() {
  std::lock_guard l(mu_);
  for (auto& [uid, slot] : slots_) {
    if (!has_payload_volumes(*slot.worker->view()->spec)) continue;
    slot.worker->mark_refresh();
    enqueue(uid, slot);
  }
}

std::vector<std::shared_ptr<const PodView>> PodPool::views() const {
  std::lock_guard l(mu_);
  std::vector<std::shared_ptr<const PodView>> out;
  for (const auto& [uid, slot] : slots_) out.push_back(slot.worker->view());
  return out;
}

std::shared_ptr<const PodView> PodPool::view(const std::string& ns, const std::string& name) const {
  std::shared_ptr<const PodView> best;
  for (auto& v : views()) {
    if (v->spec->ns != ns || v->spec->name != name) continue;
    // A new pod may have the name of one that is still going.
    if (!best || best->spec->deleting) best = std::move(v);
  }
  return best;
}

std::set<std::string> PodPool::uids() const {
  std::lock_guard l(mu_);
  std::set<std::string> out;
  for (const auto& [uid, slot] : slots_) out.insert(uid);
  return out;
}

}  // namespace hawser::agent
