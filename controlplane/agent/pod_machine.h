// SPDX-License-Identifier: Apache-2.0
// The pod state machine: step(spec, state) says what to do next for one pod. Pure: no clock, no calls, no memory of its
// own. The pod worker gathers PodState (read back from the runtime, plus what is known only here: probe verdicts,
// failures, work in progress), performs the actions, and steps again until there is nothing to do before Plan::wake.
//
// Theory of operation, one pod: prepare folders and volumes -> run a sandbox -> init containers one after the other ->
// containers. A container that ends is started again by the restart policy after its back-off. What must outlive the
// agent is kept in the runtime itself: the restart count is the container's attempt number, and each container carries,
// as an annotation, the delay to wait should it end. So a new agent adopts what runs and decides as the old one would
// have.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/pod_spec.h"
#include "lib/base/clock.h"

namespace hawser::agent {

// Annotation of a container: seconds to wait before the next attempt, should this one end.
inline constexpr char kRestartDelayAnnotation[] = "hawser.io/restart-delay-seconds";
// Annotation of a container: the image its pod asked for when it was made; a pod whose image changes gets a new
// container.
inline constexpr char kImageAnnotation[] = "hawser.io/image";
inline constexpr std::chrono::seconds kFirstRestartDelay{10};
inline constexpr std::chrono::seconds kMaxRestartDelay{300};
// A container that ran this long starts with a clean record.
inline constexpr std::chrono::minutes kGoodRun{10};

// Something failed: why, and when to try again. A clock that is set back ends it early rather than late: now before
// `since`.
struct Hold {
  std::string reason, message;
  int failures = 0;
  WallTime until{};
  WallTime since{};
  [[nodiscard]] bool over(WallTime now) const { return now >= until || now < since; }
};

struct ProbeVerdict {
  bool started = true;
  bool ready = true;
  std::string kill;  // not empty: liveness or startup failed for good, with this message
  std::optional<std::chrono::seconds> grace;
};

struct PodState {
  std::vector<Sandbox> sandboxes;              // newest first
  std::vector<Container> containers;           // any order; ended ones too
  std::map<std::string, ProbeVerdict> probes;  // by container id; none: started and ready
  std::map<std::string, Hold> holds;           // by container name; "": the pod (volumes, sandbox, clean-up); by
                                               // container id: stopping it
  std::map<std::string, WallTime> stopping;    // container id -> when it will be killed at the latest
  std::vector<std::string> pulling;            // names of containers whose image is being pulled
  bool prepared = false;                       // folders and volumes are there
  bool cleaned = false;                        // ... and are gone again
  bool removed = false;                        // the API object is gone, or never was
  bool deadline_passed = false;
  WallTime now{};

  [[nodiscard]] const Container* latest(const std::string& container_name) const;
  [[nodiscard]] const Container* previous(const std::string& container_name) const;  // the instance before latest()
};

struct Action {
  enum class Kind {
    kPrepare,
    kRunSandbox,       // attempt
    kStartContainer,   // container, attempt, restart_delay
    kStopContainer,    // id, container (may be null), grace, message
    kRemoveContainer,  // id
    kStopSandbox,      // id
    kRemoveSandbox,    // id
    kCleanUp,
    kFinish,  // nothing is left: the API object may go
  };
  Kind kind;
  std::string id;
  const ContainerSpec* container = nullptr;
  std::uint32_t attempt = 0;
  std::chrono::seconds restart_delay{0};
  std::chrono::seconds grace{0};
  std::string message;
};

struct Waiting {
  std::string reason, message;
};

struct Plan {
  std::vector<Action> actions;
  std::optional<WallTime> wake;            // look again then even if nothing happens
  std::map<std::string, Waiting> waiting;  // by container name: why it does not run
};

[[nodiscard]] Plan step(const PodSpec& spec, const PodState& state);

// True once no container of the pod will run again.
[[nodiscard]] bool is_finished(const PodSpec& spec, const PodState& state);
// The restart policy applied to an ended container.
[[nodiscard]] bool restarts(const PodSpec& spec, const ContainerSpec& c, int exit_code);
// A failure's back-off: 1 s doubling to 60 s for sandboxes and volumes, 10 s to 300 s for images and containers.
[[nodiscard]] std::chrono::milliseconds hold_delay(bool container, int failures);

}  // namespace hawser::agent
