// SPDX-License-Identifier: Apache-2.0
// OwnerGraph: who owns whom, from the objects' owner references; and what the garbage collector has to do with one
// object. Values only. Not thread-safe: the garbage collector guards it. Source: "Garbage Collection" of the Kubernetes
// documentation.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

// An object as the collector names it: which table row (see gc_kinds()), namespace, name.
struct GraphNode {
  std::size_t kind = 0;
  ObjectPtr object;
};

class OwnerGraph {
 public:
  // Returns the uids of objects that may have to be looked at again because of this change (the object itself
  // included).
  std::vector<std::string> put(std::size_t kind, const ObjectPtr& object);
  std::vector<std::string> erase(const std::string& uid);

  [[nodiscard]] const GraphNode* find(const std::string& uid) const;
  [[nodiscard]] std::vector<GraphNode> dependents(const std::string& owner_uid) const;

 private:
  std::map<std::string, GraphNode> nodes_;                   // by uid
  std::map<std::string, std::set<std::string>> dependents_;  // owner uid -> uids; kept also for owners nobody has seen
};

// Whether the object a reference names exists with that uid.
enum class OwnerState { kPresent, kAbsent, kDeletingDependents, kUnknown };
using OwnerStateOf = std::function<OwnerState(const Object& reference, std::string_view ns)>;

struct CollectPlan {
  enum class Action {
    kNothing,
    kDelete,            // with `propagation`
    kDropReferences,    // some owners are gone, others are not: only the references to `gone` go
    kOrphanDependents,  // "orphan" finalizer: take the reference off every dependent, then the finalizer
    kDeleteDependents,  // "foregroundDeletion": delete the blocking dependents; the finalizer goes when none is left
    kRemoveForeground,  // no blocking dependent is left
    kRetry,             // an owner's state could not be found out
  };
  Action action = Action::kNothing;
  std::string propagation;
  std::vector<std::string> gone;  // uids of owners
};
[[nodiscard]] CollectPlan plan_collect(const Object& object, const std::vector<GraphNode>& dependents,
                                       const OwnerStateOf& state_of);

[[nodiscard]] bool has_finalizer(const Object& o, std::string_view name);
[[nodiscard]] Object without_finalizer(const Object& o, std::string_view name);

}  // namespace hawser::controllers
