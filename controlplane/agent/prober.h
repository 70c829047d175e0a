// SPDX-License-Identifier: Apache-2.0
// Prober: runs the startup, readiness and liveness probes of running containers and keeps their verdicts. One timer
// thread; each check runs on the executor. Any thread may call.
//
// Timing is that of the Kubernetes API (initialDelay, period, thresholds), with one addition: before its first success
// a startup or readiness probe is also tried in between, 50 ms after the start and then at doubling distances. Such a
// try can only succeed; its failure counts for nothing. So a pod is Ready as soon as it answers, not up to a period
// later.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "controlplane/agent/check_runner.h"
#include "controlplane/agent/executor.h"
#include "controlplane/agent/pod_machine.h"

namespace hawser::agent {

// What the container is, for events and requeueing.
struct ProbeSubject {
  PodSpecPtr pod;
  std::string container;  // name
  CheckTarget target;
};

class Prober {
 public:
  using Changed = std::function<void(const std::string& pod_uid)>;
  // Every counted failure: "Readiness probe failed: ...".
  using Failed = std::function<void(const ProbeSubject& subject, const std::string& message)>;

  Prober(CheckRunner& checks, Executor& executor, Changed changed, Failed failed, Clock& clock = system_clock());
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Begins probing a running container; nothing happens if it is known already or has no probes. `was_ready`: it was
  // running and ready under an agent before this one, and stays so until a probe says otherwise.
  void watch(const ProbeSubject& subject, const ContainerSpec& spec, bool was_ready);
  void forget(const std::string& container_id);
  // nullopt: no probes.
  [[nodiscard]] std::optional<ProbeVerdict> verdict(const std::string& container_id) const;
  void stop();

 private:
  struct Run {
    ProbeKind kind;
    Probe probe;
    int successes = 0, failures = 0;
    bool in_flight = false;
    bool once_succeeded = false;
    MonoTime due{}, next_regular{};
    Nanos quick{};  // distance to the next quick try
  };
  struct Entry {
    ProbeSubject subject;
    std::map<ProbeKind, Run> runs;
    ProbeVerdict verdict;
  };

  void loop();
  void execute(const std::string& container_id, ProbeKind kind);
  // mu_ held. Returns true if the verdict changed.
  bool record(Entry& e, Run& run, bool ok, bool regular);
  void start_due();                         // mu_ held
  [[nodiscard]] MonoTime next_due() const;  // mu_ held

  CheckRunner& checks_;
  Executor& executor_;
  const Changed changed_;
  const Failed failed_;
  Clock& clock_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Entry> entries_;  // guarded by mu_; by container id
  bool kicked_ = false;                   // guarded by mu_
  bool stopping_ = false;                 // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::agent
