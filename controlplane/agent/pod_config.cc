// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_config.h"

#include <algorithm>
#include <sstream>

#include "controlplane/agent/pod_cgroup.h"
#include "controlplane/agent/pod_machine.h"
#include "controlplane/agent/pod_status.h"
#include "lib/kube/object.h"
#include "lib/kube/quantity.h"

namespace hawser::agent {
namespace {

using kube::Object;

constexpr std::size_t kMaxNameServers = 3;  // glibc reads no more
constexpr std::int64_t kCpuPeriodUs = 100'000;
constexpr std::int64_t kMinCpuShares = 2;
constexpr std::int64_t kMinCpuQuotaUs = 1'000;
constexpr std::int64_t kMaxMilliCpu = 1'000'000'000;  // a million processors; the products below must not overflow

void add_unique(std::vector<std::string>& list, std::string value) {
  if (std::ranges::find(list, value) == list.end()) list.push_back(std::move(value));
}

std::vector<std::string> strings(const kube::Array& a) {
  std::vector<std::string> out;
  for (const auto& v : a)
    if (v.is_string()) out.emplace_back(v.get_string());
  return out;
}

StringMap string_map(const Object& o) {
  StringMap out;
  for (const auto& [k, v] : o)
    if (v.is_string()) out.emplace(k, v.get_string());
  return out;
}

NamespaceModes namespaces(const Object& pod) {
  NamespaceModes m;
  if (kube::flag(pod, {"spec", "hostNetwork"})) m.network = NamespaceMode::kNode;
  if (kube::flag(pod, {"spec", "hostIPC"})) m.ipc = NamespaceMode::kNode;
  if (kube::flag(pod, {"spec", "hostPID"}))
    m.pid = NamespaceMode::kNode;
  else if (kube::flag(pod, {"spec", "shareProcessNamespace"}))
    m.pid = NamespaceMode::kPod;
  return m;
}

// A security field of the container, else of the pod.
const kube::Value* security(const Object& pod, const Object* container, std::string_view field) {
  if (container) {
    if (const auto* v = kube::find(*container, {"securityContext", field})) return v;
  }
  return kube::find(pod, {"spec", "securityContext", field});
}
std::optional<std::int64_t> security_num(const Object& pod, const Object* container, std::string_view field) {
  const auto* v = security(pod, container, field);
  return v && v->is_int64() ? std::optional(v->get_int64()) : std::nullopt;
}

// The kubelet's default is no filter at all (seccompDefault is off).
SeccompProfile seccomp(const Object& pod, const Object* container) {
  SeccompProfile out;
  const auto* v = security(pod, container, "seccompProfile");
  if (!v) return out;
  const auto type = kube::str(kube::as_obj(*v), {"type"});
  if (type == "RuntimeDefault") out.type = SeccompProfile::Type::kRuntimeDefault;
  if (type == "Localhost") {
    out.type = SeccompProfile::Type::kLocalhost;
    out.localhost_path = kube::str(kube::as_obj(*v), {"localhostProfile"});
  }
  return out;
}

std::vector<std::int64_t> supplemental_groups(const Object& pod) {
  std::vector<std::int64_t> out;
  for (const auto& v : kube::arr(pod, {"spec", "securityContext", "supplementalGroups"}))
    if (v.is_int64()) out.push_back(v.get_int64());
  if (const auto* g = kube::find(pod, {"spec", "securityContext", "fsGroup"}); g && g->is_int64())
    out.push_back(g->get_int64());
  return out;
}

std::optional<std::string_view> resource(const Object& c, const char* which, const char* name) {
  const auto* v = kube::find(c, {"resources", which, name});
  return v && v->is_string() ? std::optional(std::string_view(v->get_string())) : std::nullopt;
}

Result<ContainerResources> resources(const PodSpec& spec, const Object& c, const NodeSettings& node) {
  ContainerResources out;
  out.cpu_shares = kMinCpuShares;
  std::int64_t request_milli = 0, request_bytes = 0;
  auto cpu_request = resource(c, "requests", "cpu");
  if (!cpu_request) cpu_request = resource(c, "limits", "cpu");
  if (cpu_request) {
    auto milli = kube::quantity_milli_value(*cpu_request);
    if (!milli) return propagate(milli, "resources.requests.cpu");
    request_milli = std::min(*milli, kMaxMilliCpu);
    out.cpu_shares = std::max(kMinCpuShares, request_milli * 1024 / 1000);
  }
  if (auto limit = resource(c, "limits", "cpu")) {
    auto milli = kube::quantity_milli_value(*limit);
    if (!milli) return propagate(milli, "resources.limits.cpu");
    if (*milli > 0) {
      out.cpu_period_us = kCpuPeriodUs;
      out.cpu_quota_us = std::max(kMinCpuQuotaUs, std::min(*milli, kMaxMilliCpu) * kCpuPeriodUs / 1000);
    }
  }
  if (auto limit = resource(c, "limits", "memory")) {
    auto bytes = kube::quantity_value(*limit);
    if (!bytes) return propagate(bytes, "resources.limits.memory");
    out.memory_limit_bytes = *bytes;
    request_bytes = *bytes;
  }
  if (auto request = resource(c, "requests", "memory"))
    request_bytes = kube::quantity_value(*request).value_or(request_bytes);
  // Who asked for more of the node's memory is ended later when it runs out.
  const auto qos = qos_class(*spec.object);
  if (qos == "Guaranteed") {
    out.oom_score_adj = -997;
  } else if (qos == "BestEffort" || node.capacity_memory_bytes <= 0) {
    out.oom_score_adj = 1000;
  } else {
    const auto adj = 1000 - static_cast<std::int64_t>(1000.0 * static_cast<double>(request_bytes) /
                                                      static_cast<double>(node.capacity_memory_bytes));
    out.oom_score_adj = std::clamp<std::int64_t>(adj, 3, 999);
  }
  return out;
}

Result<> check_non_root(const Object& pod, const ContainerConfig& config, const ContainerSpec& c,
                        const std::optional<Image>& info) {
  const auto* v = security(pod, c.object, "runAsNonRoot");
  if (!v || !v->is_bool() || !v->get_bool()) return {};
  if (config.run_as_user) {
    if (*config.run_as_user != 0) return {};
    return fail(EINVAL, "container's runAsUser breaks non-root policy (container: {})", c.name);
  }
  if (info && !info->username.empty())
    return fail(EINVAL,
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root "
                "(container: {})",
                info->username, c.name);
  if (info && info->uid.value_or(0) == 0)
    return fail(EINVAL, "container has runAsNonRoot and image will run as root (container: {})", c.name);
  return {};
}

void set_security(const PodSpec& spec, const ContainerSpec& c, ContainerConfig& out) {
  const Object& pod = *spec.object;
  out.privileged = kube::flag(*c.object, {"securityContext", "privileged"});
  out.read_only_rootfs = kube::flag(*c.object, {"securityContext", "readOnlyRootFilesystem"});
  out.no_new_privs = !out.privileged && !kube::flag(*c.object, {"securityContext", "allowPrivilegeEscalation"}, true);
  out.run_as_user = security_num(pod, c.object, "runAsUser");
  out.run_as_group = security_num(pod, c.object, "runAsGroup");
  out.supplemental_groups = supplemental_groups(pod);
  out.seccomp = seccomp(pod, c.object);
  out.add_capabilities = strings(kube::arr(*c.object, {"securityContext", "capabilities", "add"}));
  out.drop_capabilities = strings(kube::arr(*c.object, {"securityContext", "capabilities", "drop"}));
  out.namespaces = namespaces(pod);
}

}  // namespace

DnsConfig parse_resolv_conf(std::string_view text) {
  DnsConfig out;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, word;
    words >> key;
    if (key == "nameserver" && words >> word) out.servers.push_back(word);
    if (key == "search" || key == "domain") {
      out.searches.clear();  // the last line counts
      while (words >> word) out.searches.push_back(word);
    }
    if (key == "options")
      while (words >> word) add_unique(out.options, word);
  }
  return out;
}

DnsConfig pod_dns(const PodSpec& spec, const NodeSettings& node, const DnsConfig& node_dns) {
  const Object& pod = *spec.object;
  auto policy = kube::str(pod, {"spec", "dnsPolicy"});
  if (policy.empty()) policy = "ClusterFirst";
  const bool cluster = !node.cluster_dns.empty() &&
                       (policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !spec.host_network));
  DnsConfig out;
  if (policy == "None") {
    // only what dnsConfig says
  } else if (cluster) {
    out.servers = node.cluster_dns;
    out.searches = {fmt::format("{}.svc.{}", spec.ns, node.cluster_domain), "svc." + node.cluster_domain,
                    node.cluster_domain};
    for (const auto& s : node_dns.searches) add_unique(out.searches, s);
    out.options = {"ndots:5"};
  } else {
    out = node_dns;
  }
  const Object& extra = kube::obj(pod, {"spec", "dnsConfig"});
  for (auto& s : strings(kube::arr(extra, {"nameservers"}))) add_unique(out.servers, s);
  for (auto& s : strings(kube::arr(extra, {"searches"}))) add_unique(out.searches, s);
  for (const auto& v : kube::arr(extra, {"options"})) {
    const auto name = kube::str(kube::as_obj(v), {"name"});
    const auto value = kube::str(kube::as_obj(v), {"value"});
    std::erase_if(out.options,
                  [&](const std::string& o) { return o == name || o.starts_with(std::string(name) + ":"); });
    out.options.push_back(value.empty() ? std::string(name) : fmt::format("{}:{}", name, value));
  }
  if (out.servers.size() > kMaxNameServers) out.servers.resize(kMaxNameServers);
  return out;
}

std::string pod_log_dir(const NodeSettings& node, const PodSpec& spec) {
  return fmt::format("{}/{}_{}_{}", node.pod_log_dir, spec.ns, spec.name, spec.uid);
}

SandboxConfig sandbox_config(const PodSpec& spec, const NodeSettings& node, const DnsConfig& node_dns,
                             std::uint32_t attempt) {
  const Object& pod = *spec.object;
  SandboxConfig out;
  out.name = spec.name;
  out.ns = spec.ns;
  out.uid = spec.uid;
  out.attempt = attempt;
  out.log_directory = pod_log_dir(node, spec);
  out.cgroup_parent = pod_cgroup(node, spec.uid, qos_class(pod));
  out.namespaces = namespaces(pod);
  if (!spec.host_network) {
    const auto hostname = kube::str(pod, {"spec", "hostname"});
    out.hostname = hostname.empty() ? spec.name : std::string(hostname);
    constexpr std::size_t kMaxHostname = 63;
    if (out.hostname.size() > kMaxHostname) out.hostname.resize(kMaxHostname);
    while (out.hostname.ends_with('-') || out.hostname.ends_with('.')) out.hostname.pop_back();
  }
  auto dns = pod_dns(spec, node, node_dns);
  out.dns_servers = std::move(dns.servers);
  out.dns_searches = std::move(dns.searches);
  out.dns_options = std::move(dns.options);
  for (const auto& c : spec.main) {
    for (const auto& v : kube::arr(*c.object, {"ports"})) {
      const Object& p = kube::as_obj(v);
      PortMapping m;
      m.container_port = static_cast<int>(kube::num(p, {"containerPort"}));
      m.host_port = static_cast<int>(kube::num(p, {"hostPort"}));
      m.host_ip = kube::str(p, {"hostIP"});
      if (const auto protocol = kube::str(p, {"protocol"}); !protocol.empty()) m.protocol = protocol;
      if (m.host_port > 0 && !spec.host_network) out.port_mappings.push_back(std::move(m));
    }
    out.privileged |= kube::flag(*c.object, {"securityContext", "privileged"});
  }
  out.labels = string_map(kube::obj(pod, {"metadata", "labels"}));
  out.labels[kLabelPodName] = spec.name;
  out.labels[kLabelPodNamespace] = spec.ns;
  out.labels[kLabelPodUid] = spec.uid;
  out.annotations = string_map(kube::obj(pod, {"metadata", "annotations"}));
  for (const auto& v : kube::arr(pod, {"spec", "securityContext", "sysctls"}))
    out.sysctls[std::string(kube::str(kube::as_obj(v), {"name"}))] = kube::str(kube::as_obj(v), {"value"});
  out.run_as_user = security_num(pod, nullptr, "runAsUser");
  out.run_as_group = security_num(pod, nullptr, "runAsGroup");
  out.supplemental_groups = supplemental_groups(pod);
  out.seccomp = seccomp(pod, nullptr);
  return out;
}

Result<ContainerConfig> container_config(const PodSpec& spec, const ContainerSpec& c, const NodeSettings& node,
                                         ContainerInputs in) {
  ContainerConfig out;
  out.name = c.name;
  out.attempt = in.attempt;
  out.image = std::move(in.image);
  const auto vars = [&](std::string_view name) -> const std::string* {
    const auto it = std::ranges::find_if(in.env, [&](const auto& e) { return e.first == name; });
    return it == in.env.end() ? nullptr : &it->second;
  };
  for (const auto& s : strings(kube::arr(*c.object, {"command"}))) out.command.push_back(expand(s, vars));
  for (const auto& s : strings(kube::arr(*c.object, {"args"}))) out.args.push_back(expand(s, vars));
  out.working_dir = kube::str(*c.object, {"workingDir"});
  out.mounts = std::move(in.mounts);
  out.log_path = fmt::format("{}/{}.log", c.name, in.attempt);
  out.stdin_open = kube::flag(*c.object, {"stdin"});
  out.stdin_once = kube::flag(*c.object, {"stdinOnce"});
  out.tty = kube::flag(*c.object, {"tty"});
  out.labels = {{kLabelPodName, spec.name},
                {kLabelPodNamespace, spec.ns},
                {kLabelPodUid, spec.uid},
                {kLabelContainerName, c.name}};
  out.annotations = {{kRestartDelayAnnotation, std::to_string(in.restart_delay.count())},
                     {kImageAnnotation, c.image},
                     {"io.kubernetes.container.restartCount", std::to_string(in.attempt)},
                     {"io.kubernetes.container.terminationMessagePath", c.termination_path}};
  auto limits = resources(spec, *c.object, node);
  if (!limits) return propagate(limits);
  out.resources = *limits;
  set_security(spec, c, out);
  if (auto r = check_non_root(*spec.object, out, c, in.info); !r) return propagate(r);
  out.env = std::move(in.env);
  return out;
}

}  // namespace hawser::agent
