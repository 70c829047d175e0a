// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/node_lifecycle_plan.h"

#include <algorithm>
#include <array>

#include "lib/base/time_text.h"

namespace hawser::controllers {
namespace {

struct ConditionTaint {
  std::string_view condition;
  std::string_view status;
  std::string_view taint;
};
// NoSchedule taints that follow from conditions.
constexpr std::array kConditionTaints{
    ConditionTaint{"Ready", "False", kTaintNotReady},
    ConditionTaint{"Ready", "Unknown", kTaintUnreachable},
    ConditionTaint{"MemoryPressure", "True", "node.kubernetes.io/memory-pressure"},
    ConditionTaint{"DiskPressure", "True", "node.kubernetes.io/disk-pressure"},
    ConditionTaint{"PIDPressure", "True", "node.kubernetes.io/pid-pressure"},
    ConditionTaint{"NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"},
};
constexpr std::string_view kTaintUnschedulable = "node.kubernetes.io/unschedulable";
constexpr std::array<std::string_view, 4> kAgentConditions{"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"};

struct WantedTaint {
  std::string_view key;
  std::string_view effect;
  auto operator<=>(const WantedTaint&) const = default;
};

bool is_ours(const Object& taint) {
  const std::string_view key = kube::str(taint, {"key"});
  const std::string_view effect = kube::str(taint, {"effect"});
  if (effect == "NoExecute") return key == kTaintNotReady || key == kTaintUnreachable;
  return effect == "NoSchedule" &&
         (key == kTaintUnschedulable ||
          std::ranges::any_of(kConditionTaints, [&](const auto& c) { return c.taint == key; }));
}

bool tolerates(const Object& toleration, const Object& taint) {
  const std::string_view effect = kube::str(toleration, {"effect"});
  if (!effect.empty() && effect != kube::str(taint, {"effect"})) return false;
  const std::string_view key = kube::str(toleration, {"key"});
  if (!key.empty() && key != kube::str(taint, {"key"})) return false;
  if (kube::str(toleration, {"operator"}) == "Exists") return true;
  return !key.empty() && kube::str(toleration, {"value"}) == kube::str(taint, {"value"});
}

// How long the pod may stay with `taint`: nothing = not tolerated, max = for ever.
std::optional<Nanos> stay(const Object& pod, const Object& taint) {
  std::optional<Nanos> longest;
  for (const Value& v : kube::arr(pod, {"spec", "tolerations"})) {
    const Object& t = kube::as_obj(v);
    if (!tolerates(t, taint)) continue;
    const Value* seconds = kube::find(t, {"tolerationSeconds"});
    if (seconds == nullptr || seconds->is_null()) return Nanos::max();
    const Nanos n = std::chrono::seconds(std::max<std::int64_t>(0, kube::num(t, {"tolerationSeconds"})));
    longest = std::max(longest.value_or(Nanos(0)), n);
  }
  if (longest) return longest;
  const std::string_view key = kube::str(taint, {"key"});
  if (key == kTaintNotReady || key == kTaintUnreachable) return kDefaultToleration;
  return std::nullopt;
}

}  // namespace

Readiness readiness(const Object& node) {
  const Object* c = condition(node, "Ready");
  const std::string_view s = c == nullptr ? "" : kube::str(*c, {"status"});
  if (s == "True") return Readiness::kReady;
  return s == "False" ? Readiness::kNotReady : Readiness::kUnknown;
}

std::optional<Object> silent_status(const Object& node, WallTime now) {
  Object status = kube::obj(node, {"status"});
  Value& list = status["conditions"];
  if (!list.is_array()) list = Array{};
  Array& conditions = list.get_array();
  bool changed = false;
  for (const std::string_view type : kAgentConditions) {
    const auto it =
        std::ranges::find_if(conditions, [&](const Value& v) { return kube::str(kube::as_obj(v), {"type"}) == type; });
    if (it != conditions.end() && kube::str(kube::as_obj(*it), {"status"}) == "Unknown") continue;
    Object c = it == conditions.end() ? Object() : kube::as_obj(*it);
    c["type"] = text(type);
    c["status"] = "Unknown";
    c["reason"] = it == conditions.end() ? "NodeStatusNeverUpdated" : "NodeStatusUnknown";
    c["message"] =
        it == conditions.end() ? "Kubelet never posted node status." : "Kubelet stopped posting node status.";
    c["lastTransitionTime"] = text(rfc3339(now));
    if (it == conditions.end())
      conditions.push_back(std::move(c));
    else
      *it = std::move(c);
    changed = true;
  }
  if (!changed) return std::nullopt;
  return status;
}

std::optional<Array> plan_taints(const TaintInput& in) {
  std::vector<WantedTaint> wanted;
  for (const ConditionTaint& c : kConditionTaints) {
    const Object* cond = condition(in.node, c.condition);
    if (cond != nullptr && kube::str(*cond, {"status"}) == c.status) wanted.push_back({c.taint, "NoSchedule"});
  }
  // A node that never said anything is not ready yet; it is not "unreachable" until it has been silent for the grace
  // period.
  if (condition(in.node, "Ready") == nullptr) wanted.push_back({kTaintNotReady, "NoSchedule"});
  if (kube::flag(in.node, {"spec", "unschedulable"})) wanted.push_back({kTaintUnschedulable, "NoSchedule"});
  const Readiness ready = readiness(in.node);
  const bool has_condition = condition(in.node, "Ready") != nullptr;
  const WantedTaint no_execute{ready == Readiness::kUnknown ? kTaintUnreachable : kTaintNotReady, "NoExecute"};
  const bool evictable = has_condition && ready != Readiness::kReady && !in.lift;

  const Array& before = kube::arr(in.node, {"spec", "taints"});
  Array after;
  bool tainted = false;  // it had a NoExecute taint of ours
  for (const Value& v : before) {
    const Object& t = kube::as_obj(v);
    if (!is_ours(t)) {
      after.push_back(v);
      continue;
    }
    const WantedTaint as{kube::str(t, {"key"}), kube::str(t, {"effect"})};
    const bool executes = as.effect == "NoExecute";
    tainted = tainted || executes;
    const auto it = std::ranges::find(wanted, as);
    if (executes ? evictable && as == no_execute : it != wanted.end()) after.push_back(v);
    if (!executes && it != wanted.end()) wanted.erase(it);
    if (executes && as == no_execute) tainted = true;
  }
  const bool present = std::ranges::any_of(after, [&](const Value& v) {
    return kube::str(kube::as_obj(v), {"key"}) == no_execute.key &&
           kube::str(kube::as_obj(v), {"effect"}) == "NoExecute";
  });
  // A change from not-ready to unreachable swaps the taint: it needs no new permission.
  if (evictable && !present && (in.evict || tainted)) wanted.push_back(no_execute);
  for (const WantedTaint& w : wanted) {
    Object t;
    t["key"] = text(w.key);
    t["effect"] = text(w.effect);
    t["timeAdded"] = text(rfc3339(in.now));
    after.push_back(std::move(t));
  }
  if (after == before) return std::nullopt;
  return after;
}

std::optional<WallTime> eviction_time(const Object& pod, const Array& taints, WallTime now) {
  std::optional<WallTime> earliest;
  for (const Value& v : taints) {
    const Object& taint = kube::as_obj(v);
    if (kube::str(taint, {"effect"}) != "NoExecute") continue;
    const auto may_stay = stay(pod, taint);
    if (may_stay && *may_stay == Nanos::max()) continue;
    const WallTime since = time_at(taint, {"timeAdded"}).value_or(now);
    const WallTime at = since + may_stay.value_or(Nanos(0));
    if (!earliest || at < *earliest) earliest = at;
  }
  return earliest;
}

std::optional<Object> pod_status_not_ready(const Object& pod, WallTime now) {
  if (!is_ready(pod)) return std::nullopt;
  Object status = kube::obj(pod, {"status"});
  for (Value& v : status["conditions"].as_array()) {
    if (kube::str(kube::as_obj(v), {"type"}) != "Ready") continue;
    Object& c = v.as_object();
    c["status"] = "False";
    c["reason"] = "NodeNotReady";
    c["message"] = "Node is not ready";
    c["lastTransitionTime"] = text(rfc3339(now));
  }
  return status;
}

Disruption disruption(std::size_t ready, std::size_t not_ready) {
  if (ready == 0 && not_ready > 0) return Disruption::kFull;
  if (not_ready > 2 && not_ready * 100 >= (ready + not_ready) * 55) return Disruption::kPartial;
  return Disruption::kNormal;
}

std::optional<Nanos> eviction_interval(Disruption d, std::size_t nodes) {
  constexpr std::size_t kLargeCluster = 50;
  if (d == Disruption::kFull) return std::nullopt;
  if (d == Disruption::kNormal) return std::chrono::seconds(10);
  if (nodes <= kLargeCluster) return std::nullopt;
  return std::chrono::seconds(100);
}

}  // namespace hawser::controllers
