// SPDX-License-Identifier: Apache-2.0
// The Container Runtime Interface as the agent sees it: plain structs and two small interfaces. CriClient
// (cri_client.h) speaks gRPC to a runtime; FakeCri (fake_cri.h) is a working model for tests. Calls block until the
// runtime answers and may come from any thread. Times are wall-clock nanoseconds since 1970, 0 = never, as CRI has
// them.
//
// An Error's code: ENOENT (no such sandbox, container or image), ECONNREFUSED (the runtime is away), ETIMEDOUT, EINVAL,
// 0 otherwise; its text is the runtime's own message.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace hawser::agent {

using StringMap = std::map<std::string, std::string>;

// Labels that tie runtime objects to pods; the names are the kubelet's, so that crictl and other tools read them.
inline constexpr char kLabelPodName[] = "io.kubernetes.pod.name";
inline constexpr char kLabelPodNamespace[] = "io.kubernetes.pod.namespace";
inline constexpr char kLabelPodUid[] = "io.kubernetes.pod.uid";
inline constexpr char kLabelContainerName[] = "io.kubernetes.container.name";

enum class NamespaceMode { kPod, kContainer, kNode };

struct SeccompProfile {
  enum class Type { kUnconfined, kRuntimeDefault, kLocalhost };
  Type type = Type::kUnconfined;
  std::string localhost_path;
};

struct PortMapping {
  std::string protocol = "TCP";
  int container_port = 0;
  int host_port = 0;
  std::string host_ip;
};

struct NamespaceModes {
  NamespaceMode network = NamespaceMode::kPod;
  NamespaceMode pid = NamespaceMode::kContainer;
  NamespaceMode ipc = NamespaceMode::kPod;
};

struct SandboxConfig {
  std::string name, ns, uid;
  std::uint32_t attempt = 0;
  std::string hostname;
  std::string log_directory;
  std::vector<std::string> dns_servers, dns_searches, dns_options;
  std::vector<PortMapping> port_mappings;
  StringMap labels, annotations, sysctls;
  std::string cgroup_parent;
  NamespaceModes namespaces;
  bool privileged = false;
  std::optional<std::int64_t> run_as_user, run_as_group;
  std::vector<std::int64_t> supplemental_groups;
  SeccompProfile seccomp;
};

struct Mount {
  enum class Propagation { kPrivate, kHostToContainer, kBidirectional };
  std::string container_path, host_path;
  bool read_only = false;
  Propagation propagation = Propagation::kPrivate;
};

struct ContainerResources {
  std::int64_t cpu_period_us = 0;
  std::int64_t cpu_quota_us = 0;
  std::int64_t cpu_shares = 0;
  std::int64_t memory_limit_bytes = 0;
  std::int64_t oom_score_adj = 0;
};

struct ContainerConfig {
  std::string name;
  std::uint32_t attempt = 0;
  std::string image;
  std::vector<std::string> command, args;
  std::string working_dir;
  std::vector<std::pair<std::string, std::string>> env;
  std::vector<Mount> mounts;
  StringMap labels, annotations;
  std::string log_path;  // relative to the sandbox's log_directory
  bool stdin_open = false, stdin_once = false, tty = false;
  ContainerResources resources;
  std::vector<std::string> add_capabilities, drop_capabilities;
  bool privileged = false;
  NamespaceModes namespaces;
  std::optional<std::int64_t> run_as_user, run_as_group;
  std::vector<std::int64_t> supplemental_groups;
  bool read_only_rootfs = false;
  bool no_new_privs = false;
  SeccompProfile seccomp;
};

struct Sandbox {
  std::string id, name, ns, uid;
  std::uint32_t attempt = 0;
  bool ready = false;
  std::int64_t created_at_ns = 0;
  std::vector<std::string> ips;  // only from sandbox_status
  StringMap labels, annotations;
};

enum class ContainerState { kCreated, kRunning, kExited, kUnknown };

struct Container {
  std::string id, sandbox_id, name;
  std::uint32_t attempt = 0;
  std::string image, image_ref;
  ContainerState state = ContainerState::kUnknown;
  std::int64_t created_at_ns = 0;
  StringMap labels, annotations;
  // Only from container_status:
  std::int64_t started_at_ns = 0, finished_at_ns = 0;
  int exit_code = 0;
  std::string reason, message, log_path;
};

struct RuntimeSnapshot {
  std::vector<Sandbox> sandboxes;
  std::vector<Container> containers;
};

struct RuntimeState {
  std::string name, version;
  bool runtime_ready = false, network_ready = false;
  std::string message;  // why not ready
};

struct ExecOutcome {
  int exit_code = 0;
  std::string output;  // stdout, then stderr
};

struct Image {
  std::string id;
  std::vector<std::string> tags, digests;
  std::uint64_t size_bytes = 0;
  std::optional<std::int64_t> uid;
  std::string username;
};

class CriRuntime {
 public:
  virtual ~CriRuntime() = default;
  virtual Result<RuntimeState> state() = 0;
  // Every sandbox and container that carries pod labels; of one pod only, if `pod_uid` is not empty.
  virtual Result<RuntimeSnapshot> list(const std::string& pod_uid) = 0;
  virtual Result<std::string> run_sandbox(const SandboxConfig& config) = 0;
  virtual Result<> stop_sandbox(const std::string& id) = 0;    // idempotent; not found is success
  virtual Result<> remove_sandbox(const std::string& id) = 0;  // idempotent; removes its containers too
  virtual Result<Sandbox> sandbox_status(const std::string& id) = 0;
  virtual Result<std::string> create_container(const std::string& sandbox_id, const ContainerConfig& config,
                                               const SandboxConfig& sandbox) = 0;
  virtual Result<> start_container(const std::string& id) = 0;
  // SIGTERM, then SIGKILL after `grace`; returns when the container is gone. Not found is success.
  virtual Result<> stop_container(const std::string& id, std::chrono::seconds grace) = 0;
  virtual Result<> remove_container(const std::string& id) = 0;  // not found is success
  virtual Result<Container> container_status(const std::string& id) = 0;
  virtual Result<ExecOutcome> exec(const std::string& id, const std::vector<std::string>& command,
                                   std::chrono::seconds timeout) = 0;
};

// The image service, and the one call about log files.
class CriImages {
 public:
  virtual ~CriImages() = default;
  virtual Result<std::optional<Image>> image_status(const std::string& ref) = 0;  // nullopt: not on this node
  virtual Result<std::string> pull_image(const std::string& ref) = 0;             // returns the image's id
  virtual Result<std::vector<Image>> list_images() = 0;
  // After rotation: the runtime closes and opens the container's log file anew.
  virtual Result<> reopen_log(const std::string& container_id) = 0;
};

}  // namespace hawser::agent
