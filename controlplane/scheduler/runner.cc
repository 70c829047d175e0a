// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/runner.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "controlplane/scheduler/placement.h"
#include "controlplane/scheduler/scheduling_queue.h"
#include "controlplane/scheduler/worker_pool.h"
#include "lib/base/log.h"
#include "lib/base/time_text.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/informer.h"

namespace hawser::scheduler {
namespace {

constexpr std::size_t kBinders = 16;
constexpr Nanos kSyncCheck = std::chrono::milliseconds(100);
// How long the loop sleeps when nothing is due: for ever, in a form that clocks can add to.
constexpr Nanos kNever = std::chrono::hours(24);

const Value* field(const Object& o, std::string_view name) {
  return kube::find(o, {name});
}

bool same_request(const Object& a, const Object& b) {
  const auto same = [&](std::string_view name) {
    const Value* va = field(a, name);
    const Value* vb = field(b, name);
    return va == nullptr || vb == nullptr ? va == vb : *va == *vb;
  };
  return same("spec") && kube::obj(a, {"metadata", "labels"}) == kube::obj(b, {"metadata", "labels"});
}

// The pod's status with PodScheduled False; nothing if it says so already.
std::optional<Object> unschedulable_status(const Object& pod, std::string_view reason, const std::string& message,
                                           WallTime now) {
  Object status = kube::obj(pod, {"status"});
  Array kept;
  Object made;
  made["type"] = "PodScheduled";
  made["status"] = "False";
  made["reason"] = boost::json::string(reason.data(), reason.size());
  made["message"] = boost::json::string(message);
  made["lastTransitionTime"] = boost::json::string(rfc3339(now));
  for (const Value& v : kube::arr(status, {"conditions"})) {
    const Object& c = kube::as_obj(v);
    if (kube::str(c, {"type"}) != "PodScheduled") {
      kept.push_back(v);
      continue;
    }
    if (kube::str(c, {"status"}) != "False") continue;
    if (kube::str(c, {"reason"}) == reason && kube::str(c, {"message"}) == message) return std::nullopt;
    if (const Value* t = c.if_contains("lastTransitionTime")) made["lastTransitionTime"] = *t;
  }
  kept.push_back(std::move(made));
  status["conditions"] = std::move(kept);
  return status;
}

}  // namespace

struct Runner::Impl {
  Impl(kube::Client& c, Options o)
      : options(std::move(o)),
        clock(*options.clock),
        client(c),
        events(c, options.name, "", clock),
        pods(c, kube::kPods, {}, clock),
        nodes(c, kube::kNodes, {}, clock),
        pool(kBinders) {}

  void loop(const std::stop_token& stop);
  void wait(const std::stop_token& stop, std::unique_lock<std::mutex>& lock);
  void pod_changed(const ObjectPtr& old, const ObjectPtr& current);
  void node_changed(const ObjectPtr& current, const std::string& name);
  void try_one(const PodPtr& pod);                                                      // mu held
  void bind(const PodPtr& pod, const std::string& node);                                // on the pool
  void report(const PodPtr& pod, std::string_view reason, const std::string& message);  // on the pool
  [[nodiscard]] bool is_ours(const PodSpec& p) const { return p.scheduler_name == options.name; }

  const Options options;
  Clock& clock;
  kube::Client& client;
  kube::EventRecorder events;
  kube::Informer pods, nodes;

  std::mutex mu;
  std::condition_variable cv;
  // guarded by mu
  ClusterState state;
  SchedulingQueue queue;
  std::size_t turn = 0;
  bool news = false;  // the queue may have more than the loop last saw

  WorkerPool pool;
  std::jthread thread;
};

void Runner::Impl::pod_changed(const ObjectPtr& old, const ObjectPtr& current) {
  const PodPtr pod = current == nullptr ? nullptr : std::make_shared<const PodSpec>(PodSpec::from(current));
  const std::string key = kube::key(current != nullptr ? *current : *old);
  bool gated = false;
  {
    const std::lock_guard lock(mu);
    const MonoTime now = clock.now();
    if (pod == nullptr || pod->terminal) {
      queue.remove(key);
      if (state.has_pod(key)) {
        state.remove_pod(key);
        queue.move_all(now);
      }
    } else if (!pod->node_name.empty()) {
      queue.remove(key);
      const bool fresh = !state.has_pod(key);
      state.put_pod(pod);
      // A pod that others want to be near to may have appeared.
      if (fresh) queue.move_all(now);
    } else if (pod->deleting || !is_ours(*pod)) {
      queue.remove(key);
    } else if (pod->gated) {
      queue.remove(key);
      gated = true;
    } else if (!state.is_assumed(key, pod->uid)) {
      queue.put(pod, old == nullptr || !same_request(*old, *current), now);
    }
    news = true;
  }
  cv.notify_all();
  if (gated)
    pool.post(
        [this, pod] { report(pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"); });
}

void Runner::Impl::node_changed(const ObjectPtr& current, const std::string& name) {
  {
    const std::lock_guard lock(mu);
    if (current == nullptr) {
      state.remove_node(name);
      return;
    }
    NodeSpec spec = NodeSpec::from(*current);
    // Heartbeats change nothing that matters here.
    const NodeState* before = state.node(name);
    if (before != nullptr && before->known && before->spec == spec) return;
    state.put_node(spec);
    queue.move_all(clock.now());
    news = true;
  }
  cv.notify_all();
}

void Runner::Impl::wait(const std::stop_token& stop, std::unique_lock<std::mutex>& lock) {
  const MonoTime now = clock.now();
  const MonoTime deadline = queue.next(now).value_or(now + kNever);
  if (deadline <= now) return;
  news = false;
  clock.wait_until(lock, cv, deadline, [&] { return news || stop.stop_requested(); });
}

void Runner::Impl::loop(const std::stop_token& stop) {
  while (!nodes.wait_synced(kSyncCheck) || !pods.wait_synced(kSyncCheck))
    if (stop.stop_requested()) return;
  std::unique_lock lock(mu);
  while (!stop.stop_requested()) {
    if (const PodPtr pod = queue.pop(clock.now()); pod != nullptr) {
      try_one(pod);
      // Let the informers in between two pods.
      lock.unlock();
      lock.lock();
    } else {
      wait(stop, lock);
    }
  }
}

void Runner::Impl::try_one(const PodPtr& pod) {
  Placement where = place_pod(*pod, state, turn);
  if (where.node.empty()) {
    queue.unschedulable(pod->key, clock.now());
    pool.post([this, pod, reason = std::move(where.reason)] {
      events.record(kube::kPods, *pod->object,
                    {.warning = true, .reason = "FailedScheduling", .message = reason, .field_path = {}});
      report(pod, "Unschedulable", reason);
    });
    return;
  }
  ++turn;
  state.assume(pod, where.node);
  queue.done(pod->key);
  pool.post([this, pod, node = std::move(where.node)] { bind(pod, node); });
}

void Runner::Impl::bind(const PodPtr& pod, const std::string& node) {
  Object binding;
  binding["apiVersion"] = "v1";
  binding["kind"] = "Binding";
  Object& meta = kube::ensure(binding, {"metadata"});
  meta["name"] = boost::json::string(pod->name);
  meta["namespace"] = boost::json::string(pod->ns);
  meta["uid"] = boost::json::string(pod->uid);
  Object& target = kube::ensure(binding, {"target"});
  target["apiVersion"] = "v1";
  target["kind"] = "Node";
  target["name"] = boost::json::string(node);
  auto bound = client.create_sub(kube::kPods, pod->ns, pod->name, "binding", binding);
  if (bound) {
    events.record(kube::kPods, *pod->object,
                  {.warning = false,
                   .reason = "Scheduled",
                   .message = fmt::format("Successfully assigned {} to {}", pod->key, node),
                   .field_path = {}});
    return;
  }
  log::warn("scheduler: bind {} to {}: {}", pod->key, node, bound.error().text);
  {
    const std::lock_guard lock(mu);
    state.forget(pod->key);
    // Gone, or bound by somebody else: the informer says which. Anything else is tried again.
    const ObjectPtr now = pods.get(pod->key);
    const bool still = now != nullptr && kube::uid(*now) == pod->uid && kube::str(*now, {"spec", "nodeName"}).empty() &&
                       !kube::deleting(*now);
    if (still && !is_not_found(bound.error())) queue.failed(pod, clock.now());
    queue.move_all(clock.now());
    news = true;
  }
  cv.notify_all();
}

void Runner::Impl::report(const PodPtr& pod, std::string_view reason, const std::string& message) {
  ObjectPtr now = pods.get(pod->key);
  if (now == nullptr || kube::uid(*now) != pod->uid || !kube::str(*now, {"spec", "nodeName"}).empty()) return;
  auto status = unschedulable_status(*now, reason, message, clock.wall());
  if (!status) return;
  Object next = *now;
  next["status"] = std::move(*status);
  // A lost race means that the pod has just changed: the next attempt reports again.
  if (auto written = client.update(kube::kPods, next, "status");
      !written && !is_conflict(written.error()) && !is_not_found(written.error()))
    log::warn("scheduler: status of {}: {}", pod->key, written.error().text);
}

Runner::Runner(kube::Client& client, Options options) : impl_(std::make_unique<Impl>(client, std::move(options))) {}

Runner::~Runner() {
  stop();
}

void Runner::start() {
  impl_->nodes.start({.on_change =
                          [impl = impl_.get()](const ObjectPtr& old, const ObjectPtr& current) {
                            impl->node_changed(current, kube::key(current != nullptr ? *current : *old));
                          },
                      .on_synced = {}});
  impl_->pods.start({.on_change = [impl = impl_.get()](const ObjectPtr& old,
                                                       const ObjectPtr& current) { impl->pod_changed(old, current); },
                     .on_synced = {}});
  impl_->thread = std::jthread([impl = impl_.get()](const std::stop_token& stop) { impl->loop(stop); });
}

void Runner::stop() {
  impl_->thread.request_stop();
  {
    const std::lock_guard lock(impl_->mu);
    impl_->cv.notify_all();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->pods.stop();
  impl_->nodes.stop();
  impl_->pool.stop();
}

}  // namespace hawser::scheduler
