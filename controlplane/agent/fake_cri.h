// SPDX-License-Identifier: Apache-2.0
// FakeCri: a working model of a container runtime for tests: sandboxes and containers with CRI's rules, images by name,
// and faults to inject. Thread-safe. Time comes from the test's clock.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "controlplane/agent/cri.h"
#include "lib/base/clock.h"

namespace hawser::agent {

class FakeCri final : public CriRuntime, public CriImages {
 public:
  explicit FakeCri(Clock& clock) : clock_(clock) {}

  // What tests do to it.
  void add_image(const std::string& ref);
  void exit_container(const std::string& id, int code);
  void kill_sandbox(const std::string& id);
  // The next `times` calls of `method` ("run_sandbox", ...) fail with this text.
  void fail_next(const std::string& method, const std::string& text, int times = 1);
  void set_exec(std::function<ExecOutcome(const std::vector<std::string>&)> fn);
  [[nodiscard]] std::vector<std::string> calls() const;  // "run_sandbox web", "start_container app", ...
  [[nodiscard]] RuntimeSnapshot everything() const;
  [[nodiscard]] std::optional<ContainerConfig> config_of(const std::string& container_name) const;

  Result<RuntimeState> state() override;
  Result<RuntimeSnapshot> list(const std::string& pod_uid) override;
  Result<std::string> run_sandbox(const SandboxConfig& config) override;
  Result<> stop_sandbox(const std::string& id) override;
  Result<> remove_sandbox(const std::string& id) override;
  Result<Sandbox> sandbox_status(const std::string& id) override;
  Result<std::string> create_container(const std::string& sandbox_id, const ContainerConfig& config,
                                       const SandboxConfig& sandbox) override;
  Result<> start_container(const std::string& id) override;
  Result<> stop_container(const std::string& id, std::chrono::seconds grace) override;
  Result<> remove_container(const std::string& id) override;
  Result<Container> container_status(const std::string& id) override;
  Result<ExecOutcome> exec(const std::string& id, const std::vector<std::string>& command,
                           std::chrono::seconds timeout) override;
  Result<std::optional<Image>> image_status(const std::string& ref) override;
  Result<std::string> pull_image(const std::string& ref) override;
  Result<std::vector<Image>> list_images() override;
  Result<> reopen_log(const std::string& container_id) override;

 private:
  [[nodiscard]] std::int64_t now_ns() const { return clock_.wall().time_since_epoch().count(); }
  Result<> enter(const std::string& method, const std::string& what);  // mu_ held
  void end(Container& c, int code);                                    // mu_ held

  Clock& clock_;
  mutable std::mutex mu_;
  int next_id_ = 1;  // all guarded by mu_
  std::map<std::string, Sandbox> sandboxes_;
  std::map<std::string, Container> containers_;
  std::map<std::string, ContainerConfig> configs_;  // by container name, the latest
  std::set<std::string> images_;
  std::map<std::string, std::pair<std::string, int>> faults_;
  std::vector<std::string> calls_;
  std::function<ExecOutcome(const std::vector<std::string>&)> exec_;
};

}  // namespace hawser::agent
