// SPDX-License-Identifier: Apache-2.0
// The pod's columns: one pass over its containers' states gives readiness, status word and restarts.
#include <algorithm>

#include <boost/json/array.hpp>

#include "controlplane/schema/columns.h"
#include "controlplane/schema/scalar.h"

namespace hawser::schema {
namespace {

using kube::arr;
using kube::as_obj;
using kube::flag;
using kube::num;
using kube::obj;
using kube::Object;
using kube::str;

struct Restarts {
  std::int64_t count = 0;
  std::int64_t last_us = 0;  // 0: never

  void add(const Object& status) {
    count += num(status, {"restartCount"});
    if (auto at = parse_time_us(str(status, {"lastState", "terminated", "finishedAt"})))
      last_us = std::max(last_us, *at);
  }
};

struct Summary {
  std::int64_t total = 0;
  std::int64_t ready = 0;
  std::string reason;
  Restarts restarts;
};

bool condition_true(const Object& pod, std::string_view type) {
  return std::ranges::any_of(arr(pod, {"status", "conditions"}), [&](const kube::Value& c) {
    return str(as_obj(c), {"type"}) == type && str(as_obj(c), {"status"}) == "True";
  });
}

// An init container that keeps running beside the others.
bool is_sidecar(const Object& pod, std::string_view name) {
  return std::ranges::any_of(arr(pod, {"spec", "initContainers"}), [&](const kube::Value& c) {
    return str(as_obj(c), {"name"}) == name && str(as_obj(c), {"restartPolicy"}) == "Always";
  });
}

// "Error", or "Signal:9", "ExitCode:1" when the runtime gave no word.
std::string end_reason(const Object& terminated) {
  auto reason = str(terminated, {"reason"});
  if (!reason.empty()) return std::string(reason);
  auto signal = num(terminated, {"signal"});
  return signal ? fmt::format("Signal:{}", signal) : fmt::format("ExitCode:{}", num(terminated, {"exitCode"}));
}

// The word for the first init container that is not done; empty if all are. Sidecars count as ready containers.
std::string init_reason(const Object& pod, Summary& s, Restarts& sidecars) {
  const auto& statuses = arr(pod, {"status", "initContainerStatuses"});
  for (std::size_t i = 0; i < statuses.size(); i++) {
    const auto& c = as_obj(statuses[i]);
    s.restarts.add(c);
    bool sidecar = is_sidecar(pod, str(c, {"name"}));
    if (sidecar) sidecars.add(c);
    const auto* terminated = kube::find(c, {"state", "terminated"});
    if (terminated && num(as_obj(*terminated), {"exitCode"}) == 0) continue;
    if (sidecar && flag(c, {"started"})) {
      s.ready += flag(c, {"ready"}) ? 1 : 0;
      continue;
    }
    if (terminated) return "Init:" + end_reason(as_obj(*terminated));
    auto waiting = str(c, {"state", "waiting", "reason"});
    if (!waiting.empty() && waiting != "PodInitializing") return "Init:" + std::string(waiting);
    return fmt::format("Init:{}/{}", i, arr(pod, {"spec", "initContainers"}).size());
  }
  return {};
}

void add_containers(const Object& pod, Summary& s) {
  const auto& statuses = arr(pod, {"status", "containerStatuses"});
  bool running = false;
  for (std::size_t i = statuses.size(); i-- > 0;) {
    const auto& c = as_obj(statuses[i]);
    s.restarts.add(c);
    auto waiting = str(c, {"state", "waiting", "reason"});
    const auto* terminated = kube::find(c, {"state", "terminated"});
    if (!waiting.empty())
      s.reason = waiting;
    else if (terminated)
      s.reason = end_reason(as_obj(*terminated));
    else if (flag(c, {"ready"}) && kube::find(c, {"state", "running"})) {
      running = true;
      s.ready++;
    }
  }
  if (s.reason == "Completed" && running) s.reason = condition_true(pod, "Ready") ? "Running" : "NotReady";
}

Summary summarize(const Object& pod) {
  Summary s;
  s.total = static_cast<std::int64_t>(arr(pod, {"spec", "containers"}).size());
  for (const auto& c : arr(pod, {"spec", "initContainers"}))
    s.total += str(as_obj(c), {"restartPolicy"}) == "Always" ? 1 : 0;
  auto phase = str(pod, {"status", "phase"});
  auto status_reason = str(pod, {"status", "reason"});
  s.reason = status_reason.empty() ? phase : status_reason;
  for (const auto& c : arr(pod, {"status", "conditions"}))
    if (str(as_obj(c), {"type"}) == "PodScheduled" && str(as_obj(c), {"reason"}) == "SchedulingGated")
      s.reason = "SchedulingGated";
  Restarts sidecars;
  auto init = init_reason(pod, s, sidecars);
  if (!init.empty()) s.reason = init;
  if (init.empty() || condition_true(pod, "Initialized")) {
    s.restarts = sidecars;
    add_containers(pod, s);
  }
  bool ended = phase == "Succeeded" || phase == "Failed";
  if (kube::deleting(pod) && status_reason == "NodeLost")
    s.reason = "Unknown";
  else if (kube::deleting(pod) && !ended)
    s.reason = "Terminating";
  return s;
}

boost::json::value text(const std::string& s) {
  return boost::json::string(s);
}

}  // namespace

namespace cells {

boost::json::value pod_ready(const Object& o, std::int64_t) {
  auto s = summarize(o);
  return text(fmt::format("{}/{}", s.ready, s.total));
}

boost::json::value pod_status(const Object& o, std::int64_t) {
  return text(summarize(o).reason);
}

boost::json::value pod_restarts(const Object& o, std::int64_t now) {
  auto r = summarize(o).restarts;
  if (r.count == 0 || r.last_us == 0) return text(std::to_string(r.count));
  return text(fmt::format("{} ({} ago)", r.count, human_duration(now - r.last_us / 1'000'000)));
}

boost::json::value pod_gates(const Object& o, std::int64_t) {
  const auto& gates = arr(o, {"spec", "readinessGates"});
  if (gates.empty()) return text("<none>");
  auto open = std::ranges::count_if(
      gates, [&](const kube::Value& g) { return condition_true(o, str(as_obj(g), {"conditionType"})); });
  return text(fmt::format("{}/{}", open, gates.size()));
}

}  // namespace cells
}  // namespace hawser::schema
