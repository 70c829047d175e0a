// SPDX-License-Identifier: Apache-2.0
// pods/log: asks the agent of the pod's node for a container's log and passes it on as it comes. Each log that is being
// read has a thread of its own, which answers the request too, so that neither followers nor agents that do not answer
// take the server's workers away.
#pragma once

#include <list>
#include <memory>
#include <stop_token>
#include <thread>

#include "controlplane/apiserver/registry.h"
#include "lib/http/server.h"

namespace hawser::apiserver {

// The certificate we show to agents, and how their answers are verified.
struct AgentTls {
  std::string ca_pem;
  http::PemPair own;
  bool insecure = true;  // agents serve with certificates of their own making
};

class LogProxy {
 public:
  LogProxy(Registry& registry, AgentTls tls);
  ~LogProxy();
  LogProxy(const LogProxy&) = delete;
  LogProxy& operator=(const LogProxy&) = delete;

  // Answers with the log, or with the reason why there is none.
  void serve(ObjectName pod, const http::Request& r, http::Responder& out);
  void stop();

 private:
  struct Job;
  struct Target {
    std::string pod;
    std::string host;
    std::uint16_t port = 0;
    std::string path;  // and query
  };
  Expected<std::optional<Target>> target(ObjectName pod, const http::Request& r);
  void fetch(const Target& t, std::stop_source stop, http::Responder& out) const;
  void reap();

  Registry& registry_;
  const AgentTls tls_;
  std::mutex mu_;
  bool stopping_ = false;                 // guarded by mu_
  std::list<std::shared_ptr<Job>> jobs_;  // guarded by mu_
};

// The container whose log is meant, and what to say if that is not clear. Pure.
Expected<std::string> log_container(const Object& pod, const std::string& asked);

}  // namespace hawser::apiserver
