// SPDX-License-Identifier: Apache-2.0
// CriClient: CriRuntime and CriImages over gRPC to a runtime's unix socket, and containerd's stream of task exits. One
// channel; it connects by itself again after the runtime was restarted (back-off 100 ms to 2 s). gRPC stays behind this
// header.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "controlplane/agent/cri.h"

namespace hawser::agent {

class CriClient final : public CriRuntime, public CriImages {
 public:
  // "unix:///run/containerd/containerd.sock" or a bare path. Does not connect yet.
  explicit CriClient(const std::string& endpoint);
  ~CriClient() override;

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

  // Calls `on_exit(id)` on this thread for each container (or sandbox) whose main process ended, until the stream
  // breaks or `stop`. A runtime other than containerd answers with an error at once: the caller's relist is then all
  // there is.
  Result<> watch_exits(const std::function<void(const std::string& id)>& on_exit, std::stop_token stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::agent
