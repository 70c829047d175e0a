// SPDX-License-Identifier: Apache-2.0
// The node lifecycle and eviction controllers: apply node_lifecycle_plan.h.
//
// Silence is measured with our own clock from the moment we saw a lease or the node's Ready condition change, never
// from the time written in it: clocks of nodes may be wrong, and after an outage of the control plane every node gets
// its full grace period.
#include <map>
#include <mutex>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/node_lifecycle_plan.h"
#include "lib/base/log.h"

namespace hawser::controllers {
namespace {

constexpr std::string_view kLeaseNamespace = "kube-node-lease";

class NodeLifecycleController final : public Controller {
 public:
  explicit NodeLifecycleController(Context& ctx) : Controller(ctx, "nodelifecycle", 1) {}

  void watch() override {
    cache(kube::kNodes).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      node_changed(old, current);
    });
    cache(kube::kLeases).subscribe([this](const ObjectPtr&, const ObjectPtr& current) {
      if (current != nullptr && kube::ns(*current) == kLeaseNamespace) heard(std::string(kube::name(*current)));
    });
  }

  Outcome sync(const std::string& key) override {
    ObjectPtr node = cache(kube::kNodes).get(key);
    if (node == nullptr || kube::deleting(*node)) return std::nullopt;
    const Nanos left = silence_left(key);
    if (left <= Nanos(0)) {
      if (auto status = silent_status(*node, ctx_.clock.wall())) {
        auto written = ctx_.update_status(kube::kNodes, *node, std::move(*status));
        if (!written) return propagate(written, "status");
        ctx_.note(kube::kNodes, *node, "NodeNotReady", "Node " + key + " status is now: NodeNotReady");
        node = *written;
      }
    }
    auto wait = taint(*node);
    if (!wait) return wait;
    if (readiness(*node) != Readiness::kReady)
      if (auto done = mark_pods(key); !done) return propagate(done, "pods");
    std::optional<Nanos> next = *wait;
    if (left > Nanos(0) && (!next || left < *next)) next = left;
    return next;
  }

 private:
  void node_changed(const ObjectPtr& old, const ObjectPtr& current) {
    const std::string key = kube::key(current != nullptr ? *current : *old);
    if (current == nullptr) {
      const std::lock_guard lock(mu_);
      heard_.erase(key);
      return;
    }
    const Readiness before = old == nullptr ? Readiness::kUnknown : readiness(*old);
    // Only the agent sets a node Ready or not ready; Unknown is our own word.
    if (old == nullptr || (readiness(*current) != before && readiness(*current) != Readiness::kUnknown)) {
      const std::lock_guard lock(mu_);
      heard_[key] = ctx_.clock.now();
    }
    enqueue(key);
    // The last ready node going, or the first one coming back, changes what is right for the others.
    if (readiness(*current) != before)
      for (const ObjectPtr& n : cache(kube::kNodes).list())
        if (readiness(*n) != Readiness::kReady) enqueue(kube::key(*n));
  }

  void heard(const std::string& key) {
    {
      const std::lock_guard lock(mu_);
      heard_[key] = ctx_.clock.now();
    }
    // The timer that runs finds the new time and starts again: a heartbeat costs no sync of its own.
    const ObjectPtr node = cache(kube::kNodes).get(key);
    if (node != nullptr && readiness(*node) == Readiness::kUnknown) enqueue(key);
  }

  Nanos silence_left(const std::string& key) {
    const std::lock_guard lock(mu_);
    const auto it = heard_.try_emplace(key, ctx_.clock.now()).first;
    return it->second + ctx_.options.node_grace - ctx_.clock.now();
  }

  // Returns when to look again because new NoExecute taints have to wait.
  Outcome taint(const Object& node) {
    std::size_t ready = 0, not_ready = 0;
    for (const ObjectPtr& n : cache(kube::kNodes).list()) ++(readiness(*n) == Readiness::kReady ? ready : not_ready);
    const auto interval = eviction_interval(disruption(ready, not_ready), ready + not_ready);
    const bool may_evict = interval && (!last_eviction_ || ctx_.clock.now() - *last_eviction_ >= *interval);
    const auto evicting = [](const Array& taints) {
      for (const Value& t : taints)
        if (kube::str(kube::as_obj(t), {"effect"}) == "NoExecute" &&
            kube::str(kube::as_obj(t), {"key"}).starts_with("node.kubernetes.io/"))
          return true;
      return false;
    };
    auto taints =
        plan_taints({.node = node, .evict = may_evict, .lift = !interval && ready == 0, .now = ctx_.clock.wall()});
    const bool had = evicting(kube::arr(node, {"spec", "taints"}));
    const bool has = taints ? evicting(*taints) : had;
    if (taints) {
      Object next = node;
      kube::ensure(next, {"spec"})["taints"] = std::move(*taints);
      auto written = ctx_.update(kube::kNodes, next);
      if (!written) return propagate(written, "taints");
    }
    if (has && !had) last_eviction_ = ctx_.clock.now();
    if (!has && readiness(node) != Readiness::kReady && interval && last_eviction_)
      return std::max(Nanos(0), *last_eviction_ + *interval - ctx_.clock.now());
    return std::nullopt;
  }

  Result<> mark_pods(const std::string& node) {
    for (const ObjectPtr& p : cache(kube::kPods).list()) {
      if (kube::str(*p, {"spec", "nodeName"}) != node) continue;
      auto status = pod_status_not_ready(*p, ctx_.clock.wall());
      if (!status) continue;
      if (auto written = ctx_.update_status(kube::kPods, *p, std::move(*status));
          !written && !is_not_found(written.error()))
        return propagate(written);
    }
    return {};
  }

  std::mutex mu_;
  std::map<std::string, MonoTime> heard_;  // guarded by mu_
  std::optional<MonoTime> last_eviction_;  // worker thread only
};

// Deletes pods that do not tolerate the NoExecute taints of their node, when their time is up. Keys are pods.
class EvictionController final : public Controller {
 public:
  explicit EvictionController(Context& ctx) : Controller(ctx, "taint-eviction", 1) {}

  void watch() override {
    cache(kube::kNodes).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current == nullptr ||
          (old != nullptr && kube::arr(*old, {"spec", "taints"}) == kube::arr(*current, {"spec", "taints"})))
        return;
      if (!tainted(*current)) return;
      for (const ObjectPtr& p : cache(kube::kPods).list())
        if (kube::str(*p, {"spec", "nodeName"}) == kube::name(*current)) enqueue(kube::key(*p));
    });
    cache(kube::kPods).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current == nullptr) return;
      const std::string_view node = kube::str(*current, {"spec", "nodeName"});
      if (node.empty() || (old != nullptr && kube::str(*old, {"spec", "nodeName"}) == node &&
                           kube::arr(*old, {"spec", "tolerations"}) == kube::arr(*current, {"spec", "tolerations"})))
        return;
      const ObjectPtr n = cache(kube::kNodes).get(std::string(node));
      if (n != nullptr && tainted(*n)) enqueue(kube::key(*current));
    });
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr pod = cache(kube::kPods).get(key);
    if (pod == nullptr || kube::deleting(*pod)) return std::nullopt;
    const ObjectPtr node = cache(kube::kNodes).get(std::string(kube::str(*pod, {"spec", "nodeName"})));
    if (node == nullptr) return std::nullopt;
    const WallTime now = ctx_.clock.wall();
    const auto at = eviction_time(*pod, kube::arr(*node, {"spec", "taints"}), now);
    if (!at) return std::nullopt;
    if (*at > now) return *at - now;
    ctx_.note(kube::kPods, *pod, "TaintManagerEviction", "Marking for deletion Pod " + key);
    log::info("taint-eviction: pod {} leaves node {}", key, kube::name(*node));
    if (auto done = ctx_.remove(kube::kPods, *pod); !done) return propagate(done);
    return std::nullopt;
  }

 private:
  static bool tainted(const Object& node) {
    for (const Value& t : kube::arr(node, {"spec", "taints"}))
      if (kube::str(kube::as_obj(t), {"effect"}) == "NoExecute") return true;
    return false;
  }
};

}  // namespace

std::unique_ptr<Controller> make_node_lifecycle_controller(Context& ctx) {
  return std::make_unique<NodeLifecycleController>(ctx);
}
std::unique_ptr<Controller> make_eviction_controller(Context& ctx) {
  return std::make_unique<EvictionController>(ctx);
}

}  // namespace hawser::controllers
