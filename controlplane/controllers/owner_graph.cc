// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/owner_graph.h"

#include <algorithm>

namespace hawser::controllers {
namespace {

std::set<std::string> owner_uids(const Object& o) {
  std::set<std::string> out;
  for (const Value& r : kube::arr(o, {"metadata", "ownerReferences"})) out.emplace(kube::str(kube::as_obj(r), {"uid"}));
  return out;
}

bool blocks(const Object& dependent, std::string_view owner_uid) {
  for (const Value& r : kube::arr(dependent, {"metadata", "ownerReferences"}))
    if (kube::str(kube::as_obj(r), {"uid"}) == owner_uid && kube::flag(kube::as_obj(r), {"blockOwnerDeletion"}))
      return true;
  return false;
}

// What becomes of an object whose owners are all gone or waiting for it.
std::string propagation_for(const Object& object, bool foreground) {
  if (has_finalizer(object, "orphan")) return "Orphan";
  if (foreground || has_finalizer(object, "foregroundDeletion")) return "Foreground";
  return "Background";
}

CollectPlan plan_deleting(const Object& object, const std::vector<GraphNode>& dependents) {
  using Action = CollectPlan::Action;
  if (has_finalizer(object, "orphan")) return {Action::kOrphanDependents, {}, {}};
  if (!has_finalizer(object, "foregroundDeletion")) return {};
  for (const GraphNode& d : dependents)
    if (blocks(*d.object, kube::uid(object))) return {Action::kDeleteDependents, {}, {}};
  return {Action::kRemoveForeground, {}, {}};
}

}  // namespace

bool has_finalizer(const Object& o, std::string_view name) {
  return std::ranges::any_of(kube::arr(o, {"metadata", "finalizers"}),
                             [&](const Value& f) { return f.is_string() && f.get_string() == name; });
}

Object without_finalizer(const Object& o, std::string_view name) {
  Object out = o;
  Array kept;
  for (const Value& f : kube::arr(o, {"metadata", "finalizers"}))
    if (!f.is_string() || f.get_string() != name) kept.push_back(f);
  Object& meta = kube::ensure(out, {"metadata"});
  if (kept.empty())
    meta.erase("finalizers");
  else
    meta["finalizers"] = std::move(kept);
  return out;
}

std::vector<std::string> OwnerGraph::put(std::size_t kind, const ObjectPtr& object) {
  const std::string uid(kube::uid(*object));
  if (uid.empty()) return {};
  const std::set<std::string> owners = owner_uids(*object);
  std::vector<std::string> affected;
  if (const auto it = nodes_.find(uid); it != nodes_.end()) {
    for (const std::string& before : owner_uids(*it->second.object)) {
      if (owners.contains(before)) continue;
      const auto d = dependents_.find(before);
      if (d == dependents_.end()) continue;
      d->second.erase(uid);
      if (d->second.empty()) dependents_.erase(d);
      affected.push_back(before);
    }
  }
  for (const std::string& o : owners) dependents_[o].insert(uid);
  nodes_[uid] = {kind, object};
  if (!owners.empty() || kube::deleting(*object)) affected.push_back(uid);
  return affected;
}

std::vector<std::string> OwnerGraph::erase(const std::string& uid) {
  const auto it = nodes_.find(uid);
  if (it == nodes_.end()) return {};
  std::vector<std::string> affected;
  for (const std::string& owner : owner_uids(*it->second.object)) {
    const auto d = dependents_.find(owner);
    if (d == dependents_.end()) continue;
    d->second.erase(uid);
    if (d->second.empty()) dependents_.erase(d);
    affected.push_back(owner);  // it may wait for its last dependent
  }
  nodes_.erase(it);
  if (const auto d = dependents_.find(uid); d != dependents_.end())
    affected.insert(affected.end(), d->second.begin(), d->second.end());
  return affected;
}

const GraphNode* OwnerGraph::find(const std::string& uid) const {
  const auto it = nodes_.find(uid);
  return it == nodes_.end() ? nullptr : &it->second;
}

std::vector<GraphNode> OwnerGraph::dependents(const std::string& owner_uid) const {
  std::vector<GraphNode> out;
  const auto d = dependents_.find(owner_uid);
  if (d == dependents_.end()) return out;
  for (const std::string& uid : d->second)
    if (const GraphNode* n = find(uid); n != nullptr) out.push_back(*n);
  return out;
}

CollectPlan plan_collect(const Object& object, const std::vector<GraphNode>& dependents, const OwnerStateOf& state_of) {
  using Action = CollectPlan::Action;
  if (kube::deleting(object)) return plan_deleting(object, dependents);
  const Array& refs = kube::arr(object, {"metadata", "ownerReferences"});
  if (refs.empty()) return {};
  bool present = false, unknown = false;
  std::vector<std::string> gone, waiting;
  for (const Value& v : refs) {
    const Object& ref = kube::as_obj(v);
    const std::string uid(kube::str(ref, {"uid"}));
    switch (state_of(ref, kube::ns(object))) {
      case OwnerState::kPresent:
        present = true;
        break;
      case OwnerState::kUnknown:
        unknown = true;
        break;
      case OwnerState::kAbsent:
        gone.push_back(uid);
        break;
      case OwnerState::kDeletingDependents:
        waiting.push_back(uid);
        break;
    }
  }
  if (present) {
    gone.insert(gone.end(), waiting.begin(), waiting.end());
    if (gone.empty()) return {unknown ? Action::kRetry : Action::kNothing, {}, {}};
    return {Action::kDropReferences, {}, std::move(gone)};
  }
  if (unknown) return {Action::kRetry, {}, {}};
  // Every owner is gone, or waits in the foreground for this one to go.
  return {Action::kDelete, propagation_for(object, !waiting.empty() && !dependents.empty()), {}};
}

}  // namespace hawser::controllers
