// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/cri_convert.h"

namespace hawser::agent {
namespace {

namespace pb = runtime::v1;

void set_map(const StringMap& in, google::protobuf::Map<std::string, std::string>* out) {
  for (const auto& [k, v] : in) (*out)[k] = v;
}
StringMap get_map(const google::protobuf::Map<std::string, std::string>& in) {
  return {in.begin(), in.end()};
}

pb::NamespaceMode mode(NamespaceMode m) {
  switch (m) {
    case NamespaceMode::kPod:
      return pb::POD;
    case NamespaceMode::kContainer:
      return pb::CONTAINER;
    case NamespaceMode::kNode:
      return pb::NODE;
  }
  return pb::POD;
}
void set_namespaces(const NamespaceModes& in, pb::NamespaceOption* out) {
  out->set_network(mode(in.network));
  out->set_pid(mode(in.pid));
  out->set_ipc(mode(in.ipc));
}
void set_seccomp(const SeccompProfile& in, pb::SecurityProfile* out) {
  switch (in.type) {
    case SeccompProfile::Type::kUnconfined:
      out->set_profile_type(pb::SecurityProfile::Unconfined);
      break;
    case SeccompProfile::Type::kRuntimeDefault:
      out->set_profile_type(pb::SecurityProfile::RuntimeDefault);
      break;
    case SeccompProfile::Type::kLocalhost:
      out->set_profile_type(pb::SecurityProfile::Localhost);
      out->set_localhost_ref(in.localhost_path);
      break;
  }
}
pb::Protocol protocol(const std::string& p) {
  return p == "UDP" ? pb::UDP : p == "SCTP" ? pb::SCTP : pb::TCP;
}

ContainerState state(pb::ContainerState s) {
  switch (s) {
    case pb::CONTAINER_CREATED:
      return ContainerState::kCreated;
    case pb::CONTAINER_RUNNING:
      return ContainerState::kRunning;
    case pb::CONTAINER_EXITED:
      return ContainerState::kExited;
    default:
      return ContainerState::kUnknown;
  }
}
pb::MountPropagation propagation(Mount::Propagation p) {
  switch (p) {
    case Mount::Propagation::kPrivate:
      return pb::PROPAGATION_PRIVATE;
    case Mount::Propagation::kHostToContainer:
      return pb::PROPAGATION_HOST_TO_CONTAINER;
    case Mount::Propagation::kBidirectional:
      return pb::PROPAGATION_BIDIRECTIONAL;
  }
  return pb::PROPAGATION_PRIVATE;
}

void set_security(const ContainerConfig& in, pb::LinuxContainerSecurityContext* sc) {
  for (const auto& c : in.add_capabilities) sc->mutable_capabilities()->add_add_capabilities(c);
  for (const auto& c : in.drop_capabilities) sc->mutable_capabilities()->add_drop_capabilities(c);
  sc->set_privileged(in.privileged);
  set_namespaces(in.namespaces, sc->mutable_namespace_options());
  if (in.run_as_user) sc->mutable_run_as_user()->set_value(*in.run_as_user);
  if (in.run_as_group) sc->mutable_run_as_group()->set_value(*in.run_as_group);
  for (auto g : in.supplemental_groups) sc->add_supplemental_groups(g);
  sc->set_readonly_rootfs(in.read_only_rootfs);
  sc->set_no_new_privs(in.no_new_privs);
  set_seccomp(in.seccomp, sc->mutable_seccomp());
  // The runtime hides exactly the paths that it is told to. The list is the one of the OCI runtimes' default
  // configuration.
  if (in.privileged) return;
  for (const char* p : {"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"})
    sc->add_masked_paths(p);
  for (const char* p : {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
    sc->add_readonly_paths(p);
}

}  // namespace

void to_proto(const SandboxConfig& in, pb::PodSandboxConfig* out) {
  auto* m = out->mutable_metadata();
  m->set_name(in.name);
  m->set_namespace_(in.ns);
  m->set_uid(in.uid);
  m->set_attempt(in.attempt);
  out->set_hostname(in.hostname);
  out->set_log_directory(in.log_directory);
  auto* dns = out->mutable_dns_config();
  for (const auto& s : in.dns_servers) dns->add_servers(s);
  for (const auto& s : in.dns_searches) dns->add_searches(s);
  for (const auto& s : in.dns_options) dns->add_options(s);
  for (const auto& p : in.port_mappings) {
    auto* o = out->add_port_mappings();
    o->set_protocol(protocol(p.protocol));
    o->set_container_port(p.container_port);
    o->set_host_port(p.host_port);
    o->set_host_ip(p.host_ip);
  }
  set_map(in.labels, out->mutable_labels());
  set_map(in.annotations, out->mutable_annotations());
  auto* linux_config = out->mutable_linux();
  linux_config->set_cgroup_parent(in.cgroup_parent);
  set_map(in.sysctls, linux_config->mutable_sysctls());
  auto* sc = linux_config->mutable_security_context();
  set_namespaces(in.namespaces, sc->mutable_namespace_options());
  sc->set_privileged(in.privileged);
  if (in.run_as_user) sc->mutable_run_as_user()->set_value(*in.run_as_user);
  if (in.run_as_group) sc->mutable_run_as_group()->set_value(*in.run_as_group);
  for (auto g : in.supplemental_groups) sc->add_supplemental_groups(g);
  set_seccomp(in.seccomp, sc->mutable_seccomp());
}

void to_proto(const ContainerConfig& in, pb::ContainerConfig* out) {
  out->mutable_metadata()->set_name(in.name);
  out->mutable_metadata()->set_attempt(in.attempt);
  out->mutable_image()->set_image(in.image);
  for (const auto& s : in.command) out->add_command(s);
  for (const auto& s : in.args) out->add_args(s);
  out->set_working_dir(in.working_dir);
  for (const auto& [k, v] : in.env) {
    auto* e = out->add_envs();
    e->set_key(k);
    e->set_value(v);
  }
  for (const auto& m : in.mounts) {
    auto* o = out->add_mounts();
    o->set_container_path(m.container_path);
    o->set_host_path(m.host_path);
    o->set_readonly(m.read_only);
    o->set_propagation(propagation(m.propagation));
  }
  set_map(in.labels, out->mutable_labels());
  set_map(in.annotations, out->mutable_annotations());
  out->set_log_path(in.log_path);
  out->set_stdin(in.stdin_open);
  out->set_stdin_once(in.stdin_once);
  out->set_tty(in.tty);
  auto* r = out->mutable_linux()->mutable_resources();
  r->set_cpu_period(in.resources.cpu_period_us);
  r->set_cpu_quota(in.resources.cpu_quota_us);
  r->set_cpu_shares(in.resources.cpu_shares);
  r->set_memory_limit_in_bytes(in.resources.memory_limit_bytes);
  r->set_oom_score_adj(in.resources.oom_score_adj);
  set_security(in, out->mutable_linux()->mutable_security_context());
}

Sandbox from_proto(const pb::PodSandbox& in) {
  Sandbox s;
  s.id = in.id();
  s.name = in.metadata().name();
  s.ns = in.metadata().namespace_();
  s.uid = in.metadata().uid();
  s.attempt = in.metadata().attempt();
  s.ready = in.state() == pb::SANDBOX_READY;
  s.created_at_ns = in.created_at();
  s.labels = get_map(in.labels());
  s.annotations = get_map(in.annotations());
  return s;
}

Sandbox from_proto(const pb::PodSandboxStatus& in) {
  Sandbox s;
  s.id = in.id();
  s.name = in.metadata().name();
  s.ns = in.metadata().namespace_();
  s.uid = in.metadata().uid();
  s.attempt = in.metadata().attempt();
  s.ready = in.state() == pb::SANDBOX_READY;
  s.created_at_ns = in.created_at();
  if (!in.network().ip().empty()) s.ips.push_back(in.network().ip());
  for (const auto& p : in.network().additional_ips()) s.ips.push_back(p.ip());
  s.labels = get_map(in.labels());
  s.annotations = get_map(in.annotations());
  return s;
}

Container from_proto(const pb::Container& in) {
  Container c;
  c.id = in.id();
  c.sandbox_id = in.pod_sandbox_id();
  c.name = in.metadata().name();
  c.attempt = in.metadata().attempt();
  c.image = in.image().image();
  c.image_ref = in.image_ref();
  c.state = state(in.state());
  c.created_at_ns = in.created_at();
  c.labels = get_map(in.labels());
  c.annotations = get_map(in.annotations());
  return c;
}

Container from_proto(const pb::ContainerStatus& in) {
  Container c;
  c.id = in.id();
  c.name = in.metadata().name();
  c.attempt = in.metadata().attempt();
  c.image = in.image().image();
  c.image_ref = in.image_ref();
  c.state = state(in.state());
  c.created_at_ns = in.created_at();
  c.started_at_ns = in.started_at();
  c.finished_at_ns = in.finished_at();
  c.exit_code = in.exit_code();
  c.reason = in.reason();
  c.message = in.message();
  c.log_path = in.log_path();
  c.labels = get_map(in.labels());
  c.annotations = get_map(in.annotations());
  return c;
}

Image from_proto(const pb::Image& in) {
  Image i;
  i.id = in.id();
  i.tags = {in.repo_tags().begin(), in.repo_tags().end()};
  i.digests = {in.repo_digests().begin(), in.repo_digests().end()};
  i.size_bytes = in.size();
  if (in.has_uid()) i.uid = in.uid().value();
  i.username = in.username();
  return i;
}

}  // namespace hawser::agent
