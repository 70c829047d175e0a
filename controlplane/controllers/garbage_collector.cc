// SPDX-License-Identifier: Apache-2.0
// The garbage collector: applies owner_graph.h. Keys are uids. An owner that the caches do not show is asked for at the
// API before anything is deleted, because caches of different kinds are not equally new.
#include <algorithm>
#include <mutex>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/owner_graph.h"
#include "controlplane/controllers/ownership.h"

namespace hawser::controllers {
namespace {

class GarbageCollector final : public Controller {
 public:
  explicit GarbageCollector(Context& ctx) : Controller(ctx, "garbagecollector", 8) {}

  void watch() override {
    for (std::size_t i = 0; i < ctx_.caches.all().size(); ++i)
      ctx_.caches.all()[i]->subscribe(
          [this, i](const ObjectPtr& old, const ObjectPtr& current) { changed(i, old, current); });
  }

  Outcome sync(const std::string& uid) override {
    GraphNode node;
    std::vector<GraphNode> dependents;
    {
      const std::lock_guard lock(mu_);
      const GraphNode* found = graph_.find(uid);
      if (found == nullptr) return std::nullopt;
      node = *found;
      dependents = graph_.dependents(uid);
    }
    const auto owners = [&](const Object& ref, std::string_view ns) { return state_of(ref, ns); };
    CollectPlan plan = plan_collect(*node.object, dependents, owners);
    if (plan.action == Action::kDelete) {
      // The cache of this kind may be behind: somebody, we ourselves perhaps, may have just taken the reference off.
      auto live = ctx_.client.get(resource(node.kind), kube::ns(*node.object), kube::name(*node.object));
      if (!live && is_not_found(live.error())) return std::nullopt;
      if (!live) return propagate(live);
      if (kube::uid(**live) != uid) return std::nullopt;
      node.object = *live;
      plan = plan_collect(*node.object, dependents, owners);
    }
    auto done = apply(node, dependents, plan);
    if (!done) return propagate(done);
    return std::nullopt;
  }

 private:
  using Action = CollectPlan::Action;

  void changed(std::size_t kind, const ObjectPtr& old, const ObjectPtr& current) {
    std::vector<std::string> due;
    {
      const std::lock_guard lock(mu_);
      // The same name may have a new object before the old one's end was seen.
      if (old != nullptr && (current == nullptr || kube::uid(*old) != kube::uid(*current)))
        due = graph_.erase(std::string(kube::uid(*old)));
      if (current != nullptr) {
        const bool fresh = graph_.find(std::string(kube::uid(*current))) == nullptr;
        const bool same =
            !fresh && old != nullptr && !kube::deleting(*current) &&
            kube::arr(*old, {"metadata", "ownerReferences"}) == kube::arr(*current, {"metadata", "ownerReferences"});
        auto more = graph_.put(kind, current);
        if (!same) due.insert(due.end(), more.begin(), more.end());
      }
    }
    for (const std::string& uid : due) enqueue(uid);
  }

  const kube::Resource& resource(std::size_t kind) const { return ctx_.caches.all()[kind]->resource(); }

  // The table row of a kind; nullopt for one that this control plane does not serve: its objects are nobody's to judge.
  std::optional<std::size_t> kind_of(const Object& ref) const {
    const std::string_view api_version = kube::str(ref, {"apiVersion"});
    const std::size_t slash = api_version.find('/');
    const std::string_view group = slash == std::string_view::npos ? "" : api_version.substr(0, slash);
    for (std::size_t i = 0; i < ctx_.caches.all().size(); ++i)
      if (resource(i).kind == kube::str(ref, {"kind"}) && resource(i).group == group) return i;
    return std::nullopt;
  }

  OwnerState state_of(const Object& ref, std::string_view ns) {
    const std::string uid(kube::str(ref, {"uid"}));
    const auto kind = kind_of(ref);
    if (!kind) return OwnerState::kPresent;
    const kube::Resource& r = resource(*kind);
    {
      const std::lock_guard lock(mu_);
      if (const GraphNode* n = graph_.find(uid);
          n != nullptr && n->kind == *kind && (!r.namespaced || kube::ns(*n->object) == ns))
        return kube::deleting(*n->object) && has_finalizer(*n->object, "foregroundDeletion")
                   ? OwnerState::kDeletingDependents
                   : OwnerState::kPresent;
    }
    auto live = ctx_.client.get(r, r.namespaced ? ns : std::string_view(), kube::str(ref, {"name"}));
    if (!live) return is_not_found(live.error()) ? OwnerState::kAbsent : OwnerState::kUnknown;
    return kube::uid(**live) == uid ? OwnerState::kPresent : OwnerState::kAbsent;
  }

  Result<> apply(const GraphNode& node, const std::vector<GraphNode>& dependents, const CollectPlan& plan) {
    const kube::Resource& r = resource(node.kind);
    switch (plan.action) {
      case Action::kNothing:
        return {};
      case Action::kRetry:
        return fail(EAGAIN, "an owner of {} {} cannot be looked up", r.plural, kube::key(*node.object));
      case Action::kDelete:
        return ctx_.remove(
            r, *node.object,
            {.resource_version = std::string(kube::resource_version(*node.object)), .propagation = plan.propagation});
      case Action::kDropReferences:
        return drop_references(node, plan.gone);
      case Action::kOrphanDependents:
        return orphan(node, dependents);
      case Action::kDeleteDependents:
        return delete_dependents(dependents);
      case Action::kRemoveForeground:
        return take_off(node, "foregroundDeletion");
    }
    return {};
  }

  // Read again and written with that version: the graph may be behind.
  Result<> change(const GraphNode& node, const std::function<Object(const Object&)>& edit) {
    const kube::Resource& r = resource(node.kind);
    auto live = ctx_.client.get(r, kube::ns(*node.object), kube::name(*node.object));
    if (!live) return is_not_found(live.error()) ? Result<>() : propagate(live);
    if (kube::uid(**live) != kube::uid(*node.object)) return {};
    Object next = edit(**live);
    if (next == **live) return {};
    auto written = ctx_.update(r, next);
    if (!written && !is_not_found(written.error())) return propagate(written);
    return {};
  }

  Result<> drop_references(const GraphNode& node, const std::vector<std::string>& gone) {
    return change(node, [&](const Object& o) {
      Object next = o;
      for (const std::string& uid : gone) next = without_owner(next, uid);
      return next;
    });
  }

  Result<> take_off(const GraphNode& node, std::string_view finalizer) {
    return change(node, [&](const Object& o) { return without_finalizer(o, finalizer); });
  }

  Result<> orphan(const GraphNode& node, const std::vector<GraphNode>& dependents) {
    for (const GraphNode& d : dependents)
      if (auto done = drop_references(d, {std::string(kube::uid(*node.object))}); !done) return done;
    return take_off(node, "orphan");
  }

  // The last of them makes this object due again.
  Result<> delete_dependents(const std::vector<GraphNode>& dependents) {
    for (const GraphNode& d : dependents)
      if (!kube::deleting(*d.object)) enqueue(std::string(kube::uid(*d.object)));
    return {};
  }

  mutable std::mutex mu_;
  OwnerGraph graph_;  // guarded by mu_
};

constexpr std::string_view kPodGcKey = "finished";

// Removes pods that nobody else will: those on a node that no longer exists, those being deleted that never had a node,
// and the oldest finished ones when there are too many.
class PodGcController final : public Controller {
 public:
  explicit PodGcController(Context& ctx) : Controller(ctx, "podgc", 1) {}

  void watch() override {
    cache(kube::kNodes).subscribe([this](const ObjectPtr&, const ObjectPtr& current) {
      if (current == nullptr) enqueue(std::string(kPodGcKey));
    });
    cache(kube::kPods).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current == nullptr) return;
      const bool stranded = kube::deleting(*current) && kube::str(*current, {"spec", "nodeName"}).empty();
      const bool finished = is_terminal(*current) && (old == nullptr || !is_terminal(*old));
      if (stranded || finished || old == nullptr) enqueue(std::string(kPodGcKey));
    });
  }

  Outcome sync(const std::string&) override {
    std::vector<ObjectPtr> finished;
    for (const ObjectPtr& p : cache(kube::kPods).list()) {
      const std::string node(kube::str(*p, {"spec", "nodeName"}));
      const bool unplaced = node.empty() && kube::deleting(*p) && kube::arr(*p, {"metadata", "finalizers"}).empty();
      if (unplaced || (!node.empty() && node_is_gone(node))) {
        if (auto done = ctx_.remove(kube::kPods, *p, {.grace_period_seconds = 0}); !done) return propagate(done);
      } else if (is_terminal(*p)) {
        finished.push_back(p);
      }
    }
    if (finished.size() <= ctx_.options.terminated_pods) return std::nullopt;
    std::ranges::sort(finished, {}, [](const ObjectPtr& p) { return created_at(*p).value_or(WallTime{}); });
    for (std::size_t i = 0; i < finished.size() - ctx_.options.terminated_pods; ++i)
      if (auto done = ctx_.remove(kube::kPods, *finished[i], {.grace_period_seconds = 0}); !done)
        return propagate(done);
    return std::nullopt;
  }

 private:
  // The cache alone is not enough to take a running pod's object away.
  bool node_is_gone(const std::string& node) {
    if (cache(kube::kNodes).get(node) != nullptr) return false;
    auto live = ctx_.client.get(kube::kNodes, "", node);
    return !live && is_not_found(live.error());
  }
};

}  // namespace

std::unique_ptr<Controller> make_garbage_collector(Context& ctx) {
  return std::make_unique<GarbageCollector>(ctx);
}
std::unique_ptr<Controller> make_pod_gc_controller(Context& ctx) {
  return std::make_unique<PodGcController>(ctx);
}

}  // namespace hawser::controllers
