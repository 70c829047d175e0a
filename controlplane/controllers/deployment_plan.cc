// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/deployment_plan.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "controlplane/controllers/deployment_sets.h"
#include "controlplane/controllers/deployment_status.h"
#include "controlplane/controllers/template_hash.h"

namespace hawser::controllers {
namespace {

std::int64_t wanted(const Object& deployment) {
  return std::max<std::int64_t>(0, kube::num(deployment, {"spec", "replicas"}, 1));
}

bool is_recreate(const Object& deployment) {
  return kube::str(deployment, {"spec", "strategy", "type"}) == "Recreate";
}

// An int-or-percent field as a count of `total`; `otherwise` for a missing one.
std::int64_t scaled(const Value* v, std::int64_t total, bool round_up, std::int64_t otherwise) {
  if (v == nullptr || v->is_null()) return otherwise;
  if (v->is_int64()) return v->get_int64();
  if (v->is_uint64()) return static_cast<std::int64_t>(v->get_uint64());
  if (!v->is_string()) return otherwise;
  const std::string_view s = v->get_string();
  std::int64_t percent = 0;
  const auto [end, err] = std::from_chars(s.data(), s.data() + s.size(), percent);
  if (err != std::errc() || end == s.data() + s.size() || *end != '%') return otherwise;
  return (percent * total + (round_up ? 99 : 0)) / 100;
}

class Planner {
 public:
  explicit Planner(const DeploymentObserved& in)
      : in_(in),
        d_(in.deployment),
        sets_(PlannedSets::from(in.deployment, in.replica_sets)),
        limits_(rolling_limits(d_)) {}

  DeploymentPlan run() {
    if (kube::deleting(d_)) {
      finish();
      return std::move(plan_);
    }
    const bool paused = kube::flag(d_, {"spec", "paused"});
    if (sets_.current && !paused) adopt_current();
    if (paused)
      scale_in_proportion();
    else if (is_recreate(d_))
      recreate();
    else if (is_scaling())
      scale_in_proportion();
    else
      roll();
    clean_up_history();
    finish();
    return std::move(plan_);
  }

 private:
  [[nodiscard]] std::int64_t max_total() const {
    return wanted(d_) == 0 ? 0 : wanted(d_) + (is_recreate(d_) ? 0 : limits_.surge);
  }

  // Gives the set its size and remembers in it which Deployment size that is a part of: the next proportional scaling
  // starts there.
  bool resize(PlannedSet& s, std::int64_t n) {
    const std::int64_t before = s.size();
    s.set_size(n);
    s.set_annotation(kDesiredReplicas, std::to_string(wanted(d_)));
    s.set_annotation(kMaxReplicas, std::to_string(max_total()));
    if (before == n) return false;
    plan_.events.push_back(
        {"ScalingReplicaSet", fmt::format("Scaled {} replica set {} from {} to {}", n > before ? "up" : "down",
                                          kube::name(s.object()), before, n)});
    return true;
  }

  void set_revision(PlannedSet& s) {
    std::int64_t highest = 0;
    for (const PlannedSet& old : sets_.old) highest = std::max(highest, revision_of(old.object()));
    const std::int64_t before = revision_of(s.object());
    if (before > highest) return;
    if (before != 0) {
      std::string history(annotation(s.object(), kRevisionHistory));
      history += (history.empty() ? "" : ",") + std::to_string(before);
      s.set_annotation(kRevisionHistory, history);
    }
    s.set_annotation(kRevision, std::to_string(highest + 1));
  }

  // Annotations of the Deployment are also on its new ReplicaSet, so that a roll-back brings them back
  // ("change-cause").
  void copy_annotations(PlannedSet& s) {
    for (const auto& [k, v] : kube::obj(d_, {"metadata", "annotations"})) {
      const std::string_view name = k;
      if (name.starts_with("deployment.kubernetes.io/") || name == "kubectl.kubernetes.io/last-applied-configuration" ||
          name == "deprecated.deployment.rollback.to" || !v.is_string())
        continue;
      s.set_annotation(name, v.get_string());
    }
  }

  void adopt_current() {
    const std::int64_t before = revision_of(sets_.current->object());
    set_revision(*sets_.current);
    found_ = revision_of(sets_.current->object()) != before;
    copy_annotations(*sets_.current);
    sets_.current->set_min_ready(kube::num(d_, {"spec", "minReadySeconds"}));
  }

  void create_current() {
    if (sets_.current) return;
    const std::int64_t room = is_recreate(d_) ? wanted(d_) : wanted(d_) + limits_.surge - sets_.total_present();
    const std::int64_t n = std::clamp<std::int64_t>(room, 0, wanted(d_));
    sets_.current.emplace(make_replica_set(d_, 0));
    set_revision(*sets_.current);
    copy_annotations(*sets_.current);
    resize(*sets_.current, n);
    created_ = true;
  }

  bool is_scaling() {
    for (const PlannedSet* s : sets_.all()) {
      if (s->size() == 0) continue;
      const std::string_view desired = annotation(s->object(), kDesiredReplicas);
      if (!desired.empty() && desired != std::to_string(wanted(d_))) return true;
    }
    return false;
  }

  // How much of the change of the Deployment's size falls to `s`.
  std::int64_t share(const PlannedSet& s) {
    if (wanted(d_) == 0) return -s.size();
    std::int64_t annotated = 0;
    const std::string_view text_of_max = annotation(s.object(), kMaxReplicas);
    std::from_chars(text_of_max.data(), text_of_max.data() + text_of_max.size(), annotated);
    if (annotated == 0) annotated = kube::num(d_, {"status", "replicas"});
    if (annotated == 0) return 0;
    const double size = static_cast<double>(s.size() * max_total()) / static_cast<double>(annotated);
    return std::lround(size) - s.size();
  }

  // The one set to scale when only one has pods, or, with no pods at all, the new (else the latest old) one; null if
  // several have.
  PlannedSet* only_active(bool& several) {
    PlannedSet* found = nullptr;
    several = false;
    for (PlannedSet* s : sets_.all()) {
      if (s->size() == 0) continue;
      several = several || found != nullptr;
      found = s;
    }
    if (several) return nullptr;
    if (found != nullptr) return found;
    if (sets_.current) return &*sets_.current;
    return sets_.old.empty() ? nullptr : &sets_.old.back();
  }

  [[nodiscard]] bool is_saturated() const {
    return sets_.current && sets_.current->size() == wanted(d_) && sets_.current->available() == wanted(d_) &&
           annotation(sets_.current->object(), kDesiredReplicas) == std::to_string(wanted(d_));
  }

  void scale_in_proportion() {
    bool several = false;
    if (PlannedSet* only = only_active(several); only != nullptr) {
      resize(*only, wanted(d_));
      return;
    }
    if (!several) return;
    if (is_saturated()) {
      for (PlannedSet& s : sets_.old)
        if (s.size() > 0) resize(s, 0);
      return;
    }
    if (is_recreate(d_)) return;
    std::vector<PlannedSet*> active;
    for (PlannedSet* s : sets_.all())
      if (s->size() > 0) active.push_back(s);
    const std::int64_t to_add = max_total() - sets_.total_size();
    // Largest first; among equals the newest is raised first and the oldest lowered first.
    std::ranges::stable_sort(active, [&](const PlannedSet* a, const PlannedSet* b) {
      if (a->size() != b->size()) return a->size() > b->size();
      const auto ca = created_at(a->object()).value_or(WallTime{}), cb = created_at(b->object()).value_or(WallTime{});
      return to_add > 0 ? ca > cb : ca < cb;
    });
    std::int64_t added = 0;
    std::vector<std::int64_t> sizes;
    for (PlannedSet* s : active) {
      const std::int64_t allowed = to_add - added;
      const std::int64_t part = allowed == 0 ? 0
                                : to_add > 0 ? std::min(share(*s), allowed)
                                             : std::max(share(*s), allowed);
      sizes.push_back(s->size() + part);
      added += part;
    }
    if (!sizes.empty()) sizes[0] = std::max<std::int64_t>(0, sizes[0] + to_add - added);
    for (std::size_t i = 0; i < active.size(); ++i) resize(*active[i], sizes[i]);
  }

  void recreate() {
    bool scaled_down = false;
    for (PlannedSet& s : sets_.old)
      if (s.size() > 0) scaled_down = resize(s, 0) || scaled_down;
    // The new pods may start only when no old one can run any more.
    if (scaled_down || in_.old_pods_run) return;
    create_current();
    resize(*sets_.current, wanted(d_));
  }

  void roll() {
    create_current();
    if (created_) return;
    if (raise_current()) return;
    lower_old();
  }

  bool raise_current() {
    PlannedSet& s = *sets_.current;
    if (s.size() == wanted(d_)) return resize(s, wanted(d_));
    if (s.size() > wanted(d_)) return resize(s, wanted(d_));
    const std::int64_t room = wanted(d_) + limits_.surge - sets_.total_present();
    if (room <= 0) return false;
    return resize(s, s.size() + std::min(room, wanted(d_) - s.size()));
  }

  void lower_old() {
    const std::int64_t min_available = wanted(d_) - limits_.unavailable;
    const std::int64_t not_yet = sets_.current->size() - sets_.current->lasting();
    const std::int64_t removable = sets_.total_size() - min_available - not_yet;
    if (removable <= 0) return;
    // Old pods that are not available go first: they serve nobody, and they could hold the rollout up for ever.
    std::vector<std::int64_t> sizes;
    std::int64_t left = removable;
    for (const PlannedSet& s : sets_.old) {
      const std::int64_t broken = std::min(s.size() - s.lasting(), left);
      sizes.push_back(s.size() - broken);
      left -= broken;
    }
    std::int64_t spare = sets_.total_lasting() - min_available;
    for (std::size_t i = 0; i < sizes.size() && spare > 0; ++i) {
      const std::int64_t n = std::min(sizes[i], spare);
      sizes[i] -= n;
      spare -= n;
    }
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (sizes[i] != sets_.old[i].size()) resize(sets_.old[i], sizes[i]);
  }

  void clean_up_history() {
    if (kube::find(d_, {"spec", "revisionHistoryLimit"}) == nullptr) return;
    const auto limit =
        static_cast<std::size_t>(std::max<std::int64_t>(0, kube::num(d_, {"spec", "revisionHistoryLimit"})));
    std::vector<const PlannedSet*> empty;
    for (const PlannedSet& s : sets_.old)
      if (!kube::deleting(s.object())) empty.push_back(&s);
    if (empty.size() <= limit) return;
    std::ranges::stable_sort(empty, {}, [](const PlannedSet* s) { return revision_of(s->object()); });
    const std::size_t surplus = empty.size() - limit;
    for (std::size_t i = 0; i < surplus; ++i) {
      const PlannedSet& s = *empty[i];
      const bool settled =
          kube::num(s.object(), {"metadata", "generation"}) <= kube::num(s.object(), {"status", "observedGeneration"});
      if (s.size() == 0 && s.pods() == 0 && settled && !s.changed()) plan_.remove.push_back(s.stored());
    }
  }

  void finish() {
    if (sets_.current && sets_.current->stored() != nullptr && !kube::deleting(d_)) publish_revision();
    Object status =
        deployment_status({.deployment = d_, .sets = sets_, .now = in_.now, .created = created_, .found = found_});
    plan_.recheck = until_deadline(d_, status, in_.now);
    if (status != kube::obj(d_, {"status"})) plan_.status = std::move(status);
    for (PlannedSet* s : sets_.all()) {
      if (s->stored() == nullptr)
        plan_.create = s->object();
      else if (s->changed())
        plan_.update.push_back(s->object());
    }
    if (created_) publish_revision();
  }

  void publish_revision() {
    const std::string_view revision = annotation(sets_.current->object(), kRevision);
    if (revision.empty() || revision == annotation(d_, kRevision)) return;
    plan_.deployment = d_;
    kube::ensure(*plan_.deployment, {"metadata", "annotations"})[kRevision] = text(revision);
  }

  const DeploymentObserved& in_;
  const Object& d_;
  PlannedSets sets_;
  RollingLimits limits_;
  DeploymentPlan plan_;
  bool created_ = false;
  bool found_ = false;
};

}  // namespace

RollingLimits rolling_limits(const Object& deployment) {
  const std::int64_t total = wanted(deployment);
  if (is_recreate(deployment)) return {0, 0};
  const auto at = [&](std::string_view f) { return kube::find(deployment, {"spec", "strategy", "rollingUpdate", f}); };
  RollingLimits out;
  out.surge = std::max<std::int64_t>(0, scaled(at("maxSurge"), total, true, (total * 25 + 99) / 100));
  out.unavailable = std::max<std::int64_t>(0, scaled(at("maxUnavailable"), total, false, total * 25 / 100));
  if (out.surge == 0 && out.unavailable == 0) out.unavailable = 1;
  out.unavailable = std::min(out.unavailable, total);
  return out;
}

ObjectPtr new_replica_set(const Object& deployment, std::span<const ObjectPtr> sets) {
  ObjectPtr found;
  for (const ObjectPtr& s : sets) {
    if (!same_template(kube::obj(*s, {"spec", "template"}), kube::obj(deployment, {"spec", "template"}))) continue;
    if (found == nullptr ||
        std::pair(created_at(*s), kube::name(*s)) < std::pair(created_at(*found), kube::name(*found)))
      found = s;
  }
  return found;
}

DeploymentPlan plan_deployment(const DeploymentObserved& in) {
  return Planner(in).run();
}

}  // namespace hawser::controllers
