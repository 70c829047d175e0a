// SPDX-License-Identifier: Apache-2.0
// The ReplicaSet controller: keeps the number of pods, through replica_set_plan.h.
#include <algorithm>
#include <mutex>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/ownership.h"
#include "controlplane/controllers/replica_set_plan.h"

namespace hawser::controllers {
namespace {

// A batch of creations starts small, so that a template nobody accepts costs one refused call and not hundreds.
constexpr std::size_t kFirstBatch = 1;
constexpr std::size_t kBatchGrowth = 4;
constexpr std::size_t kMaxBurst = 500;

class ReplicaSetController final : public Controller {
 public:
  explicit ReplicaSetController(Context& ctx) : Controller(ctx, "replicaset", 4) {}

  void watch() override {
    watch_as_key(kube::kReplicaSets);
    watch_owned(kube::kPods, kube::kReplicaSets);
    cache(kube::kPods).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current != nullptr && kube::controller_of(*current).empty() &&
          (old == nullptr || labels(*old) != labels(*current) || !kube::controller_of(*old).empty()))
        enqueue_adopters(*current);
    });
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr rs = cache(kube::kReplicaSets).get(key);
    if (rs == nullptr) return std::nullopt;
    auto pods = claimed(*rs);
    if (!pods) return propagate(pods);
    std::optional<ReplicaFailure> failure;
    if (!kube::deleting(*rs)) {
      failure = manage(*rs, *pods);
      if (auto again = claimed(*rs)) pods = std::move(again);
    }
    auto status = plan_status({*rs, *pods, {}, ctx_.clock.wall()}, failure);
    if (status.status)
      if (auto written = ctx_.update_status(kube::kReplicaSets, *rs, std::move(*status.status));
          !written && !is_not_found(written.error()))
        return propagate(written, "status");
    if (failure) return fail(EAGAIN, "{}", failure->message);
    return status.recheck;
  }

 private:
  // An orphan pod may fit any ReplicaSet of its namespace.
  void enqueue_adopters(const Object& pod) {
    if (labels(pod).empty()) return;
    for (const ObjectPtr& rs : cache(kube::kReplicaSets).in_namespace(kube::ns(pod))) {
      const auto selector = kube::LabelSelector::from_object(kube::obj(*rs, {"spec", "selector"}));
      if (selector && selector->matches(labels(pod))) enqueue(kube::key(*rs));
    }
  }

  Result<std::vector<ObjectPtr>> claimed(const Object& rs) {
    auto selector = kube::LabelSelector::from_object(kube::obj(rs, {"spec", "selector"}));
    if (!selector) return propagate(selector, "selector");
    if (selector->empty()) return fail(EINVAL, "an empty selector would select every pod of the namespace");
    Claim c = claim(rs, *selector, cache(kube::kPods).in_namespace(kube::ns(rs)));
    if (!c.adopt.empty()) {
      // The cache may be late: an owner that is being deleted must not take pods with it.
      auto fresh = ctx_.client.get(kube::kReplicaSets, kube::ns(rs), kube::name(rs));
      if (!fresh) return propagate(fresh);
      if (kube::uid(**fresh) != kube::uid(rs) || kube::deleting(**fresh)) c.adopt.clear();
    }
    for (const ObjectPtr& p : c.adopt) {
      auto adopted = ctx_.update(kube::kPods, with_owner(*p, controller_reference("apps/v1", "ReplicaSet", rs)));
      if (adopted)
        c.owned.push_back(*adopted);
      else if (!is_not_found(adopted.error()))
        return propagate(adopted, "adopt pod {}", kube::name(*p));
    }
    for (const ObjectPtr& p : c.release)
      if (auto released = ctx_.update(kube::kPods, without_owner(*p, kube::uid(rs)));
          !released && !is_not_found(released.error()))
        return propagate(released, "release pod {}", kube::name(*p));
    return std::move(c.owned);
  }

  // Active pods of all ReplicaSets of the same Deployment.
  std::vector<ObjectPtr> related(const Object& rs, const std::vector<ObjectPtr>& own) {
    const std::string_view owner = kube::str(kube::controller_of(rs), {"uid"});
    if (owner.empty()) return own;
    std::vector<ObjectPtr> out;
    for (const ObjectPtr& sibling : cache(kube::kReplicaSets).owned_by(owner))
      for (ObjectPtr& p : cache(kube::kPods).owned_by(kube::uid(*sibling))) out.push_back(std::move(p));
    return out;
  }

  std::optional<ReplicaFailure> manage(const Object& rs, const std::vector<ObjectPtr>& pods) {
    const ReplicaSetPlan plan = plan_replicas({rs, pods, related(rs, pods), ctx_.clock.wall()});
    // Nothing can be made in a namespace that is being deleted: no failure, and nothing to try again.
    const ObjectPtr ns = cache(kube::kNamespaces).get(std::string(kube::ns(rs)));
    if (plan.create > 0 && ns != nullptr && kube::deleting(*ns)) return std::nullopt;
    if (plan.create > 0) return create_pods(rs, std::min(static_cast<std::size_t>(plan.create), kMaxBurst));
    if (!plan.remove.empty()) return remove_pods(rs, plan.remove);
    return std::nullopt;
  }

  std::optional<ReplicaFailure> create_pods(const Object& rs, std::size_t n) {
    const Object pod = pod_from_template(rs);
    std::optional<ReplicaFailure> failure;
    std::mutex mu;
    for (std::size_t done = 0, batch = std::min(kFirstBatch, n); batch > 0 && !failure;
         done += batch, batch = std::min(batch * kBatchGrowth, n - done)) {
      ctx_.parallel.for_each(batch, [&](std::size_t) {
        auto made = ctx_.create(kube::kPods, pod);
        if (made) {
          ctx_.note(kube::kReplicaSets, rs, "SuccessfulCreate", "Created pod: " + std::string(kube::name(**made)));
          return;
        }
        const std::lock_guard lock(mu);
        if (!failure) failure = {"FailedCreate", made.error().text};
      });
    }
    if (failure) ctx_.warn(kube::kReplicaSets, rs, "FailedCreate", "Error creating: " + failure->message);
    return failure;
  }

  std::optional<ReplicaFailure> remove_pods(const Object& rs, const std::vector<ObjectPtr>& pods) {
    std::optional<ReplicaFailure> failure;
    std::mutex mu;
    ctx_.parallel.for_each(pods.size(), [&](std::size_t i) {
      auto done = ctx_.remove(kube::kPods, *pods[i]);
      if (done) {
        ctx_.note(kube::kReplicaSets, rs, "SuccessfulDelete", "Deleted pod: " + std::string(kube::name(*pods[i])));
        return;
      }
      const std::lock_guard lock(mu);
      if (!failure) failure = {"FailedDelete", done.error().text};
    });
    if (failure) ctx_.warn(kube::kReplicaSets, rs, "FailedDelete", "Error deleting: " + failure->message);
    return failure;
  }
};

}  // namespace

std::unique_ptr<Controller> make_replica_set_controller(Context& ctx) {
  return std::make_unique<ReplicaSetController>(ctx);
}

}  // namespace hawser::controllers
