// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/strategy.h"

#include <algorithm>
#include <array>

#include "lib/base/random.h"
#include "lib/base/time_text.h"

namespace hawser::apiserver {

using kube::Array;

namespace {

constexpr std::int64_t kDefaultGraceSeconds = 30;
constexpr std::int64_t kTolerationSeconds = 300;

bool is_pod(const Kind& k) {
  return is_kind(k, "", "pods");
}
bool is_namespace(const Kind& k) {
  return is_kind(k, "", "namespaces");
}

// Resources that decide the QoS class.
constexpr std::array<std::string_view, 2> kQosResources = {"cpu", "memory"};

bool sets_any(const Object& amounts) {
  return std::ranges::any_of(kQosResources, [&](auto r) { return amounts.contains(r); });
}

bool limits_equal_requests(const Object& resources) {
  auto& limits = kube::obj(resources, {"limits"});
  auto& requests = kube::obj(resources, {"requests"});
  return std::ranges::all_of(kQosResources, [&](auto r) {
    auto* limit = limits.if_contains(r);
    auto* request = requests.if_contains(r);
    return limit != nullptr && (request == nullptr || *request == *limit);
  });
}

std::string_view qos_class(const Object& pod) {
  bool any = false;
  bool guaranteed = true;
  for (auto path : {"containers", "initContainers"}) {
    for (auto& c : kube::arr(pod, {"spec", path})) {
      auto& resources = kube::obj(kube::as_obj(c), {"resources"});
      any = any || sets_any(kube::obj(resources, {"limits"})) || sets_any(kube::obj(resources, {"requests"}));
      guaranteed = guaranteed && limits_equal_requests(resources);
    }
  }
  return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

bool tolerates(const Array& tolerations, std::string_view taint) {
  return std::ranges::any_of(tolerations, [&](auto& t) {
    auto& o = kube::as_obj(t);
    auto key = kube::str(o, {"key"});
    auto effect = kube::str(o, {"effect"});
    return (key == taint || key.empty()) && (effect.empty() || effect == "NoExecute");
  });
}

// Pods stay five minutes on a node that went away (admission plugin DefaultTolerationSeconds).
void add_default_tolerations(Object& spec) {
  auto& slot = spec["tolerations"];
  if (!slot.is_array()) slot = Array();
  auto& tolerations = slot.get_array();
  for (auto* taint : {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}) {
    if (tolerates(tolerations, taint)) continue;
    tolerations.push_back(Object{
        {"key", taint}, {"operator", "Exists"}, {"effect", "NoExecute"}, {"tolerationSeconds", kTolerationSeconds}});
  }
}

void admit_pod(Object& o) {
  auto& spec = kube::ensure(o, {"spec"});
  if (kube::str(spec, {"serviceAccountName"}).empty()) spec["serviceAccountName"] = "default";
  // A copy: the new member may move the others.
  Value account = spec["serviceAccountName"];
  spec["serviceAccount"] = std::move(account);
  if (!spec.contains("priority")) spec["priority"] = 0;
  if (!spec.contains("preemptionPolicy")) spec["preemptionPolicy"] = "PreemptLowerPriority";
  add_default_tolerations(spec);
  o["status"] = Object{{"phase", "Pending"}, {"qosClass", qos_class(o)}};
}

void admit_namespace(Object& o) {
  auto& spec = kube::ensure(o, {"spec"});
  auto& finalizers = spec["finalizers"];
  if (!finalizers.is_array()) finalizers = Array();
  auto& list = finalizers.get_array();
  if (std::ranges::find(list, Value(kNamespaceFinalizer)) == list.end()) list.emplace_back(kNamespaceFinalizer);
  o["status"] = Object{{"phase", "Active"}};
  std::string name(kube::name(o));
  kube::ensure(o, {"metadata", "labels"})["kubernetes.io/metadata.name"] = name;
}

void keep(const Object& from, Object& to, std::string_view key) {
  if (auto* v = from.if_contains(key)) {
    to[key] = *v;
  } else {
    to.erase(key);
  }
}

bool same_member(const Object& a, const Object& b, std::string_view key) {
  auto* x = a.if_contains(key);
  auto* y = b.if_contains(key);
  return x == nullptr || y == nullptr ? x == y : *x == *y;
}

// A status write may also change labels and annotations of these (their writers are kubelets and cloud parts).
bool status_takes_metadata(const Kind& k) {
  return is_pod(k) || is_kind(k, "", "nodes");
}

// Only `member` of what the client sent counts; the rest stays as it is.
void restrict_to(const Kind& k, const Object& old, Object& next, std::string_view member) {
  Object result = old;
  keep(next, result, member);
  auto& metadata = result["metadata"].as_object();
  auto& sent = kube::obj(next, {"metadata"});
  if (status_takes_metadata(k)) {
    for (auto* key : {"labels", "annotations", "finalizers"}) keep(sent, metadata, key);
  }
  keep(sent, metadata, "resourceVersion");
  next = std::move(result);
}

std::int64_t pod_grace(const Object& pod, const DeleteRequest& r) {
  auto phase = kube::str(pod, {"status", "phase"});
  // No agent will ever confirm the end of these.
  if (kube::str(pod, {"spec", "nodeName"}).empty() || phase == "Failed" || phase == "Succeeded") return 0;
  auto grace =
      r.grace_seconds.value_or(kube::num(pod, {"spec", "terminationGracePeriodSeconds"}, kDefaultGraceSeconds));
  return grace < 0 ? 1 : grace;
}

Array finalizers_after(const Object& o, std::string_view propagation) {
  Array out;
  for (auto& f : kube::arr(o, {"metadata", "finalizers"})) {
    bool ours = f == Value(kOrphanFinalizer) || f == Value(kForegroundFinalizer);
    if (!ours || propagation.empty()) out.push_back(f);
  }
  if (propagation == "Orphan") out.emplace_back(kOrphanFinalizer);
  if (propagation == "Foreground") out.emplace_back(kForegroundFinalizer);
  return out;
}

}  // namespace

bool is_kind(const Kind& k, std::string_view group, std::string_view plural) {
  return k.plural == plural && k.group == group;
}

void prepare_create(const Kind& k, Object& o, WallTime now) {
  auto& metadata = kube::ensure(o, {"metadata"});
  for (auto* key : {"deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "resourceVersion",
                    "generation"}) {
    metadata.erase(key);
  }
  metadata["uid"] = uuid_v4();
  metadata["creationTimestamp"] = rfc3339(now);
  if (k.has_generation) metadata["generation"] = 1;
  // A node registers with its status.
  if (k.has_status && !is_kind(k, "", "nodes")) o.erase("status");
  if (is_pod(k)) admit_pod(o);
  if (is_namespace(k)) admit_namespace(o);
  if (is_kind(k, "", "services")) o["status"] = Object{{"loadBalancer", Object()}};
}

void prepare_update(const Kind& k, const Object& old, Object& next, std::string_view subresource) {
  if (subresource == "status") {
    restrict_to(k, old, next, "status");
  } else if (subresource == "finalize") {
    restrict_to(k, old, next, "spec");
  } else if (k.has_status && subresource != "binding") {
    keep(old, next, "status");
  }
  if (is_namespace(k) && subresource.empty()) keep(old, next, "spec");
  auto& before = kube::obj(old, {"metadata"});
  auto& metadata = kube::ensure(next, {"metadata"});
  for (auto* key : {"name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
                    "generation", "generateName"}) {
    keep(before, metadata, key);
  }
  metadata.erase("managedFields");
  metadata.erase("selfLink");
  if (k.has_generation && subresource != "status" && !same_member(old, next, "spec")) {
    metadata["generation"] = kube::num(old, {"metadata", "generation"}) + 1;
  }
}

bool creates_on_update(const Kind& k) {
  return is_kind(k, "coordination.k8s.io", "leases") || is_kind(k, "", "endpoints") || is_kind(k, "", "events");
}

bool allows_unconditional_update(const Kind& k) {
  return !is_kind(k, "coordination.k8s.io", "leases");
}

bool returns_deleted(const Kind& k) {
  return is_pod(k) || is_kind(k, "", "services") || is_kind(k, "", "serviceaccounts");
}

std::optional<Object> mark_deleted(const Kind& k, const Object& current, const DeleteRequest& r, WallTime now) {
  Object o = current;
  auto& metadata = o["metadata"].as_object();
  std::int64_t grace = is_pod(k) ? pod_grace(current, r) : 0;
  bool already = kube::deleting(current);
  if (already) {
    // A second request can only shorten the wait.
    grace =
        std::min(r.grace_seconds || !is_pod(k) ? grace : kube::num(current, {"metadata", "deletionGracePeriodSeconds"}),
                 kube::num(current, {"metadata", "deletionGracePeriodSeconds"}));
  }
  auto finalizers = finalizers_after(current, r.propagation);
  if (finalizers.empty()) {
    metadata.erase("finalizers");
  } else {
    metadata["finalizers"] = std::move(finalizers);
  }
  if (!already || grace != kube::num(current, {"metadata", "deletionGracePeriodSeconds"})) {
    metadata["deletionTimestamp"] = rfc3339(now + std::chrono::seconds(grace));
    metadata["deletionGracePeriodSeconds"] = grace;
    if (auto generation = kube::num(current, {"metadata", "generation"}); generation > 0 && !already) {
      metadata["generation"] = generation + 1;
    }
  }
  if (is_namespace(k)) kube::ensure(o, {"status"})["phase"] = "Terminating";
  if (may_vanish(k, o)) return std::nullopt;
  return o;
}

bool may_vanish(const Kind& k, const Object& o) {
  if (!kube::deleting(o) || !kube::arr(o, {"metadata", "finalizers"}).empty()) return false;
  if (is_namespace(k) && !kube::arr(o, {"spec", "finalizers"}).empty()) return false;
  return kube::num(o, {"metadata", "deletionGracePeriodSeconds"}) == 0;
}

}  // namespace hawser::apiserver
