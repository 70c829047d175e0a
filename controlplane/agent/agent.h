// SPDX-License-Identifier: Apache-2.0
// Agent: the kubelet's role, put together: informers of this node's pods and of Services, the pod pool, status and node
// reporting, the runtime watch, and the slow periodic work (relist, volume refresh, log rotation, removing what is left
// of pods that are gone). start() returns at once; the API and the runtime may be away then and at any time later.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/log_rotation.h"
#include "controlplane/agent/node_reporter.h"
#include "controlplane/agent/object_cache.h"
#include "controlplane/agent/pod_pool.h"
#include "controlplane/agent/status_writer.h"
#include "lib/kube/client.h"
#include "lib/kube/informer.h"

namespace hawser::agent {

// Calls back for each container that ends until the stream breaks; an error if the runtime has no such stream.
using ExitStream =
    std::function<Result<>(const std::function<void(const std::string&)>& on_exit, std::stop_token stop)>;

struct AgentParts {
  kube::Client& client;
  CriRuntime& runtime;
  CriImages& images;
  ExitStream exits;  // may be null
  std::function<void(const PodSpec&, const PodEvent&)> event;
  Clock& clock;
};

class Agent {
 public:
  Agent(const AgentParts& parts, NodeSettings node, LogLimits logs = {});
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  void start();
  // Leaves everything running on the node as it is.
  void stop();

  [[nodiscard]] PodPool& pods() { return *pool_; }
  [[nodiscard]] const PodPool& pods() const { return *pool_; }
  [[nodiscard]] Executor& slow() { return slow_; }
  [[nodiscard]] const NodeSettings& node() const { return node_; }
  [[nodiscard]] bool ready() const { return reporter_.ready(); }

 private:
  struct Token {
    std::string text;
    WallTime renew{};
  };
  void on_pod(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  void loop();
  void exit_loop(const std::stop_token& stop);
  void rotate_logs();
  void remove_leftovers();
  Result<std::optional<std::string>> token(const PodSpec& spec, const std::string& audience, std::int64_t seconds);
  StringMap service_env(const PodSpec& spec);
  bool sleep(Nanos time);  // false: stopping

  AgentParts parts_;
  const NodeSettings node_;
  const LogLimits log_limits_;
  Executor slow_;
  StatusWriter status_;
  ImageCache images_;
  ObjectCache objects_;
  NetworkCheckRunner checks_;
  Prober prober_;
  PodContext context_;
  std::unique_ptr<PodPool> pool_;
  kube::Informer pod_informer_, service_informer_;
  NodeReporter reporter_;

  std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Token> tokens_;  // guarded by mu_
  bool exits_live_ = false;              // guarded by mu_: the exit stream stands
  bool relist_now_ = false;              // guarded by mu_
  bool stopping_ = false;                // guarded by mu_
  std::jthread exit_thread_;
  std::thread thread_;
};

}  // namespace hawser::agent
