// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_spec.h"

#include <charconv>

#include "controlplane/agent/image_ref.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using kube::Object;

// An IntOrString port: a number, or the name of one of the container's ports.
std::uint16_t port_of(const Object& container, const kube::Value* v) {
  if (!v) return 0;
  if (v->is_int64()) return static_cast<std::uint16_t>(v->get_int64());
  if (!v->is_string()) return 0;
  std::string_view text = v->get_string();
  std::uint16_t number = 0;
  if (auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), number);
      err == std::errc() && end == text.data() + text.size())
    return number;
  for (const auto& p : kube::arr(container, {"ports"})) {
    if (kube::str(kube::as_obj(p), {"name"}) == text)
      return static_cast<std::uint16_t>(kube::num(kube::as_obj(p), {"containerPort"}));
  }
  return 0;
}

std::optional<Check> parse_check(const Object& container, const Object& o) {
  Check c;
  if (kube::find(o, {"exec"})) {
    c.kind = Check::Kind::kExec;
    for (const auto& arg : kube::arr(o, {"exec", "command"}))
      if (arg.is_string()) c.command.emplace_back(arg.get_string());
    return c;
  }
  if (kube::find(o, {"httpGet"})) {
    c.kind = Check::Kind::kHttpGet;
    c.host = kube::str(o, {"httpGet", "host"});
    c.port = port_of(container, kube::find(o, {"httpGet", "port"}));
    if (auto path = kube::str(o, {"httpGet", "path"}); !path.empty())
      c.path = path.front() == '/' ? path : "/" + std::string(path);
    c.https = kube::str(o, {"httpGet", "scheme"}) == "HTTPS";
    for (const auto& h : kube::arr(o, {"httpGet", "httpHeaders"}))
      c.headers.emplace_back(kube::str(kube::as_obj(h), {"name"}), kube::str(kube::as_obj(h), {"value"}));
    return c;
  }
  if (kube::find(o, {"tcpSocket"})) {
    c.kind = Check::Kind::kTcp;
    c.host = kube::str(o, {"tcpSocket", "host"});
    c.port = port_of(container, kube::find(o, {"tcpSocket", "port"}));
    return c;
  }
  if (kube::find(o, {"sleep"})) {
    c.kind = Check::Kind::kSleep;
    c.sleep = std::chrono::seconds(kube::num(o, {"sleep", "seconds"}));
    return c;
  }
  return std::nullopt;
}

std::optional<Probe> parse_probe(const Object& container, const char* field) {
  const Object& o = kube::obj(container, {field});
  auto check = parse_check(container, o);
  if (!check) return std::nullopt;
  Probe p;
  p.check = std::move(*check);
  p.initial_delay = std::chrono::seconds(kube::num(o, {"initialDelaySeconds"}, 0));
  p.timeout = std::chrono::seconds(std::max<std::int64_t>(1, kube::num(o, {"timeoutSeconds"}, 1)));
  p.period = std::chrono::seconds(std::max<std::int64_t>(1, kube::num(o, {"periodSeconds"}, 10)));
  p.success_threshold = static_cast<int>(std::max<std::int64_t>(1, kube::num(o, {"successThreshold"}, 1)));
  p.failure_threshold = static_cast<int>(std::max<std::int64_t>(1, kube::num(o, {"failureThreshold"}, 3)));
  if (kube::find(o, {"terminationGracePeriodSeconds"}))
    p.grace = std::chrono::seconds(kube::num(o, {"terminationGracePeriodSeconds"}));
  return p;
}

PullPolicy pull_policy(const Object& c, std::string_view image) {
  const auto text = kube::str(c, {"imagePullPolicy"});
  if (text == "Always") return PullPolicy::kAlways;
  if (text == "Never") return PullPolicy::kNever;
  if (text == "IfNotPresent") return PullPolicy::kIfNotPresent;
  return is_latest(image) ? PullPolicy::kAlways : PullPolicy::kIfNotPresent;
}

ContainerSpec parse_container(const Object& o, bool init) {
  ContainerSpec c;
  c.object = &o;
  c.name = kube::str(o, {"name"});
  c.image = kube::str(o, {"image"});
  c.pull = pull_policy(o, c.image);
  c.init = init;
  c.sidecar = init && kube::str(o, {"restartPolicy"}) == "Always";
  if (!init || c.sidecar) {
    c.startup = parse_probe(o, "startupProbe");
    c.readiness = parse_probe(o, "readinessProbe");
    c.liveness = parse_probe(o, "livenessProbe");
    c.post_start = parse_check(o, kube::obj(o, {"lifecycle", "postStart"}));
    c.pre_stop = parse_check(o, kube::obj(o, {"lifecycle", "preStop"}));
  }
  if (auto p = kube::str(o, {"terminationMessagePath"}); !p.empty()) c.termination_path = p;
  c.termination_fallback_to_logs = kube::str(o, {"terminationMessagePolicy"}) == "FallbackToLogsOnError";
  return c;
}

}  // namespace

const ContainerSpec* PodSpec::container(std::string_view container_name) const {
  for (const auto* list : {&init, &main}) {
    for (const auto& c : *list)
      if (c.name == container_name) return &c;
  }
  return nullptr;
}

PodSpecPtr parse_pod(kube::ObjectPtr object) {
  auto p = std::make_shared<PodSpec>();
  const Object& o = *object;
  p->ns = kube::ns(o);
  p->name = kube::name(o);
  p->uid = kube::uid(o);
  for (const auto& c : kube::arr(o, {"spec", "initContainers"}))
    p->init.push_back(parse_container(kube::as_obj(c), true));
  for (const auto& c : kube::arr(o, {"spec", "containers"})) p->main.push_back(parse_container(kube::as_obj(c), false));
  const auto restart = kube::str(o, {"spec", "restartPolicy"});
  p->restart = restart == "Never"       ? RestartPolicy::kNever
               : restart == "OnFailure" ? RestartPolicy::kOnFailure
                                        : RestartPolicy::kAlways;
  p->grace = std::chrono::seconds(kube::num(o, {"spec", "terminationGracePeriodSeconds"}, 30));
  p->deleting = kube::deleting(o);
  if (kube::find(o, {"metadata", "deletionGracePeriodSeconds"}))
    p->deletion_grace = std::chrono::seconds(kube::num(o, {"metadata", "deletionGracePeriodSeconds"}));
  if (kube::find(o, {"spec", "activeDeadlineSeconds"}))
    p->active_deadline = std::chrono::seconds(kube::num(o, {"spec", "activeDeadlineSeconds"}));
  p->host_network = kube::flag(o, {"spec", "hostNetwork"});
  p->object = std::move(object);
  return p;
}

}  // namespace hawser::agent
