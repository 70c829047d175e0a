// SPDX-License-Identifier: Apache-2.0
// The ReplicaSets of one Deployment while a plan is made: sizes, revisions and annotations are changed here on copies,
// and what changed is collected at the end. Used by the Deployment plan only; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/controllers/deployment_plan.h"

namespace hawser::controllers {

[[nodiscard]] std::int64_t revision_of(const Object& o);

class PlannedSet {
 public:
  explicit PlannedSet(ObjectPtr stored) : stored_(std::move(stored)) {}
  explicit PlannedSet(Object made) : changed_(std::move(made)) {}

  [[nodiscard]] const Object& object() const { return changed_ ? *changed_ : *stored_; }
  [[nodiscard]] const ObjectPtr& stored() const { return stored_; }  // null: to be created
  [[nodiscard]] bool changed() const { return changed_.has_value(); }
  [[nodiscard]] std::int64_t size() const { return kube::num(object(), {"spec", "replicas"}, 1); }
  [[nodiscard]] std::int64_t available() const { return kube::num(object(), {"status", "availableReplicas"}); }
  // Those that stay: the status may still count pods that a smaller size has already taken away.
  [[nodiscard]] std::int64_t lasting() const { return std::min(available(), size()); }
  [[nodiscard]] std::int64_t pods() const { return kube::num(object(), {"status", "replicas"}); }
  [[nodiscard]] std::int64_t ready() const { return kube::num(object(), {"status", "readyReplicas"}); }

  void set_size(std::int64_t n);
  // Writes only where the value differs.
  void set_annotation(std::string_view name, std::string_view value);
  void set_min_ready(std::int64_t seconds);

 private:
  Object& writable();

  ObjectPtr stored_;
  std::optional<Object> changed_;
};

struct PlannedSets {
  std::optional<PlannedSet> current;  // the new ReplicaSet
  std::vector<PlannedSet> old;        // oldest first

  static PlannedSets from(const Object& deployment, std::span<const ObjectPtr> sets);
  [[nodiscard]] std::vector<PlannedSet*> all();
  [[nodiscard]] std::int64_t total_size();
  [[nodiscard]] std::int64_t total_lasting();
  // Pods that exist or are asked for: a set that was made smaller may not have removed its pods yet.
  [[nodiscard]] std::int64_t total_present();
};

// A new ReplicaSet of `replicas` pods for the Deployment's template, without revision.
[[nodiscard]] Object make_replica_set(const Object& deployment, std::int64_t replicas);

}  // namespace hawser::controllers
