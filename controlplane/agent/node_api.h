// SPDX-License-Identifier: Apache-2.0
// The node's HTTP API, which the API server (and an operator with an admin certificate) calls: container logs, the pods
// that run here, metrics, health. Only the identities named in authorize() get past the door: 401 without a client
// certificate, 403 with another's. handle() runs on the HTTP server's worker threads; following a log goes to the slow
// executor.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "controlplane/agent/executor.h"
#include "controlplane/agent/node_settings.h"
#include "controlplane/agent/pod_worker.h"
#include "lib/base/metrics.h"
#include "lib/http/server.h"

namespace hawser::agent {

struct NodeApiContext {
  const NodeSettings& node;
  metrics::Registry& metrics;
  Executor& slow;
  Clock& clock;
  std::function<std::shared_ptr<const PodView>(const std::string& ns, const std::string& name)> view;
  std::function<std::vector<std::shared_ptr<const PodView>>()> views;
};

// 0: allowed, else the HTTP status of the refusal.
[[nodiscard]] int authorize(const http::PeerIdentity& peer);

class NodeApi {
 public:
  explicit NodeApi(NodeApiContext context) : ctx_(std::move(context)) {}
  void handle(const http::Request& r, http::Responder& out);

 private:
  void container_logs(const http::Request& r, http::Responder& out);
  void pods(http::Responder& out);

  NodeApiContext ctx_;
};

}  // namespace hawser::agent
