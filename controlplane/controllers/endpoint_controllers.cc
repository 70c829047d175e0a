// SPDX-License-Identifier: Apache-2.0
// The EndpointSlice and Endpoints controllers and the one that mirrors Endpoints of users into slices. The plans are in
// endpoint_slice_plan.h and endpoints_plan.h.
//
// A change is published at once; only what follows within Options::slice_interval for the same Service is gathered into
// one write.
#include <algorithm>
#include <map>
#include <mutex>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/endpoint_slice_plan.h"
#include "controlplane/controllers/endpoints_plan.h"
#include "controlplane/controllers/service_watch.h"

namespace hawser::controllers {
namespace {

// Not two writes for one key within the interval.
class Pace {
 public:
  Pace(Clock& clock, Nanos interval) : clock_(clock), interval_(interval) {}
  // Time to wait before `key` may be written; nothing: now, and counted as written.
  std::optional<Nanos> wait(const std::string& key) {
    const std::lock_guard lock(mu_);
    const MonoTime now = clock_.now();
    const auto [it, first] = last_.try_emplace(key, now);
    if (first) return std::nullopt;
    if (now - it->second < interval_) return it->second + interval_ - now;
    it->second = now;
    return std::nullopt;
  }
  void forget(const std::string& key) {
    const std::lock_guard lock(mu_);
    last_.erase(key);
  }

 private:
  Clock& clock_;
  const Nanos interval_;
  std::mutex mu_;
  std::map<std::string, MonoTime> last_;  // guarded by mu_
};

// TriggerTimes for several workers.
class SharedTriggers {
 public:
  std::optional<WallTime> next(const Object& service, const std::vector<ObjectPtr>& pods) {
    const std::lock_guard lock(mu_);
    return times_.next(service, pods);
  }
  void forget(const std::string& key) {
    const std::lock_guard lock(mu_);
    times_.forget(key);
  }

 private:
  std::mutex mu_;
  TriggerTimes times_;  // guarded by mu_
};

std::vector<ObjectPtr> slices_of(KindCache& cache, std::string_view ns, std::string_view name,
                                 std::string_view managed_by) {
  std::vector<ObjectPtr> out;
  for (ObjectPtr& s : cache.in_namespace(ns))
    if (label(*s, kServiceNameLabel) == name && label(*s, kManagedBy) == managed_by) out.push_back(std::move(s));
  return out;
}

Result<> apply_slices(Context& ctx, const SlicePlan& plan) {
  for (const Object& s : plan.create)
    if (auto made = ctx.create(kube::kEndpointSlices, s); !made) return propagate(made, "create EndpointSlice");
  for (const Object& s : plan.update)
    if (auto written = ctx.update(kube::kEndpointSlices, s); !written)
      return propagate(written, "EndpointSlice {}", kube::name(s));
  for (const ObjectPtr& s : plan.remove)
    if (auto done = ctx.remove(kube::kEndpointSlices, *s); !done)
      return propagate(done, "remove EndpointSlice {}", kube::name(*s));
  return {};
}

class SliceControllerBase : public Controller {
 public:
  SliceControllerBase(Context& ctx, std::string_view name, int workers)
      : Controller(ctx, name, workers), pace_(ctx.clock, ctx.options.slice_interval) {}

 protected:
  // A slice of ours that somebody else changed or removed is put right.
  void watch_slices(std::string_view managed_by) {
    cache(kube::kEndpointSlices).subscribe([this, managed_by](const ObjectPtr& old, const ObjectPtr& current) {
      for (const ObjectPtr& s : {old, current})
        if (s != nullptr && label(*s, kManagedBy) == managed_by)
          enqueue(std::string(kube::ns(*s)) + "/" + std::string(label(*s, kServiceNameLabel)));
    });
  }

  Result<> remove_slices(const std::string& key, std::string_view managed_by) {
    const std::size_t slash = key.find('/');
    pace_.forget(key);
    triggers_.forget(key);
    SlicePlan plan;
    plan.remove = slices_of(cache(kube::kEndpointSlices), key.substr(0, slash), key.substr(slash + 1), managed_by);
    return apply_slices(ctx_, plan);
  }

  Outcome publish(const SlicePlan& plan) {
    auto done = apply_slices(ctx_, plan);
    if (!done) return propagate(done);
    return std::nullopt;
  }

  Pace pace_;
  SharedTriggers triggers_;
};

class EndpointSliceController final : public SliceControllerBase {
 public:
  explicit EndpointSliceController(Context& ctx) : SliceControllerBase(ctx, "endpointslice", 4) {}

  void watch() override {
    watch_service_inputs(ctx_.caches, [this](const std::string& key) { enqueue(key); });
    watch_slices(kSliceController);
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr service = cache(kube::kServices).get(key);
    if (service == nullptr || !has_selector(*service) || is_external_name(*service)) {
      auto done = remove_slices(key, kSliceController);
      if (!done) return propagate(done);
      return std::nullopt;
    }
    if (kube::deleting(*service)) return std::nullopt;
    if (auto later = pace_.wait(key)) return later;
    const ServiceView view = view_service(ctx_.caches, *service);
    const auto slices =
        slices_of(cache(kube::kEndpointSlices), kube::ns(*service), kube::name(*service), kSliceController);
    return publish(plan_slices({.parent = *service,
                                .endpoints = view.endpoints,
                                .slices = slices,
                                .families_v6 = wants_v6(*service),
                                .trigger = triggers_.next(*service, view.pods),
                                .per_slice = ctx_.options.endpoints_per_slice}));
  }
};

class EndpointsController final : public Controller {
 public:
  explicit EndpointsController(Context& ctx)
      : Controller(ctx, "endpoints", 2), pace_(ctx.clock, ctx.options.slice_interval) {}

  void watch() override {
    watch_service_inputs(ctx_.caches, [this](const std::string& key) { enqueue(key); });
    // Endpoints that a user made before their Service are none of our business.
    cache(kube::kEndpoints).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      const std::string key = kube::key(current != nullptr ? *current : *old);
      if (cache(kube::kServices).get(key) != nullptr) enqueue(key);
    });
  }

  // What a Service left behind that went while no controller was running.
  void prepare() override {
    for (const ObjectPtr& e : cache(kube::kEndpoints).list())
      if (cache(kube::kServices).get(kube::key(*e)) == nullptr) enqueue(kube::key(*e));
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr service = cache(kube::kServices).get(key);
    const ObjectPtr stored = cache(kube::kEndpoints).get(key);
    if (service == nullptr) return remove(key, stored);
    if (!has_selector(*service) || is_external_name(*service) || kube::deleting(*service)) return std::nullopt;
    if (auto later = pace_.wait(key)) return later;
    const ServiceView view = view_service(ctx_.caches, *service);
    auto next = plan_endpoints({*service, view.endpoints, stored.get(), triggers_.next(*service, view.pods)});
    if (!next) return std::nullopt;
    auto written = stored != nullptr ? ctx_.update(kube::kEndpoints, *next) : ctx_.create(kube::kEndpoints, *next);
    if (!written) return propagate(written);
    return std::nullopt;
  }

 private:
  // Called for a Service that went. An Endpoints object that is used as a lock is no Service's.
  Outcome remove(const std::string& key, const ObjectPtr& stored) {
    pace_.forget(key);
    triggers_.forget(key);
    if (stored == nullptr || !annotation(*stored, "control-plane.alpha.kubernetes.io/leader").empty())
      return std::nullopt;
    auto done = ctx_.remove(kube::kEndpoints, *stored);
    if (!done) return propagate(done);
    return std::nullopt;
  }
  Pace pace_;
  SharedTriggers triggers_;
};

class SliceMirrorController final : public SliceControllerBase {
 public:
  explicit SliceMirrorController(Context& ctx) : SliceControllerBase(ctx, "endpointslicemirroring", 1) {}

  void watch() override {
    watch_as_key(kube::kServices);
    watch_as_key(kube::kEndpoints);
    watch_slices(kMirrorController);
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr service = cache(kube::kServices).get(key);
    const ObjectPtr endpoints = cache(kube::kEndpoints).get(key);
    const bool mirrored = service != nullptr && endpoints != nullptr && !has_selector(*service) &&
                          !is_external_name(*service) &&
                          label(*endpoints, "endpointslice.kubernetes.io/skip-mirror") != "true" &&
                          annotation(*endpoints, "control-plane.alpha.kubernetes.io/leader").empty();
    if (!mirrored) {
      auto done = remove_slices(key, kMirrorController);
      if (!done) return propagate(done);
      return std::nullopt;
    }
    if (auto later = pace_.wait(key)) return later;
    const auto slices =
        slices_of(cache(kube::kEndpointSlices), kube::ns(*service), kube::name(*service), kMirrorController);
    const auto mirrored_list = mirrored_endpoints(*endpoints);
    return publish(plan_slices({.parent = *endpoints,
                                .parent_kind = "Endpoints",
                                .managed_by = kMirrorController,
                                .endpoints = mirrored_list,
                                .slices = slices,
                                .per_slice = ctx_.options.endpoints_per_slice}));
  }
};

}  // namespace

std::unique_ptr<Controller> make_endpoint_slice_controller(Context& ctx) {
  return std::make_unique<EndpointSliceController>(ctx);
}
std::unique_ptr<Controller> make_endpoints_controller(Context& ctx) {
  return std::make_unique<EndpointsController>(ctx);
}
std::unique_ptr<Controller> make_slice_mirror_controller(Context& ctx) {
  return std::make_unique<SliceMirrorController>(ctx);
}

}  // namespace hawser::controllers
