// SPDX-License-Identifier: Apache-2.0
// Rules of the containers of a pod spec: names, ports, variables, mounts, probes, resources.
#include <array>
#include <set>
#include <string>

#include <boost/json/array.hpp>

#include "controlplane/schema/validate.h"
#include "lib/kube/object.h"
#include "lib/kube/quantity.h"

namespace hawser::schema {
namespace {

using kube::Array;
using Names = std::set<std::string, std::less<>>;

void validate_ports(const Array& ports, const std::string& path, FieldErrors& e) {
  Names names;
  for (std::size_t i = 0; i < ports.size(); i++) {
    const auto& p = kube::as_obj(ports[i]);
    auto where = at(path, i);
    if (auto name = kube::str(p, {"name"}); !name.empty()) {
      auto reasons = check_port_name(name);
      e.invalid(at(where, "name"), name, reasons);
      if (reasons.empty() && !names.emplace(name).second) e.duplicate(at(where, "name"), name);
    }
    if (auto host = kube::num(p, {"hostPort"}); host != 0)
      e.invalid(at(where, "hostPort"), host, check_port_number(host));
  }
}

// Two containers of one pod cannot take the same port of the node.
void check_host_ports(const Array& ports, const std::string& path, Names& taken, FieldErrors& e) {
  for (std::size_t i = 0; i < ports.size(); i++) {
    const auto& p = kube::as_obj(ports[i]);
    auto host = kube::num(p, {"hostPort"});
    if (host == 0) continue;
    auto text = fmt::format("{}/{}/{}", kube::str(p, {"protocol"}), kube::str(p, {"hostIP"}), host);
    if (!taken.emplace(text).second) e.duplicate(at(at(path, i), "hostPort"), text);
  }
}

void validate_env_source(const Object& from, bool has_value, const std::string& path, FieldErrors& e) {
  int sources = 0;
  for (auto field : {"fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"})
    sources += kube::find(from, {field}) ? 1 : 0;
  if (sources == 0)
    e.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
  else if (has_value)
    e.invalid(path, "", "may not be specified when `value` is not empty");
  else if (sources > 1)
    e.invalid(path, "", "may not have more than one field specified at a time");
  if (const auto* field = kube::find(from, {"fieldRef"})) {
    constexpr std::array<std::string_view, 9> kPaths{
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs",     "status.podIP", "status.podIPs"};
    auto p = kube::str(kube::as_obj(*field), {"fieldPath"});
    bool keyed = p.ends_with("']") && (p.starts_with("metadata.labels['") || p.starts_with("metadata.annotations['"));
    if (!p.empty() && !keyed && std::ranges::find(kPaths, p) == kPaths.end())
      e.not_supported(at(path, "fieldRef.fieldPath"), p, {kPaths.begin(), kPaths.end()});
  }
  for (auto ref : {"configMapKeyRef", "secretKeyRef"})
    if (const auto* r = kube::find(from, {ref}); r && kube::str(kube::as_obj(*r), {"name"}).empty())
      e.required(at(at(path, ref), "name"));
}

void validate_env(const Array& env, const std::string& path, FieldErrors& e) {
  for (std::size_t i = 0; i < env.size(); i++) {
    const auto& v = kube::as_obj(env[i]);
    auto name = kube::str(v, {"name"});
    if (!name.empty()) e.invalid(at(at(path, i), "name"), name, check_env_name(name));
    if (const auto* from = kube::find(v, {"valueFrom"}))
      validate_env_source(kube::as_obj(*from), !kube::str(v, {"value"}).empty(), at(at(path, i), "valueFrom"), e);
  }
}

void validate_env_from(const Array& sources, const std::string& path, FieldErrors& e) {
  for (std::size_t i = 0; i < sources.size(); i++) {
    const auto& s = kube::as_obj(sources[i]);
    bool config = kube::find(s, {"configMapRef"}) != nullptr;
    bool secret = kube::find(s, {"secretRef"}) != nullptr;
    if (!config && !secret) e.invalid(at(path, i), "", "must specify one of: `configMapRef` or `secretRef`");
    if (config && secret) e.invalid(at(path, i), "", "may not have more than one field specified at a time");
  }
}

void validate_port_ref(const Object& action, const std::string& path, FieldErrors& e) {
  const auto* port = kube::find(action, {"port"});
  if (port && port->is_int64())
    e.invalid(at(path, "port"), *port, check_port_number(port->get_int64()));
  else if (port && port->is_string())
    e.invalid(at(path, "port"), *port, check_port_name(port->get_string()));
  else
    e.invalid(at(path, "port"), std::int64_t{0}, check_port_number(0));
}

int validate_action(const Object& h, const std::string& path, FieldErrors& e) {
  int count = 0;
  auto another = [&](std::string_view field) {
    const auto* v = kube::find(h, {field});
    if (!v) return static_cast<const Object*>(nullptr);
    if (count++ > 0) e.forbidden(at(path, field), "may not specify more than 1 handler type");
    return &kube::as_obj(*v);
  };
  if (const auto* exec = another("exec"); exec && kube::arr(*exec, {"command"}).empty())
    e.required(at(path, "exec.command"));
  if (const auto* get = another("httpGet")) {
    if (kube::str(*get, {"path"}).empty()) e.required(at(path, "httpGet.path"));
    validate_port_ref(*get, at(path, "httpGet"), e);
  }
  if (const auto* tcp = another("tcpSocket")) validate_port_ref(*tcp, at(path, "tcpSocket"), e);
  another("grpc");
  another("sleep");
  if (count == 0) e.required(path, "must specify a handler type");
  return count;
}

void validate_probe(const Object& c, std::string_view field, const std::string& path, FieldErrors& e) {
  const auto* v = kube::find(c, {field});
  if (!v) return;
  const auto& probe = kube::as_obj(*v);
  auto where = at(path, field);
  validate_action(probe, where, e);
  auto successes = kube::num(probe, {"successThreshold"});
  if (field != "readinessProbe" && successes != 1) e.invalid(at(where, "successThreshold"), successes, "must be 1");
}

void validate_lifecycle(const Object& c, const std::string& path, FieldErrors& e) {
  for (auto field : {"postStart", "preStop"})
    if (const auto* h = kube::find(c, {"lifecycle", field}))
      validate_action(kube::as_obj(*h), at(at(path, "lifecycle"), field), e);
}

bool is_whole_resource(std::string_view name) {
  return name != "cpu" && name != "memory" && name != "ephemeral-storage" && !name.starts_with("hugepages-");
}

void validate_quantities(const Object& list, const std::string& path, FieldErrors& e) {
  for (const auto& [name, v] : list) {
    auto where = at_key(path, name);
    e.invalid(where, std::string_view(name), check_qualified_name(name));
    auto q = v.is_string() ? kube::Quantity::parse(v.get_string()) : kube::Quantity::parse("");
    if (!q) continue;
    if (q->nanos < 0) e.invalid(where, v, "must be greater than or equal to 0");
    if (is_whole_resource(name) && q->nanos % 1'000'000'000 != 0) e.invalid(where, v, "must be an integer");
    bool standard = !is_whole_resource(name) || std::string_view(name).find('/') != std::string_view::npos;
    if (!standard) e.invalid(where, std::string_view(name), "must be a standard resource for containers");
  }
}

void validate_resources(const Object& r, const std::string& path, FieldErrors& e) {
  const auto& limits = kube::obj(r, {"limits"});
  const auto& requests = kube::obj(r, {"requests"});
  validate_quantities(limits, at(path, "limits"), e);
  validate_quantities(requests, at(path, "requests"), e);
  for (const auto& [name, v] : requests) {
    const auto* limit = limits.if_contains(name);
    if (!limit || !limit->is_string() || !v.is_string()) continue;
    auto want = kube::Quantity::parse(v.get_string());
    auto most = kube::Quantity::parse(limit->get_string());
    if (want && most && want->nanos > most->nanos)
      e.invalid(at(path, "requests"), v,
                fmt::format("must be less than or equal to {} limit of {}", std::string_view(name),
                            std::string_view(limit->get_string())));
  }
}

// "" unless `path` leaves its folder or is absolute.
std::string bad_relative(std::string_view path) {
  if (path.starts_with('/')) return "must be a relative path";
  for (;;) {
    auto slash = path.find('/');
    if (path.substr(0, slash) == "..") return "must not contain '..'";
    if (slash == std::string_view::npos) return {};
    path.remove_prefix(slash + 1);
  }
}

void validate_mounts(const Array& mounts, const Names& volumes, const std::string& path, FieldErrors& e) {
  Names paths;
  for (std::size_t i = 0; i < mounts.size(); i++) {
    const auto& m = kube::as_obj(mounts[i]);
    auto where = at(path, i);
    auto name = kube::str(m, {"name"});
    if (!name.empty() && !volumes.contains(name)) e.not_found(at(where, "name"), name);
    auto target = kube::str(m, {"mountPath"});
    if (!target.empty() && !paths.emplace(target).second) e.invalid(at(where, "mountPath"), target, "must be unique");
    for (auto field : {"subPath", "subPathExpr"})
      if (auto v = kube::str(m, {field}); !v.empty())
        if (auto why = bad_relative(v); !why.empty()) e.invalid(at(where, field), v, why);
    if (!kube::str(m, {"subPath"}).empty() && !kube::str(m, {"subPathExpr"}).empty())
      e.invalid(at(where, "subPathExpr"), kube::str(m, {"subPathExpr"}),
                "subPathExpr and subPath are mutually exclusive");
  }
}

void validate_security(const Object& c, const std::string& path, FieldErrors& e) {
  const auto& s = kube::obj(c, {"securityContext"});
  for (auto field : {"runAsUser", "runAsGroup"})
    if (const auto* id = kube::find(s, {field});
        id && id->is_int64() && (id->get_int64() < 0 || id->get_int64() > 2147483647))
      e.invalid(at(at(path, "securityContext"), field), *id, "must be between 0 and 2147483647, inclusive");
  const auto* escalate = kube::find(s, {"allowPrivilegeEscalation"});
  if (escalate && escalate->is_bool() && !escalate->get_bool() && kube::flag(s, {"privileged"}))
    e.invalid(at(path, "securityContext"), s,
              "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
}

struct ContainerRules {
  const Names& volumes;
  bool init = false;
};

void validate_container(const Object& c, const std::string& path, const ContainerRules& rules, FieldErrors& e) {
  auto name = kube::str(c, {"name"});
  if (!name.empty()) e.invalid(at(path, "name"), name, check_dns1123_label(name));
  auto image = kube::str(c, {"image"});
  if (image.empty())
    e.required(at(path, "image"));
  else if (image.front() == ' ' || image.back() == ' ')
    e.invalid(at(path, "image"), image, "must not have leading or trailing whitespace");
  validate_ports(kube::arr(c, {"ports"}), at(path, "ports"), e);
  validate_env(kube::arr(c, {"env"}), at(path, "env"), e);
  validate_env_from(kube::arr(c, {"envFrom"}), at(path, "envFrom"), e);
  validate_mounts(kube::arr(c, {"volumeMounts"}), rules.volumes, at(path, "volumeMounts"), e);
  validate_resources(kube::obj(c, {"resources"}), at(path, "resources"), e);
  validate_security(c, path, e);
  auto restart = kube::str(c, {"restartPolicy"});
  if (!restart.empty() && !rules.init)
    e.forbidden(at(path, "restartPolicy"), "may not be set for non-init containers");
  else if (!restart.empty() && restart != "Always")
    e.not_supported(at(path, "restartPolicy"), restart, {"Always"});
  bool sidecar = restart == "Always";
  for (auto field : {"livenessProbe", "readinessProbe", "startupProbe", "lifecycle"}) {
    if (rules.init && !sidecar && kube::find(c, {field}))
      e.forbidden(at(path, field), "may not be set for init containers without restartPolicy=Always");
    else if (std::string_view(field) != "lifecycle")
      validate_probe(c, field, path, e);
  }
  if (!rules.init || sidecar) validate_lifecycle(c, path, e);
}

void validate_key_paths(const Object& source, const std::string& path, FieldErrors& e) {
  const auto& items = kube::arr(source, {"items"});
  for (std::size_t i = 0; i < items.size(); i++) {
    auto p = kube::str(kube::as_obj(items[i]), {"path"});
    if (auto why = bad_relative(p); !why.empty()) e.invalid(at(at(at(path, "items"), i), "path"), p, why);
    const auto* mode = kube::find(kube::as_obj(items[i]), {"mode"});
    if (mode && mode->is_int64() && (mode->get_int64() < 0 || mode->get_int64() > 0777))
      e.invalid(at(at(at(path, "items"), i), "mode"), *mode,
                "must be a number between 0 and 0777 (octal), both inclusive");
  }
}

void validate_volume_source(const Object& v, const std::string& path, FieldErrors& e) {
  for (auto field : {"configMap", "secret", "downwardAPI", "projected"}) {
    const auto* source = kube::find(v, {field});
    if (!source) continue;
    const auto& o = kube::as_obj(*source);
    const auto* mode = kube::find(o, {"defaultMode"});
    if (mode && mode->is_int64() && (mode->get_int64() < 0 || mode->get_int64() > 0777))
      e.invalid(at(at(path, field), "defaultMode"), *mode,
                "must be a number between 0 and 0777 (octal), both inclusive");
    validate_key_paths(o, at(path, field), e);
  }
  if (const auto* c = kube::find(v, {"configMap"}); c && kube::str(kube::as_obj(*c), {"name"}).empty())
    e.required(at(path, "configMap.name"));
  if (const auto* s = kube::find(v, {"secret"}); s && kube::str(kube::as_obj(*s), {"secretName"}).empty())
    e.required(at(path, "secret.secretName"));
  if (auto p = kube::str(v, {"hostPath", "path"});
      p.find("..") != std::string_view::npos && !bad_relative(p.substr(1)).empty())
    e.invalid(at(path, "hostPath.path"), p, "must not contain '..'");
}

}  // namespace

void validate_volumes(const Object& spec, const std::string& path, FieldErrors& e) {
  Names names;
  const auto& volumes = kube::arr(spec, {"volumes"});
  for (std::size_t i = 0; i < volumes.size(); i++) {
    const auto& v = kube::as_obj(volumes[i]);
    auto where = at(path, i);
    auto name = kube::str(v, {"name"});
    if (!name.empty()) {
      auto reasons = check_dns1123_label(name);
      e.invalid(at(where, "name"), name, reasons);
      if (reasons.empty() && !names.emplace(name).second) e.duplicate(at(where, "name"), name);
    }
    int sources = 0;
    for (const auto& [field, source] : v) {
      if (field == "name" || source.is_null()) continue;
      if (sources++ > 0) e.forbidden(at(where, field), "may not specify more than 1 volume type");
    }
    if (sources == 0) e.required(where, "must specify a volume type");
    validate_volume_source(v, where, e);
  }
}

void validate_containers(const Object& spec, const std::string& path, FieldErrors& e) {
  Names volumes;
  for (const auto& v : kube::arr(spec, {"volumes"})) volumes.emplace(kube::str(kube::as_obj(v), {"name"}));
  const auto& containers = kube::arr(spec, {"containers"});
  if (containers.empty()) e.required(at(path, "containers"));
  Names names;
  Names host_ports;
  bool host_network = kube::flag(spec, {"hostNetwork"});
  for (auto field : {"containers", "initContainers"}) {
    const auto& list = kube::arr(spec, {field});
    for (std::size_t i = 0; i < list.size(); i++) {
      const auto& c = kube::as_obj(list[i]);
      auto where = at(at(path, field), i);
      bool init = std::string_view(field) == "initContainers";
      validate_container(c, where, {.volumes = volumes, .init = init}, e);
      auto name = kube::str(c, {"name"});
      if (!name.empty() && !names.emplace(name).second) e.duplicate(at(where, "name"), name);
      const auto& ports = kube::arr(c, {"ports"});
      if (!init) check_host_ports(ports, at(where, "ports"), host_ports, e);
      for (std::size_t p = 0; host_network && p < ports.size(); p++)
        if (kube::num(kube::as_obj(ports[p]), {"hostPort"}) != kube::num(kube::as_obj(ports[p]), {"containerPort"}))
          e.invalid(at(at(at(where, "ports"), p), "hostPort"), kube::num(kube::as_obj(ports[p]), {"hostPort"}),
                    "must match `containerPort` when `hostNetwork` is true");
    }
  }
}

}  // namespace hawser::schema
