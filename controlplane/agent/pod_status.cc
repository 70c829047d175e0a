// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_status.h"

#include <algorithm>

#include "lib/base/time_text.h"
#include "lib/kube/object.h"
#include "lib/kube/quantity.h"

namespace hawser::agent {
namespace {

using kube::Array;
using kube::Object;
using kube::Value;

std::string time_text(std::int64_t ns) {
  return rfc3339(WallTime(std::chrono::nanoseconds(ns)));
}

bool ended(const Container& c) {
  return c.state == ContainerState::kExited || c.state == ContainerState::kUnknown;
}

Object terminated_state(const Container& c, const std::string& runtime) {
  Object t{{"exitCode", c.exit_code}};
  t["reason"] = !c.reason.empty()                     ? c.reason
                : c.state == ContainerState::kUnknown ? "ContainerStatusUnknown"
                : c.exit_code == 0                    ? "Completed"
                                                      : "Error";
  if (!c.message.empty()) t["message"] = c.message;
  // A container that never ran has no start; the API wants a time all the same.
  t["startedAt"] = time_text(c.started_at_ns > 0 ? c.started_at_ns : c.created_at_ns);
  t["finishedAt"] = time_text(c.finished_at_ns > 0 ? c.finished_at_ns : c.created_at_ns);
  t["containerID"] = runtime + "://" + c.id;
  return {{"terminated", std::move(t)}};
}

Object waiting_state(const Waiting& w) {
  Object o{{"reason", w.reason}};
  if (!w.message.empty()) o["message"] = w.message;
  return {{"waiting", std::move(o)}};
}

struct Counts {
  int waiting = 0, running = 0, succeeded = 0, failed = 0, total = 0;
  [[nodiscard]] int stopped() const { return succeeded + failed; }
};

class StatusBuilder {
 public:
  StatusBuilder(const PodSpec& spec, const PodState& st, const Plan& plan, const StatusInputs& in, const Object& before)
      : spec_(spec), st_(st), plan_(plan), in_(in), before_(before) {}

  Object build() {
    Object out;
    Array init, main;
    for (const auto& c : spec_.init) init.push_back(container_status(c));
    for (const auto& c : spec_.main) main.push_back(container_status(c));
    out["phase"] = phase();
    out["conditions"] = conditions();
    if (!in_.host_ip.empty()) out["hostIP"] = in_.host_ip;
    if (in_.pod_ips.empty()) {
      // A pod that is done, or between two sandboxes, is still known by the address it had.
      for (const char* field : {"podIP", "podIPs"})
        if (const Value* v = kube::find(before_, {field})) out[field] = *v;
    } else {
      out["podIP"] = in_.pod_ips.front();
      Array ips;
      for (const auto& ip : in_.pod_ips) ips.push_back(Object{{"ip", ip}});
      out["podIPs"] = std::move(ips);
    }
    if (in_.start_time != WallTime{}) out["startTime"] = rfc3339(in_.start_time);
    if (!init.empty()) out["initContainerStatuses"] = std::move(init);
    out["containerStatuses"] = std::move(main);
    out["qosClass"] = qos_class(*spec_.object);
    if (st_.deadline_passed) {
      out["reason"] = "DeadlineExceeded";
      out["message"] = "Pod was active on the node longer than the specified deadline";
    }
    return out;
  }

 private:
  [[nodiscard]] bool ready(const ContainerSpec& c) const {
    const Container* now = st_.latest(c.name);
    if (!now) return false;
    if (c.init && !c.sidecar) return ended(*now) && now->exit_code == 0;
    if (now->state != ContainerState::kRunning) return false;
    const auto it = st_.probes.find(now->id);
    return it == st_.probes.end() || (it->second.started && it->second.ready);
  }
  [[nodiscard]] bool started(const Container& c) const {
    if (c.state != ContainerState::kRunning) return false;
    const auto it = st_.probes.find(c.id);
    return it == st_.probes.end() || it->second.started;
  }

  Object container_status(const ContainerSpec& c) {
    const Container* now = st_.latest(c.name);
    const Container* previous = st_.previous(c.name);
    const auto waiting = plan_.waiting.find(c.name);
    Object o{{"name", c.name},
             {"image", now && !now->image.empty() ? now->image : c.image},
             {"imageID", now ? now->image_ref : ""}};
    Object state, last;
    if (now && now->state == ContainerState::kRunning) {
      state = {{"running", Object{{"startedAt", time_text(now->started_at_ns)}}}};
      if (previous && ended(*previous)) last = terminated_state(*previous, in_.runtime_name);
    } else if (now && ended(*now) && waiting == plan_.waiting.end()) {
      state = terminated_state(*now, in_.runtime_name);
      if (previous && ended(*previous)) last = terminated_state(*previous, in_.runtime_name);
    } else {
      state = waiting_state(waiting != plan_.waiting.end() ? waiting->second : Waiting{"ContainerCreating", ""});
      if (now && ended(*now)) last = terminated_state(*now, in_.runtime_name);
    }
    o["state"] = std::move(state);
    o["lastState"] = std::move(last);
    o["ready"] = ready(c);
    o["restartCount"] = now ? static_cast<std::int64_t>(now->attempt) : 0;
    o["started"] = now && started(*now);
    if (now) o["containerID"] = in_.runtime_name + "://" + now->id;
    return o;
  }

  Counts count(const std::vector<ContainerSpec>& list) const {
    Counts n;
    for (const auto& c : list) {
      ++n.total;
      const Container* now = st_.latest(c.name);
      if (now && now->state == ContainerState::kRunning) {
        ++n.running;
      } else if (now && ended(*now)) {
        ++(now->exit_code == 0 ? n.succeeded : n.failed);
      } else {
        ++n.waiting;
      }
    }
    return n;
  }

  [[nodiscard]] bool initialized() const {
    return std::ranges::all_of(spec_.init, [&](const ContainerSpec& c) {
      const Container* now = st_.latest(c.name);
      if (c.sidecar) return now && started(*now);
      return now && ended(*now) && now->exit_code == 0;
    });
  }

  std::string_view phase() {
    const auto known = kube::str(before_, {"phase"});
    if (known == "Succeeded" || known == "Failed") return phase_ = known;
    if (st_.deadline_passed) return phase_ = "Failed";
    const Counts n = count(spec_.main);
    const bool main_ran = n.running + n.stopped() > 0;
    if (!main_ran && !initialized()) {
      const bool failed = is_finished(spec_, st_);
      return phase_ = failed ? "Failed" : "Pending";
    }
    if (n.waiting > 0) return phase_ = "Pending";  // some container has never run
    if (n.running > 0) return phase_ = "Running";
    const bool over = spec_.deleting || spec_.restart == RestartPolicy::kNever;
    if (n.failed == 0 && (over || spec_.restart == RestartPolicy::kOnFailure)) return phase_ = "Succeeded";
    if (over) return phase_ = "Failed";
    return phase_ = "Running";  // between two runs
  }
  Object condition(std::string_view type, bool ok, std::string_view reason = {}, std::string_view message = {}) const {
    Object o{{"type", type}, {"status", ok ? "True" : "False"}};
    if (!ok && !reason.empty()) o["reason"] = reason;
    if (!ok && !message.empty()) o["message"] = message;
    std::string since = rfc3339(st_.now);
    for (const auto& c : kube::arr(before_, {"conditions"})) {
      const Object& old = kube::as_obj(c);
      if (kube::str(old, {"type"}) == type && kube::str(old, {"status"}) == o["status"].as_string() &&
          !kube::str(old, {"lastTransitionTime"}).empty())
        since = kube::str(old, {"lastTransitionTime"});
    }
    o["lastTransitionTime"] = since;
    return o;
  }

  static std::string names(const std::vector<std::string>& list) {
    std::string out = "[";
    for (const auto& s : list) out += (out.size() > 1 ? " " : "") + s;
    return out + "]";
  }

  // Ready also waits for the conditions that the pod's readinessGates name, which others write.
  Object ready_condition(bool containers_ready, std::string_view reason, const std::string& message) {
    if (!containers_ready) return condition("Ready", false, reason, message);
    for (const auto& g : kube::arr(*spec_.object, {"spec", "readinessGates"})) {
      const auto type = kube::str(kube::as_obj(g), {"conditionType"});
      const auto& list = kube::arr(before_, {"conditions"});
      const bool met = std::ranges::any_of(list, [&](const Value& v) {
        return kube::str(kube::as_obj(v), {"type"}) == type && kube::str(kube::as_obj(v), {"status"}) == "True";
      });
      if (!met)
        return condition("Ready", false, "ReadinessGatesNotReady",
                         fmt::format("the status of pod readiness gate \"{}\" is not \"True\"", type));
    }
    return condition("Ready", true);
  }

  Array conditions() {
    std::vector<std::string> unready, uninitialized;
    for (const auto& c : spec_.main)
      if (!ready(c)) unready.push_back(c.name);
    for (const auto& c : spec_.init) {
      if (c.sidecar && !ready(c)) unready.push_back(c.name);
      const Container* now = st_.latest(c.name);
      const bool done = now && (c.sidecar ? started(*now) : ended(*now) && now->exit_code == 0);
      if (!done) uninitialized.push_back(c.name);
    }
    const bool over = phase_ == "Succeeded" || phase_ == "Failed";
    const std::string_view reason = phase_ == "Succeeded" ? "PodCompleted"
                                    : phase_ == "Failed"  ? "PodFailed"
                                                          : "ContainersNotReady";
    const std::string message = over ? "" : "containers with unready status: " + names(unready);
    const bool containers_ready = !over && unready.empty();
    Array out;
    const bool main_ran =
        std::ranges::any_of(spec_.main, [&](const ContainerSpec& c) { return st_.latest(c.name) != nullptr; });
    out.push_back(condition("Initialized", uninitialized.empty() || main_ran || phase_ == "Succeeded",
                            "ContainersNotInitialized", "containers with incomplete status: " + names(uninitialized)));
    out.push_back(ready_condition(containers_ready, reason, message));
    out.push_back(condition("ContainersReady", containers_ready, reason, message));
    out.push_back(condition("PodScheduled", true));
    for (const auto& c : kube::arr(before_, {"conditions"})) {
      const auto type = kube::str(kube::as_obj(c), {"type"});
      if (type != "Initialized" && type != "Ready" && type != "ContainersReady" && type != "PodScheduled")
        out.push_back(c);
    }
    return out;
  }

  const PodSpec& spec_;
  const PodState& st_;
  const Plan& plan_;
  const StatusInputs& in_;
  const Object& before_;
  std::string_view phase_;
};

// The quantity of `resource` under `which` ("limits", "requests") in thousandths; 0: none.
std::int64_t amount(const Object& container, const char* which, std::string_view resource) {
  const Value* v = kube::find(container, {"resources", which, resource});
  if (!v) return 0;
  if (v->is_int64()) return v->get_int64() * 1000;
  if (!v->is_string()) return 0;
  return kube::quantity_milli_value(std::string_view(v->get_string())).value_or(0);
}

}  // namespace

std::string_view qos_class(const Object& pod) {
  bool any = false, guaranteed = true;
  for (const char* list : {"containers", "initContainers"}) {
    for (const auto& v : kube::arr(pod, {"spec", list})) {
      for (const char* resource : {"cpu", "memory"}) {
        const auto limit = amount(kube::as_obj(v), "limits", resource);
        const auto request = amount(kube::as_obj(v), "requests", resource);
        if (limit > 0 || request > 0) any = true;
        if (limit <= 0 || (request > 0 && request != limit)) guaranteed = false;
      }
    }
  }
  return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

Object pod_status(const PodSpec& spec, const PodState& state, const Plan& plan, const StatusInputs& in,
                  const Object& before) {
  return StatusBuilder(spec, state, plan, in, before).build();
}

}  // namespace hawser::agent
