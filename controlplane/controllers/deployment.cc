// SPDX-License-Identifier: Apache-2.0
// The Deployment controller: applies deployment_plan.h.
#include <algorithm>
#include <mutex>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/deployment_plan.h"
#include "controlplane/controllers/ownership.h"
#include "controlplane/controllers/template_hash.h"

namespace hawser::controllers {
namespace {

class DeploymentController final : public Controller {
 public:
  explicit DeploymentController(Context& ctx) : Controller(ctx, "deployment", 4) {}

  void watch() override {
    watch_as_key(kube::kDeployments);
    watch_owned(kube::kReplicaSets, kube::kDeployments);
    cache(kube::kReplicaSets).subscribe([this](const ObjectPtr&, const ObjectPtr& current) {
      if (current != nullptr && kube::controller_of(*current).empty()) enqueue_adopters(*current);
    });
    // Recreate waits until the last old pod is gone.
    cache(kube::kPods).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current == nullptr || (is_terminal(*current) && (old == nullptr || !is_terminal(*old))))
        enqueue_recreating(current != nullptr ? *current : *old);
    });
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr d = cache(kube::kDeployments).get(key);
    if (d == nullptr) return std::nullopt;
    auto sets = claimed(*d);
    if (!sets) return propagate(sets);
    const DeploymentPlan plan = plan_deployment({*d, *sets, old_pods_run(*d, *sets), ctx_.clock.wall()});
    if (auto done = apply(d, plan); !done) return propagate(done);
    return plan.recheck;
  }

 private:
  void enqueue_adopters(const Object& rs) {
    for (const ObjectPtr& d : cache(kube::kDeployments).in_namespace(kube::ns(rs))) {
      const auto selector = kube::LabelSelector::from_object(kube::obj(*d, {"spec", "selector"}));
      if (selector && selector->matches(labels(rs))) enqueue(kube::key(*d));
    }
  }

  void enqueue_recreating(const Object& pod) {
    const Object& ref = kube::controller_of(pod);
    if (kube::str(ref, {"kind"}) != "ReplicaSet") return;
    const std::string prefix = std::string(kube::ns(pod)) + "/";
    const ObjectPtr rs = cache(kube::kReplicaSets).get(prefix + std::string(kube::str(ref, {"name"})));
    if (rs == nullptr) return;
    const std::string key = prefix + std::string(kube::str(kube::controller_of(*rs), {"name"}));
    const ObjectPtr d = cache(kube::kDeployments).get(key);
    if (d != nullptr && kube::str(*d, {"spec", "strategy", "type"}) == "Recreate") enqueue(key);
  }

  Result<std::vector<ObjectPtr>> claimed(const Object& d) {
    auto selector = kube::LabelSelector::from_object(kube::obj(d, {"spec", "selector"}));
    if (!selector) return propagate(selector, "selector");
    if (selector->empty()) return fail(EINVAL, "an empty selector would select every ReplicaSet of the namespace");
    Claim c = claim(d, *selector, cache(kube::kReplicaSets).in_namespace(kube::ns(d)));
    if (!c.adopt.empty()) {
      auto fresh = ctx_.client.get(kube::kDeployments, kube::ns(d), kube::name(d));
      if (!fresh) return propagate(fresh);
      if (kube::uid(**fresh) != kube::uid(d) || kube::deleting(**fresh)) c.adopt.clear();
    }
    for (const ObjectPtr& rs : c.adopt) {
      auto adopted = ctx_.update(kube::kReplicaSets, with_owner(*rs, controller_reference("apps/v1", "Deployment", d)));
      if (!adopted) return propagate(adopted, "adopt ReplicaSet {}", kube::name(*rs));
      c.owned.push_back(*adopted);
    }
    for (const ObjectPtr& rs : c.release)
      if (auto released = ctx_.update(kube::kReplicaSets, without_owner(*rs, kube::uid(d))); !released)
        return propagate(released, "release ReplicaSet {}", kube::name(*rs));
    return std::move(c.owned);
  }

  bool old_pods_run(const Object& d, const std::vector<ObjectPtr>& sets) {
    if (kube::str(d, {"spec", "strategy", "type"}) != "Recreate") return false;
    const ObjectPtr current = new_replica_set(d, sets);
    return std::ranges::any_of(sets, [&](const ObjectPtr& rs) {
      return rs != current && std::ranges::any_of(cache(kube::kPods).owned_by(kube::uid(*rs)),
                                                  [](const ObjectPtr& p) { return !is_terminal(*p); });
    });
  }

  Result<> apply(const ObjectPtr& d, const DeploymentPlan& plan) {
    ObjectPtr latest = d;
    if (plan.create) {
      auto made = ctx_.create(kube::kReplicaSets, *plan.create);
      if (!made && is_exists(made.error())) return resolve_collision(*d, *plan.create);
      if (!made) {
        ctx_.warn(kube::kDeployments, *d, "ReplicaSetCreateError",
                  "Failed to create new replica set: " + made.error().text);
        return propagate(made, "create ReplicaSet");
      }
    }
    for (const Object& rs : plan.update)
      if (auto written = ctx_.update(kube::kReplicaSets, rs); !written)
        return propagate(written, "ReplicaSet {}", kube::name(rs));
    for (const PlannedEvent& e : plan.events) ctx_.note(kube::kDeployments, *d, e.reason, e.message);
    for (const ObjectPtr& rs : plan.remove)
      if (auto done = ctx_.remove(kube::kReplicaSets, *rs); !done && !is_conflict(done.error()))
        return propagate(done, "remove ReplicaSet {}", kube::name(*rs));
    if (plan.deployment) {
      auto written = ctx_.update(kube::kDeployments, *plan.deployment);
      if (!written) return propagate(written, "revision");
      latest = *written;
    }
    if (plan.status)
      if (auto written = ctx_.update_status(kube::kDeployments, *latest, *plan.status); !written)
        return propagate(written, "status");
    return {};
  }

  // The name is taken: by our own ReplicaSet that the cache had not seen, or by another template with the same hash.
  Result<> resolve_collision(const Object& d, const Object& wanted) {
    auto there = ctx_.client.get(kube::kReplicaSets, kube::ns(wanted), kube::name(wanted));
    if (!there) return propagate(there);
    const bool ours = kube::str(kube::controller_of(**there), {"uid"}) == kube::uid(d);
    if (ours && same_template(kube::obj(**there, {"spec", "template"}), kube::obj(d, {"spec", "template"}))) {
      cache(kube::kReplicaSets).wrote(*there);
      return fail(EAGAIN, "ReplicaSet {} exists already", kube::name(wanted));
    }
    Object status = kube::obj(d, {"status"});
    status["collisionCount"] = kube::num(d, {"status", "collisionCount"}) + 1;
    auto written = ctx_.update_status(kube::kDeployments, d, std::move(status));
    if (!written) return propagate(written);
    return fail(EAGAIN, "the name {} is taken by another template", kube::name(wanted));
  }
};

}  // namespace

std::unique_ptr<Controller> make_deployment_controller(Context& ctx) {
  return std::make_unique<DeploymentController>(ctx);
}

}  // namespace hawser::controllers
