// SPDX-License-Identifier: Apache-2.0
// Two controllers of namespaces: one gives each its default ServiceAccount and the ConfigMap kube-root-ca.crt, the
// other empties a namespace that is being deleted and then lets it go.
#include <array>

#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/pod_state.h"
#include "lib/base/time_text.h"

namespace hawser::controllers {
namespace {

constexpr std::string_view kRootCa = "kube-root-ca.crt";

bool is_terminating(const Object& ns) {
  return kube::deleting(ns) || kube::str(ns, {"status", "phase"}) == "Terminating";
}

class NamespaceBootstrapController final : public Controller {
 public:
  explicit NamespaceBootstrapController(Context& ctx) : Controller(ctx, "namespace-bootstrap", 1) {}

  void watch() override {
    watch_as_key(kube::kNamespaces);
    // What was removed or changed by hand comes back.
    cache(kube::kServiceAccounts).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      if (current == nullptr && kube::name(*old) == "default") enqueue(std::string(kube::ns(*old)));
    });
    cache(kube::kConfigMaps).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
      const Object& o = current != nullptr ? *current : *old;
      if (kube::name(o) == kRootCa) enqueue(std::string(kube::ns(o)));
    });
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr ns = cache(kube::kNamespaces).get(key);
    if (ns == nullptr || is_terminating(*ns)) return std::nullopt;
    if (cache(kube::kServiceAccounts).get(key + "/default") == nullptr) {
      auto made = ctx_.create(kube::kServiceAccounts, named("ServiceAccount", key, "default"));
      if (!made && !is_exists(made.error())) return propagate(made, "default ServiceAccount");
    }
    if (ctx_.options.ca_pem.empty()) return std::nullopt;
    if (auto done = publish_ca(key); !done) return propagate(done, "{}", kRootCa);
    return std::nullopt;
  }

 private:
  static Object named(std::string_view kind, std::string_view ns, std::string_view name) {
    Object o;
    o["apiVersion"] = "v1";
    o["kind"] = text(kind);
    Object& meta = kube::ensure(o, {"metadata"});
    meta["name"] = text(name);
    meta["namespace"] = text(ns);
    return o;
  }

  Result<> publish_ca(const std::string& ns) {
    Object data;
    data["ca.crt"] = text(ctx_.options.ca_pem);
    const ObjectPtr there = cache(kube::kConfigMaps).get(ns + "/" + std::string(kRootCa));
    if (there != nullptr) {
      if (kube::obj(*there, {"data"}) == data) return {};
      Object next = *there;
      next["data"] = std::move(data);
      auto written = ctx_.update(kube::kConfigMaps, next);
      if (!written) return propagate(written);
      return {};
    }
    Object made = named("ConfigMap", ns, kRootCa);
    kube::ensure(made, {"metadata", "annotations"})["kubernetes.io/description"] =
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
        "internal service IP "
        "or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
    made["data"] = std::move(data);
    auto created = ctx_.create(kube::kConfigMaps, made);
    if (!created && !is_exists(created.error())) return propagate(created);
    return {};
  }
};

// Pods first: what they use goes only after them. Events last, so that the end can be read.
constexpr std::array kContent{kube::kPods,           kube::kDeployments,     kube::kReplicaSets, kube::kServices,
                              kube::kEndpointSlices, kube::kEndpoints,       kube::kConfigMaps,  kube::kSecrets,
                              kube::kLeases,         kube::kServiceAccounts, kube::kEvents};

class NamespaceDeletionController final : public Controller {
 public:
  explicit NamespaceDeletionController(Context& ctx) : Controller(ctx, "namespace", 2) {}

  void watch() override {
    cache(kube::kNamespaces).subscribe([this](const ObjectPtr&, const ObjectPtr& current) {
      if (current != nullptr && kube::deleting(*current)) enqueue(kube::key(*current));
    });
    // The last object that goes lets the namespace go.
    for (const kube::Resource& r : kContent) {
      if (r.plural == kube::kEvents.plural) continue;
      cache(r).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
        if (current != nullptr) return;
        const ObjectPtr ns = cache(kube::kNamespaces).get(std::string(kube::ns(*old)));
        if (ns != nullptr && kube::deleting(*ns)) enqueue(kube::key(*ns));
      });
    }
  }

  Outcome sync(const std::string& key) override {
    const ObjectPtr ns = cache(kube::kNamespaces).get(key);
    if (ns == nullptr || !kube::deleting(*ns)) return std::nullopt;
    std::size_t left = 0;
    std::string kinds;
    for (const kube::Resource& r : kContent) {
      auto remaining = empty_of(r, key);
      if (!remaining) return propagate(remaining, "{}", r.plural);
      if (*remaining == 0) continue;
      left += *remaining;
      kinds += (kinds.empty() ? "" : ", ") + std::string(r.plural) +
               (r.group.empty() ? "" : "." + std::string(r.group)) + ". has " + std::to_string(*remaining) +
               " resource instances";
      // Pods still run and use the rest.
      if (r.plural == kube::kPods.plural) break;
    }
    if (left > 0) {
      if (auto done = report(*ns, kinds); !done) return propagate(done, "status");
      return std::nullopt;
    }
    return finalize(*ns);
  }

 private:
  // Deletes all objects of `r`; returns how many are still there, waiting for their agents or finalizers.
  Result<std::size_t> empty_of(const kube::Resource& r, const std::string& ns) {
    auto list = ctx_.client.list(r, {.ns = ns});
    if (!list) return propagate(list);
    if (list->items.empty()) return 0;
    ctx_.parallel.for_each(list->items.size(), [&](std::size_t i) {
      const Object& o = *list->items[i];
      if (kube::deleting(o)) return;
      if (r.plural == kube::kEvents.plural)
        static_cast<void>(ctx_.client.remove(r, ns, kube::name(o)));  // not cached; what is left is counted below
      else
        static_cast<void>(ctx_.remove(r, o, {.propagation = "Background"}));
    });
    list = ctx_.client.list(r, {.ns = ns});
    if (!list) return propagate(list);
    return list->items.size();
  }

  Result<> report(const Object& ns, const std::string& kinds) {
    Object status = kube::obj(ns, {"status"});
    status["phase"] = "Terminating";
    Object c;
    c["type"] = "NamespaceContentRemaining";
    c["status"] = "True";
    c["reason"] = "SomeResourcesRemain";
    c["message"] = text("Some resources are remaining: " + kinds);
    c["lastTransitionTime"] = text(rfc3339(ctx_.clock.wall()));
    if (const Object* before = condition(ns, "NamespaceContentRemaining"); before != nullptr) {
      if (kube::str(*before, {"message"}) == kube::str(c, {"message"})) return {};
      if (const Value* t = before->if_contains("lastTransitionTime")) c["lastTransitionTime"] = *t;
    }
    Array conditions;
    for (const Value& v : kube::arr(ns, {"status", "conditions"}))
      if (kube::str(kube::as_obj(v), {"type"}) != "NamespaceContentRemaining") conditions.push_back(v);
    conditions.push_back(std::move(c));
    status["conditions"] = std::move(conditions);
    auto written = ctx_.update_status(kube::kNamespaces, ns, std::move(status));
    if (!written) return propagate(written);
    return {};
  }

  Outcome finalize(const Object& ns) {
    Object next = ns;
    Array kept;
    for (const Value& f : kube::arr(ns, {"spec", "finalizers"}))
      if (!f.is_string() || f.get_string() != "kubernetes") kept.push_back(f);
    if (kept.size() == kube::arr(ns, {"spec", "finalizers"}).size()) return std::nullopt;
    kube::ensure(next, {"spec"})["finalizers"] = std::move(kept);
    auto written = ctx_.client.update(kube::kNamespaces, next, "finalize");
    if (!written && !is_not_found(written.error())) return propagate(written, "finalize");
    return std::nullopt;
  }
};

}  // namespace

std::unique_ptr<Controller> make_namespace_bootstrap_controller(Context& ctx) {
  return std::make_unique<NamespaceBootstrapController>(ctx);
}
std::unique_ptr<Controller> make_namespace_deletion_controller(Context& ctx) {
  return std::make_unique<NamespaceDeletionController>(ctx);
}

}  // namespace hawser::controllers
