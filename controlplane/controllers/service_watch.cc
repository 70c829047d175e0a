// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/service_watch.h"

#include <algorithm>
#include <set>

#include "lib/kube/selector.h"

namespace hawser::controllers {
namespace {

constexpr std::string_view kZoneLabel = "topology.kubernetes.io/zone";

bool selects(const Object& service, const Object& pod) {
  const Object& selector = kube::obj(service, {"spec", "selector"});
  if (selector.empty()) return false;
  const Object& have = labels(pod);
  return std::ranges::all_of(selector, [&](const auto& want) {
    const Value* v = have.if_contains(want.key());
    return v != nullptr && *v == want.value();
  });
}

}  // namespace

void watch_service_inputs(Caches& caches, const std::function<void(const std::string&)>& due) {
  caches.of(kube::kServices).subscribe([due](const ObjectPtr& old, const ObjectPtr& current) {
    due(kube::key(current != nullptr ? *current : *old));
  });
  caches.of(kube::kPods)
      .subscribe([due, &services = caches.of(kube::kServices)](const ObjectPtr& old, const ObjectPtr& current) {
        if (old != nullptr && current != nullptr && same_endpoint_input(*old, *current)) return;
        for (const ObjectPtr& s : services.in_namespace(kube::ns(current != nullptr ? *current : *old)))
          if ((old != nullptr && selects(*s, *old)) || (current != nullptr && selects(*s, *current)))
            due(kube::key(*s));
      });
  caches.of(kube::kNodes)
      .subscribe([due, &services = caches.of(kube::kServices)](const ObjectPtr& old, const ObjectPtr& current) {
        const std::string_view before = old == nullptr ? "" : label(*old, kZoneLabel);
        const std::string_view after = current == nullptr ? "" : label(*current, kZoneLabel);
        if (before == after) return;
        for (const ObjectPtr& s : services.list()) due(kube::key(*s));
      });
}

ServiceView view_service(Caches& caches, const Object& service) {
  ServiceView out;
  for (ObjectPtr& p : caches.of(kube::kPods).in_namespace(kube::ns(service)))
    if (selects(service, *p)) out.pods.push_back(std::move(p));
  const auto zone = [&nodes = caches.of(kube::kNodes)](std::string_view node) {
    const ObjectPtr n = nodes.get(std::string(node));
    return n == nullptr ? std::string() : std::string(label(*n, kZoneLabel));
  };
  out.endpoints = service_endpoints(service, out.pods, zone);
  return out;
}

}  // namespace hawser::controllers
