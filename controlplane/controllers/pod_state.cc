// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/pod_state.h"

#include "lib/base/time_text.h"

namespace hawser::controllers {

const Object* condition(const Object& o, std::string_view type) {
  for (const Value& c : kube::arr(o, {"status", "conditions"}))
    if (c.is_object() && kube::str(c.get_object(), {"type"}) == type) return &c.get_object();
  return nullptr;
}

bool is_terminal(const Object& pod) {
  const std::string_view phase = kube::str(pod, {"status", "phase"});
  return phase == "Succeeded" || phase == "Failed";
}

bool is_active(const Object& pod) {
  return !is_terminal(pod) && !kube::deleting(pod);
}

bool is_ready(const Object& pod) {
  const Object* ready = condition(pod, "Ready");
  return ready != nullptr && kube::str(*ready, {"status"}) == "True";
}

std::optional<WallTime> ready_since(const Object& pod) {
  const Object* ready = condition(pod, "Ready");
  if (ready == nullptr) return std::nullopt;
  return time_at(*ready, {"lastTransitionTime"});
}

bool is_available(const Object& pod, Nanos min_ready, WallTime now) {
  if (!is_ready(pod)) return false;
  if (min_ready.count() == 0) return true;
  const auto since = ready_since(pod);
  return since && *since + min_ready <= now;
}

std::int64_t restart_count(const Object& pod) {
  std::int64_t n = 0;
  for (const Value& c : kube::arr(pod, {"status", "containerStatuses"}))
    n += kube::num(kube::as_obj(c), {"restartCount"});
  return n;
}

std::optional<WallTime> time_at(const Object& o, std::initializer_list<std::string_view> path) {
  const std::string_view s = kube::str(o, path);
  if (s.empty()) return std::nullopt;
  auto t = parse_rfc3339(s);
  if (!t) return std::nullopt;
  return *t;
}

std::string_view annotation(const Object& o, std::string_view name) {
  return kube::str(o, {"metadata", "annotations", name});
}

std::string_view label(const Object& o, std::string_view name) {
  return kube::str(o, {"metadata", "labels", name});
}

}  // namespace hawser::controllers
