// SPDX-License-Identifier: Apache-2.0
// Defaults: first those of the table, type by type; then, for each type named below, what depends on other fields.
#include <algorithm>
#include <array>

#include <boost/json/array.hpp>

#include "controlplane/schema/image.h"
#include "controlplane/schema/scalar.h"
#include "controlplane/schema/type_table.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

namespace json = boost::json;
using kube::Array;

void default_to(Object& o, std::string_view field, json::value v) {
  auto* at = o.if_contains(field);
  if (!at)
    o.emplace(field, std::move(v));
  else if (at->is_null())
    *at = std::move(v);
}

Array* list_at(Object& o, std::string_view field) {
  auto* v = o.if_contains(field);
  return v ? v->if_array() : nullptr;
}

Object* object_at(Object& o, std::string_view field) {
  auto* v = o.if_contains(field);
  return v ? v->if_object() : nullptr;
}

void default_container(Object& c) {
  auto tag = parse_image(kube::str(c, {"image"})).tag;
  default_to(c, "imagePullPolicy", tag == "latest" ? "Always" : "IfNotPresent");
}

void default_volume(Object& v) {
  if (v.size() == 1 && v.contains("name")) v.emplace("emptyDir", Object());
}

// With the node's network a container port is a node port.
void default_pod_spec(Object& spec) {
  if (!kube::flag(spec, {"hostNetwork"})) return;
  for (auto field : {"containers", "initContainers"}) {
    auto* containers = list_at(spec, field);
    if (!containers) continue;
    for (auto& c : *containers) {
      auto* ports = c.is_object() ? list_at(c.get_object(), "ports") : nullptr;
      if (!ports) continue;
      for (auto& p : *ports)
        if (p.is_object() && kube::num(p.get_object(), {"hostPort"}) == 0)
          p.get_object()["hostPort"] = kube::num(p.get_object(), {"containerPort"});
    }
  }
}

// A limit without a request is the request. Only of pods: a template keeps what was written.
void default_requests(Object& spec) {
  for (auto field : {"containers", "initContainers"}) {
    auto* containers = list_at(spec, field);
    if (!containers) continue;
    for (auto& c : *containers) {
      auto* resources = c.is_object() ? object_at(c.get_object(), "resources") : nullptr;
      auto* limits = resources ? object_at(*resources, "limits") : nullptr;
      if (!limits) continue;
      auto copy = *limits;
      auto& requests = kube::ensure(*resources, {"requests"});
      for (auto& [name, quantity] : copy) default_to(requests, name, quantity);
    }
  }
}

void default_pod(Object& pod) {
  auto* spec = object_at(pod, "spec");
  if (!spec) return;
  default_requests(*spec);
  default_to(*spec, "enableServiceLinks", true);
  // The old name of the field follows the new one, and the other way round.
  auto account = std::string(kube::str(*spec, {"serviceAccountName"}));
  if (account.empty()) account = kube::str(*spec, {"serviceAccount"});
  if (account.empty()) return;
  (*spec)["serviceAccountName"] = account;
  (*spec)["serviceAccount"] = account;
}

void default_service_port(Object& port) {
  const auto* target = kube::find(port, {"targetPort"});
  bool unset = !target || (target->is_int64() && target->get_int64() == 0) ||
               (target->is_string() && target->get_string().empty());
  if (unset) port["targetPort"] = kube::num(port, {"port"});
}

void default_service_spec(Object& spec) {
  std::string type(kube::str(spec, {"type"}));
  bool balanced = type == "LoadBalancer";
  bool outside = balanced || type == "NodePort" || (type == "ClusterIP" && !kube::arr(spec, {"externalIPs"}).empty());
  if (kube::str(spec, {"sessionAffinity"}) == "ClientIP") {
    constexpr std::int64_t kThreeHours = 10800;
    default_to(kube::ensure(spec, {"sessionAffinityConfig", "clientIP"}), "timeoutSeconds", kThreeHours);
  } else {
    spec.erase("sessionAffinityConfig");
  }
  if (outside) default_to(spec, "externalTrafficPolicy", "Cluster");
  if (type != "ExternalName") default_to(spec, "internalTrafficPolicy", "Cluster");
  if (balanced) default_to(spec, "allocateLoadBalancerNodePorts", true);
}

void default_strategy(Object& strategy) {
  if (kube::str(strategy, {"type"}) != "RollingUpdate") return;
  auto& rolling = kube::ensure(strategy, {"rollingUpdate"});
  default_to(rolling, "maxUnavailable", "25%");
  default_to(rolling, "maxSurge", "25%");
}

// Readable text goes into the encoded data and is not kept. (Here and below, what is read is copied before anything is
// added: boost::json::object::operator[] may move all members, even if the key is there already.)
void default_secret(Object& secret) {
  auto* found = object_at(secret, "stringData");
  Object text = found ? std::move(*found) : Object();
  secret.erase("stringData");
  if (text.empty()) return;
  auto& data = kube::ensure(secret, {"data"});
  for (const auto& [key, v] : text)
    if (v.is_string()) data[key] = base64_encode(v.get_string());
}

void default_namespace(Object& ns) {
  std::string name(kube::name(ns));
  if (!name.empty()) kube::ensure(ns, {"metadata", "labels"})["kubernetes.io/metadata.name"] = name;
}

void default_node_status(Object& status) {
  const auto* capacity = kube::find(status, {"capacity"});
  if (capacity) default_to(status, "allocatable", *capacity);
}

struct Hook {
  std::string_view type;
  void (*run)(Object&);
};
constexpr std::array<Hook, 11> kHooks{{
    {"Container", default_container},
    {"EphemeralContainer", default_container},
    {"Volume", default_volume},
    {"PodSpec", default_pod_spec},
    {"Pod", default_pod},
    {"ServicePort", default_service_port},
    {"ServiceSpec", default_service_spec},
    {"DeploymentStrategy", default_strategy},
    {"Secret", default_secret},
    {"Namespace", default_namespace},
    {"NodeStatus", default_node_status},
}};

void apply(const Type& t, Object& o);

void apply_to(const Field& f, json::value& v) {
  if (f.base != Base::kObject) return;
  if (f.shape == Shape::kOne && v.is_object()) apply(*f.type, v.get_object());
  if (f.shape == Shape::kList && v.is_array())
    for (auto& item : v.get_array())
      if (item.is_object()) apply(*f.type, item.get_object());
  if (f.shape == Shape::kMap && v.is_object())
    for (auto& [key, item] : v.get_object())
      if (item.is_object()) apply(*f.type, item.get_object());
}

void apply(const Type& t, Object& o) {
  for (const auto& f : t.fields) {
    auto* v = o.if_contains(f.name);
    if ((!v || v->is_null()) && !f.default_value.is_null()) {
      v = &(o[f.name] = f.default_value);
    }
    if (v) apply_to(f, *v);
  }
  if (const auto* hook = std::ranges::find(kHooks, t.name, &Hook::type); hook != kHooks.end()) hook->run(o);
}

}  // namespace

void set_defaults(const Kind& k, Object& o) {
  apply(*TypeTable::get().entry(k).type, o);
}

}  // namespace hawser::schema
