// SPDX-License-Identifier: Apache-2.0
// The health checks that load balancers make of Services with externalTrafficPolicy Local: each has a port of its own
// on the nodes, spec.healthCheckNodePort, where a node says whether it has endpoints of that Service [P21].
//
// LocalEndpointCounts: which Services ask for it and how many ready endpoints this node has of each, kept from API
// events; any thread. HealthCheckNodePorts: one HTTP server for all those ports; apply() is called by one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "lib/base/ip.h"
#include "lib/http/server.h"
#include "lib/kube/client.h"
#include "lib/kube/object.h"
#include "proxyd/health/health.h"

namespace hawser::proxy {

struct HealthCheck {
  std::uint16_t port = 0;
  std::size_t local_endpoints = 0;  // ready ones; terminating ones do not count
  bool operator==(const HealthCheck&) const = default;
};
using HealthChecks = std::map<std::string, HealthCheck>;  // by "namespace/name"

class LocalEndpointCounts {
 public:
  explicit LocalEndpointCounts(std::string node) : node_(std::move(node)) {}
  // Old null: added; current null: deleted. True if checks() has changed.
  bool on_service(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  bool on_slice(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  [[nodiscard]] HealthChecks checks() const;

 private:
  struct LocalSlice {
    std::string service;
    std::set<std::string> addresses;
  };
  const std::string node_;
  mutable std::mutex mu_;
  std::map<std::string, std::uint16_t> ports_;              // guarded by mu_; by Service
  std::map<std::string, LocalSlice> slices_;                // guarded by mu_; those with local endpoints
  std::map<std::string, std::set<std::string>> slices_of_;  // guarded by mu_; by Service
};

class HealthCheckNodePorts {
 public:
  // `report` gets one sentence when a port cannot be opened, once until that changes.
  HealthCheckNodePorts(const ProxyHealth& health,
                       std::function<void(const std::string& service, const std::string&)> report);
  ~HealthCheckNodePorts();

  // Opens and closes ports so that `wanted` is served on `addresses`; none: on all. What fails is tried again by the
  // next call.
  void apply(const HealthChecks& wanted, const std::vector<IpAddr>& addresses);

 private:
  struct State;  // what the server's threads read
  struct Opened {
    std::string service;
    std::vector<IpAddr> addresses;
    std::string problem;  // "" when all addresses are served
  };
  std::string open(std::uint16_t port, const std::vector<IpAddr>& addresses);

  const std::function<void(const std::string&, const std::string&)> report_;
  std::shared_ptr<State> state_;
  std::map<std::uint16_t, Opened> opened_;
  std::unique_ptr<http::Server> server_;  // made with the first port
};

// What a health check is answered. Pure; for the tests.
[[nodiscard]] http::Response answer_health_check(std::string_view service, std::size_t local_endpoints, bool alive);

}  // namespace hawser::proxy
