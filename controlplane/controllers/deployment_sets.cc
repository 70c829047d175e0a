// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/deployment_sets.h"

#include <algorithm>
#include <charconv>

#include "controlplane/controllers/ownership.h"
#include "controlplane/controllers/template_hash.h"

namespace hawser::controllers {

std::int64_t revision_of(const Object& o) {
  const std::string_view s = annotation(o, kRevision);
  std::int64_t n = 0;
  std::from_chars(s.data(), s.data() + s.size(), n);
  return n;
}

Object& PlannedSet::writable() {
  if (!changed_) changed_ = *stored_;
  return *changed_;
}

void PlannedSet::set_size(std::int64_t n) {
  if (size() != n || kube::find(object(), {"spec", "replicas"}) == nullptr)
    kube::ensure(writable(), {"spec"})["replicas"] = n;
}

void PlannedSet::set_annotation(std::string_view name, std::string_view value) {
  if (annotation(object(), name) == value && kube::find(object(), {"metadata", "annotations", name}) != nullptr) return;
  kube::ensure(writable(), {"metadata", "annotations"})[name] = text(value);
}

void PlannedSet::set_min_ready(std::int64_t seconds) {
  if (kube::num(object(), {"spec", "minReadySeconds"}) != seconds)
    kube::ensure(writable(), {"spec"})["minReadySeconds"] = seconds;
}

PlannedSets PlannedSets::from(const Object& deployment, std::span<const ObjectPtr> sets) {
  PlannedSets out;
  std::vector<ObjectPtr> sorted(sets.begin(), sets.end());
  std::ranges::sort(sorted, {}, [](const ObjectPtr& o) {
    return std::pair(created_at(*o).value_or(WallTime{}), std::string(kube::name(*o)));
  });
  const ObjectPtr current = new_replica_set(deployment, sets);
  for (ObjectPtr& o : sorted) {
    if (o == current)
      out.current.emplace(std::move(o));
    else
      out.old.emplace_back(std::move(o));
  }
  return out;
}

std::vector<PlannedSet*> PlannedSets::all() {
  std::vector<PlannedSet*> out;
  for (PlannedSet& s : old) out.push_back(&s);
  if (current) out.push_back(&*current);
  return out;
}

std::int64_t PlannedSets::total_size() {
  std::int64_t n = 0;
  for (const PlannedSet* s : all()) n += s->size();
  return n;
}

std::int64_t PlannedSets::total_lasting() {
  std::int64_t n = 0;
  for (const PlannedSet* s : all()) n += s->lasting();
  return n;
}

std::int64_t PlannedSets::total_present() {
  std::int64_t n = 0;
  for (const PlannedSet* s : all()) n += std::max(s->size(), s->pods());
  return n;
}

Object make_replica_set(const Object& deployment, std::int64_t replicas) {
  const Object& tmpl = kube::obj(deployment, {"spec", "template"});
  const std::string hash = template_hash(tmpl, kube::num(deployment, {"status", "collisionCount"}));
  Object pod_template = tmpl;
  kube::ensure(pod_template, {"metadata", "labels"})[kHashLabel] = text(hash);
  Object selector = kube::obj(deployment, {"spec", "selector"});
  kube::ensure(selector, {"matchLabels"})[kHashLabel] = text(hash);

  Object meta;
  meta["name"] = text(std::string(kube::name(deployment)) + "-" + hash);
  meta["namespace"] = text(kube::ns(deployment));
  meta["labels"] = kube::obj(pod_template, {"metadata", "labels"});
  meta["ownerReferences"] = Array{controller_reference("apps/v1", "Deployment", deployment)};
  Object spec;
  spec["replicas"] = replicas;
  if (const auto n = kube::num(deployment, {"spec", "minReadySeconds"}); n != 0) spec["minReadySeconds"] = n;
  spec["selector"] = std::move(selector);
  spec["template"] = std::move(pod_template);
  Object rs;
  rs["apiVersion"] = "apps/v1";
  rs["kind"] = "ReplicaSet";
  rs["metadata"] = std::move(meta);
  rs["spec"] = std::move(spec);
  return rs;
}

}  // namespace hawser::controllers
