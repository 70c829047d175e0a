// SPDX-License-Identifier: Apache-2.0
// ApiServer: the HTTP face of the registry. Authenticates, routes, counts, and answers everything that is not an object
// itself (discovery, OpenAPI, version, health, metrics). handle() is the http::Server's handler: any thread, answers
// exactly once.
#pragma once

#include "controlplane/apiserver/discovery.h"
#include "controlplane/apiserver/health.h"
#include "controlplane/apiserver/resource_handler.h"
#include "lib/base/metrics.h"

namespace hawser::apiserver {

struct ApiServerOptions {
  std::string advertise;  // "192.0.2.10:6443"
  AgentTls agent_tls;
  std::vector<Health::Check> checks;
};

class ApiServer {
 public:
  ApiServer(Registry& registry, metrics::Registry& metrics, ApiServerOptions options);
  ~ApiServer();
  void handle(const http::Request& r, http::Responder& out);
  // Ends watches and logs; later requests for them are refused.
  void stop();

 private:
  http::Response answer(const http::Request& r, const Route& route);
  http::Response discovery(const http::Request& r, const Route& route);
  http::Response openapi(const http::Request& r, const Route& route);

  Registry& registry_;
  metrics::Registry& metrics_;
  metrics::Family<metrics::Counter>& requests_;
  metrics::Family<metrics::Histogram>& latency_;
  Discovery discovery_;
  Health health_;
  WatchHub watches_;
  LogProxy logs_;
  ResourceHandler resources_;
};

// What the http::Server answers by itself (ServerOptions::refusal), as a Status. Pure.
[[nodiscard]] http::Response refusal(int status, std::string_view text);

// /version. Pure.
[[nodiscard]] std::string version_document();

}  // namespace hawser::apiserver
