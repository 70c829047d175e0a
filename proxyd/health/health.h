// SPDX-License-Identifier: Apache-2.0
// What proxyd says about itself. ProxyHealth: the facts, kept by the sync loop, read by the HTTP server; any thread.
// Endpoints, with kube-proxy's paths, ports and bodies [P83, P84]:
//
//   healthz address (10256)   /healthz  200 if the kernel follows the API and this node takes load balancer traffic,
//                                       else 503
//                             /livez    the same without the node's part
//                             /readyz   200 once the kernel serves a whole state; the body names the generation
//   metrics address (10249)   /metrics, /healthz, /proxyMode, /configz (the configuration), /status (JSON: what the
//                             kernel serves, by generation and by the API's resource versions), and what
//                             HealthServerOptions::more adds
//
// kube-proxy 1.20 answers 200 before its first sync; here that is 503, so /healthz works as a readiness probe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/metrics.h"
#include "lib/http/server.h"

namespace hawser::proxy {

using Revisions = std::map<std::string, std::uint64_t>;

// Which mode decides about new connections, and how far a switch to another has come.
struct ModeStatus {
  std::string current, wanted;
  std::string step;          // of a switch that is not finished
  std::string problem;       // why it does not get on
  std::size_t draining = 0;  // connections that end in the mode of before
};

class ProxyHealth {
 public:
  // Unhealthy when a change waits longer than `limit` for the kernel.
  explicit ProxyHealth(Clock& clock, Nanos limit = std::chrono::seconds(60));

  // A change that the kernel does not have yet. Repeated calls keep the time of the first.
  void queued();
  // A sync begins, with everything that is queued now.
  void syncing();
  // It succeeded: the kernel has what was queued before syncing(). `generation`: of the state it serves now;
  // `revisions`: the newest resourceVersion in it, by kind.
  void synced(std::uint64_t generation, Revisions revisions = {});
  // False: the node is being deleted or an autoscaler is about to (taint ToBeDeletedByClusterAutoscaler).
  void set_node_eligible(bool eligible);

  [[nodiscard]] bool alive() const;                               // synced once, and nothing waits too long
  [[nodiscard]] bool healthy() const;                             // alive, and the node is eligible
  [[nodiscard]] std::optional<std::uint64_t> generation() const;  // of the last sync
  // The body of /healthz: {"lastUpdated": ..., "currentTime": ..., "nodeEligible": ...}.
  [[nodiscard]] std::string body() const;
  // The body of /status. `localhost`: about node ports on loopback.
  [[nodiscard]] std::string status(std::string_view node, const ModeStatus& mode,
                                   std::string_view localhost = "off") const;

 private:
  [[nodiscard]] bool alive_locked() const;

  Clock& clock_;
  const Nanos limit_;
  mutable std::mutex mu_;
  // guarded by mu_
  std::optional<MonoTime> waiting_since_;  // of changes that no sync has begun with
  std::optional<MonoTime> syncing_since_;  // of those that one has, and has not ended with
  Revisions revisions_;
  std::optional<std::uint64_t> generation_;
  WallTime last_synced_{};
  bool eligible_ = true;
};

// A metric that kube-proxy has once for each of its two proxies, by the label ip_family. A sync here is one for both.
template <class T>
class BothFamilies {
 public:
  explicit BothFamilies(metrics::Family<T>& f) : v4_(f.with({"IPv4"})), v6_(f.with({"IPv6"})) {}
  void observe(double v) { v4_.observe(v), v6_.observe(v); }
  void set(double v) { v4_.set(v), v6_.set(v); }
  void add() { v4_.add(), v6_.add(); }

 private:
  T &v4_, &v6_;
};

// kube-proxy's metrics by name, type and unit [P85]; seconds since 1970 for timestamps.
struct ProxyMetrics {
  explicit ProxyMetrics(metrics::Registry& r);
  BothFamilies<metrics::Histogram> sync_duration, full_sync_duration, partial_sync_duration;
  BothFamilies<metrics::Histogram>
      programming_duration;  // API change to kernel, by the endpoints' last-change-trigger-time [P45]
  BothFamilies<metrics::Gauge> last_queued, last_synced;
  metrics::Counter& service_changes;
  metrics::Counter& endpoint_changes;
  metrics::Gauge& service_changes_pending;
  metrics::Gauge& endpoint_changes_pending;
  BothFamilies<metrics::Counter> sync_failures;
  metrics::Family<metrics::Gauge>& no_local_endpoints;  // by traffic_policy, ip_family
  metrics::Gauge& generation;                           // ours: the state the kernel serves
  metrics::Family<metrics::Gauge>& revision;  // ours: the API's resourceVersion that the kernel serves, by kind
  metrics::Counter& repairs;  // ours: times the kernel's rules were found changed by others and put right
};

struct HealthServerOptions {
  std::string healthz_bind = "0.0.0.0:10256";    // "" = none
  std::string metrics_bind = "127.0.0.1:10249";  // "" = none
  bool hard_fail = false;                        // a busy port is an error; else it is tried again by retry()
  std::string node;
  std::function<ModeStatus()> mode = [] { return ModeStatus{.current = "nftables", .wanted = "nftables"}; };
  std::string configz;                                     // JSON
  std::function<std::string()> localhost_node_ports = {};  // for /status; any thread
  // Further paths of the metrics address; no answer: not one of them. Called on the server's worker thread.
  std::function<std::optional<http::Response>(const http::Request&)> more = {};
};

// Serves the endpoints until destroyed. A malformed address is an error that names it.
class HealthServers {
 public:
  static Result<std::unique_ptr<HealthServers>> start(const HealthServerOptions& o, const ProxyHealth& health,
                                                      metrics::Registry& registry);
  // Opens what was busy; true when all is open.
  bool retry();

 private:
  struct Endpoint {
    std::string flag, bind;
    std::function<http::Response(const http::Request&)> answer;
    std::unique_ptr<http::Server> server;
    std::string problem;  // told already
  };
  static Result<> open(Endpoint& e);
  std::vector<Endpoint> endpoints_;
};

// What each server answers. Pure; for the tests.
[[nodiscard]] http::Response answer_healthz(std::string_view path, const ProxyHealth& health);
[[nodiscard]] http::Response answer_metrics(std::string_view path, const ProxyHealth& health,
                                            const metrics::Registry& registry, const HealthServerOptions& o);

}  // namespace hawser::proxy
