// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/subresources.h"

#include <algorithm>

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/request_options.h"
#include "lib/base/time_text.h"

namespace hawser::apiserver {

using kube::FieldError;

namespace {

// A Scale has no entry in the schema table: its few fields are patched as plain JSON.
const Kind& scale_kind() {
  static const Kind k{
      .group = "autoscaling", .version = "v1", .kind = "Scale", .plural = "scales", .singular = "scale"};
  return k;
}

// The text form of a workload's spec.selector, as the Scale shows it.
std::string selector_text(const Object& workload) {
  auto s = kube::LabelSelector::from_object(kube::obj(workload, {"spec", "selector"}));
  return s ? s->text() : std::string();
}

Expected<std::int64_t> wanted_replicas(const Object& scale, std::string_view name) {
  auto* v = kube::find(scale, {"spec", "replicas"});
  if (v == nullptr) return 0;
  if (!v->is_int64() && !v->is_uint64()) return std::unexpected(kube::bad_request("spec.replicas: must be an integer"));
  auto n = kube::num(scale, {"spec", "replicas"});
  if (n >= 0 && n <= INT32_MAX) return n;
  return std::unexpected(kube::invalid(
      "autoscaling", "Scale", name,
      {{FieldError::Type::kInvalid, "spec.replicas", std::to_string(n), "must be greater than or equal to 0"}}));
}

Expected<Object> with_scale(const Object& workload, const Object& scale) {
  auto n = wanted_replicas(scale, kube::name(workload));
  if (!n) return std::unexpected(n.error());
  Object next = workload;
  kube::ensure(next, {"spec"})["replicas"] = *n;
  auto& metadata = next["metadata"].as_object();
  metadata.erase("resourceVersion");
  if (auto version = kube::resource_version(scale); !version.empty()) metadata["resourceVersion"] = version;
  if (auto uid = kube::uid(scale); !uid.empty()) metadata["uid"] = uid;
  return next;
}

void set_condition(Object& pod, Object condition) {
  auto& list = kube::ensure(pod, {"status"})["conditions"];
  if (!list.is_array()) list = kube::Array();
  for (auto& c : list.get_array()) {
    if (kube::str(kube::as_obj(c), {"type"}) == kube::str(condition, {"type"})) {
      c = std::move(condition);
      return;
    }
  }
  list.get_array().push_back(std::move(condition));
}

const Kind& pods_kind() {
  static const Kind& k = *schema::find_resource("", "v1", "pods");
  return k;
}

Expected<Object> bound(const Object& pod, const Object& binding, const std::string& now) {
  auto name = kube::name(pod);
  auto node = kube::str(binding, {"target", "name"});
  auto current = kube::str(pod, {"spec", "nodeName"});
  if (kube::deleting(pod)) {
    return std::unexpected(kube::conflict("", "pods/binding", name,
                                          fmt::format("pod {} is being deleted, cannot be assigned to a host", name)));
  }
  if (!current.empty()) {
    return std::unexpected(kube::conflict("", "pods/binding", name,
                                          fmt::format("pod {} is already assigned to node \"{}\"", name, current)));
  }
  Object next = pod;
  kube::ensure(next, {"spec"})["nodeName"] = node;
  for (auto& [key, value] : kube::obj(binding, {"metadata", "annotations"})) {
    kube::ensure(next, {"metadata", "annotations"})[key] = value;
  }
  set_condition(
      next, {{"type", "PodScheduled"}, {"status", "True"}, {"lastProbeTime", nullptr}, {"lastTransitionTime", now}});
  return next;
}

}  // namespace

Object scale_of(const Object& workload) {
  Object metadata;
  for (auto* key : {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}) {
    if (auto* v = kube::find(workload, {"metadata", key})) metadata[key] = *v;
  }
  return {{"kind", "Scale"},
          {"apiVersion", "autoscaling/v1"},
          {"metadata", std::move(metadata)},
          {"spec", Object{{"replicas", kube::num(workload, {"spec", "replicas"}, 1)}}},
          {"status",
           Object{{"replicas", kube::num(workload, {"status", "replicas"})}, {"selector", selector_text(workload)}}}};
}

Expected<Object> get_scale(Registry& r, const Kind& k, ObjectName at) {
  auto e = r.get(k, at);
  if (!e) return std::unexpected(e.error());
  return scale_of(*(*e)->object);
}

Expected<Object> update_scale(Registry& r, const Kind& k, ObjectName at, const Object& sent, const WriteOptions& w) {
  auto done = r.mutate(
      k, at, "scale", [&](const EntryPtr& e) { return with_scale(*e->object, sent); }, w);
  if (!done) return std::unexpected(done.error());
  return scale_of(*(*done)->object);
}

Expected<Object> patch_scale(Registry& r, const Kind& k, ObjectName at, kube::PatchType type, const Value& body,
                             const WriteOptions& w) {
  // A Scale has no lists to merge, so a strategic patch of it is a merge patch.
  if (type == kube::PatchType::kStrategic) type = kube::PatchType::kMerge;
  auto change = [&](const EntryPtr& e) -> Expected<Object> {
    auto scale = scale_of(*e->object);
    auto patched = schema::apply_patch(scale_kind(), type, scale, body);
    if (!patched) return patched;
    return with_scale(*e->object, *patched);
  };
  auto done = r.mutate(k, at, "scale", change, w);
  if (!done) return std::unexpected(done.error());
  return scale_of(*(*done)->object);
}

Expected<> bind_pod(Registry& r, ObjectName at, const Object& binding, const WriteOptions& w) {
  auto kind = kube::str(binding, {"target", "kind"});
  std::vector<FieldError> causes;
  if (!kind.empty() && kind != "Node") {
    causes.push_back({FieldError::Type::kNotSupported, "target.kind", boost::json::serialize(boost::json::string(kind)),
                      "supported values: \"Node\", \"<empty>\""});
  }
  if (kube::str(binding, {"target", "name"}).empty())
    causes.push_back({FieldError::Type::kRequired, "target.name", "", ""});
  if (!causes.empty()) return std::unexpected(kube::invalid("", "Binding", at.name, std::move(causes)));
  auto now = rfc3339(r.clock().wall());
  auto done = r.mutate(
      pods_kind(), at, "binding", [&](const EntryPtr& e) { return bound(*e->object, binding, now); }, w);
  if (!done) return std::unexpected(done.error());
  return {};
}

Expected<> evict_pod(Registry& r, ObjectName at, const Object& eviction, const WriteOptions& w) {
  auto options = parse_delete_options(kube::obj(eviction, {"deleteOptions"}));
  if (!options) return std::unexpected(options.error());
  options->dry_run = options->dry_run || w.dry_run;
  auto done = r.remove(pods_kind(), at, *options);
  if (!done) return std::unexpected(done.error());
  return {};
}

}  // namespace hawser::apiserver
