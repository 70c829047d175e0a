// SPDX-License-Identifier: Apache-2.0
// What proxyd says about itself. ProxyHealth: the facts, kept by the sync loop, read by the HTTP server; any thread.
// Endpoints, with kube-proxy's paths, ports and bodies [P83, P84]:
//
//   healthz address (10256)   /healthz  200 if the kernel follows the API and this node takes load balancer traffic,
//   else 503
//                             /livez    the same without the node's part
//                             /readyz   200 once the kernel serves a whole state; the body names the generation
//   metrics address (10249)   /metrics, /healthz, /proxyMode
//
// kube-proxy 1.20 answers 200 before its first sync; here that is 503, so /healthz works as a readiness probe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/metrics.h"
#include "lib/http/server.h"

namespace hawser::proxy {

class ProxyHealth {
 public:
  // Unhealthy when a change waits longer than `limit` for the kernel.
  explicit ProxyHealth(Clock& clock, Nanos limit = std::chrono::seconds(60));

  // A change that the kernel does not have yet. Repeated calls keep the time of the first.
  void queued();
  // The kernel has everything that was queued before the sync began. `generation`: of the state it serves now.
  void synced(std::uint64_t generation);
  // False: the node is being deleted or an autoscaler is about to (taint ToBeDeletedByClusterAutoscaler).
  void set_node_eligible(bool eligible);

  [[nodiscard]] bool alive() const;                               // synced once, and nothing waits too long
  [[nodiscard]] bool healthy() const;                             // alive, and the node is eligible
  [[nodiscard]] std::optional<std::uint64_t> generation() const;  // of the last sync
  // The body of /healthz: {"lastUpdated": ..., "currentTime": ..., "nodeEligible": ...}.
  [[nodiscard]] std::string body() const;

 private:
  [[nodiscard]] bool alive_locked() const;

  Clock& clock_;
  const Nanos limit_;
  mutable std::mutex mu_;
  // guarded by mu_
  std::optional<MonoTime> waiting_since_;
  std::optional<std::uint64_t> generation_;
  WallTime last_synced_{};
  bool eligible_ = true;
};

// kube-proxy's metrics by name, type and unit [P85]; seconds since 1970 for timestamps.
struct ProxyMetrics {
  explicit ProxyMetrics(metrics::Registry& r);
  metrics::Histogram& sync_duration;
  metrics::Histogram& programming_duration;  // API change to kernel, by the endpoints' last-change-trigger-time [P45]
  metrics::Gauge& last_queued;
  metrics::Gauge& last_synced;
  metrics::Counter& service_changes;
  metrics::Counter& endpoint_changes;
  metrics::Gauge& service_changes_pending;
  metrics::Gauge& endpoint_changes_pending;
  metrics::Counter& sync_failures;
  metrics::Gauge& generation;  // ours: the state the kernel serves
  metrics::Counter& repairs;   // ours: times the kernel's rules were found changed by others and put right
};

struct HealthServerOptions {
  std::string healthz_bind = "0.0.0.0:10256";    // "" = none
  std::string metrics_bind = "127.0.0.1:10249";  // "" = none
  std::string mode = "nftables";
};

// Serves the endpoints until destroyed. A busy or malformed address is an error that names it.
class HealthServers {
 public:
  static Result<std::unique_ptr<HealthServers>> start(const HealthServerOptions& o, const ProxyHealth& health,
                                                      const metrics::Registry& registry);

 private:
  std::unique_ptr<http::Server> healthz_, metrics_;
};

// What each server answers. Pure; for the tests.
[[nodiscard]] http::Response answer_healthz(std::string_view path, const ProxyHealth& health);
[[nodiscard]] http::Response answer_metrics(std::string_view path, const ProxyHealth& health,
                                            const metrics::Registry& registry, std::string_view mode);

}  // namespace hawser::proxy
