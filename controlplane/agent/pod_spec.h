// SPDX-License-Identifier: Apache-2.0
// PodSpec: what the agent's decisions need of a Pod object, read once per change. Everything else (env, mounts,
// security) is read from the object when a container's configuration is made. Immutable after parse; the object stays
// alive with it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/kube/client.h"

namespace hawser::agent {

enum class RestartPolicy { kAlways, kOnFailure, kNever };
enum class PullPolicy { kAlways, kIfNotPresent, kNever };

// What a probe or a lifecycle hook does.
struct Check {
  enum class Kind { kExec, kHttpGet, kTcp, kSleep };
  Kind kind = Kind::kTcp;
  std::vector<std::string> command;  // kExec
  std::string host;                  // kHttpGet, kTcp; empty: the pod's address
  std::uint16_t port = 0;
  std::string path = "/";
  bool https = false;
  std::vector<std::pair<std::string, std::string>> headers;
  std::chrono::seconds sleep{0};
};

enum class ProbeKind { kStartup, kReadiness, kLiveness };

struct Probe {
  Check check;
  std::chrono::seconds initial_delay{0}, timeout{1}, period{10};
  int success_threshold = 1, failure_threshold = 3;
  std::optional<std::chrono::seconds> grace;  // terminationGracePeriodSeconds of liveness and startup probes
};

struct ContainerSpec {
  const kube::Object* object = nullptr;  // inside PodSpec::object
  std::string name, image;
  PullPolicy pull = PullPolicy::kIfNotPresent;
  bool init = false;
  bool sidecar = false;  // an init container with restartPolicy Always
  std::optional<Probe> startup, readiness, liveness;
  std::optional<Check> post_start, pre_stop;
  std::string termination_path = "/dev/termination-log";
  bool termination_fallback_to_logs = false;
};

struct PodSpec {
  kube::ObjectPtr object;
  std::string ns, name, uid;
  std::vector<ContainerSpec> init, main;
  RestartPolicy restart = RestartPolicy::kAlways;
  std::chrono::seconds grace{30};
  std::optional<std::chrono::seconds> deletion_grace;
  std::optional<std::chrono::seconds> active_deadline;
  bool deleting = false;
  bool host_network = false;

  [[nodiscard]] std::string key() const { return ns + "/" + name; }
  [[nodiscard]] const ContainerSpec* container(std::string_view container_name) const;
};

using PodSpecPtr = std::shared_ptr<const PodSpec>;

PodSpecPtr parse_pod(kube::ObjectPtr object);

}  // namespace hawser::agent
