// SPDX-License-Identifier: Apache-2.0
// Daemon: keeps this node's Service rules as the API says.
//
// Threads. The informers' threads fold events into the tracker and ask for a sync. The runner's thread alone syncs:
// state -> back end -> conntrack, at once after a quiet time and then at most every few milliseconds. The nftables
// monitor's thread calls table_changed(). The health servers' threads read what is thread-safe anyway.
//
// Nothing is written before all three kinds have been listed, so a start while the API is away leaves the kernel as it
// is, for as long as it takes. A failed sync is tried again after a second.
//
// API rights it uses: list and watch of services, endpointslices and nodes; those of system:node-proxier.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lib/base/bounded_runner.h"
#include "lib/kube/client.h"
#include "lib/kube/informer.h"
#include "lib/kube/slice_client.h"
#include "lib/netlink/rtnl.h"
#include "proxyd/backend.h"
#include "proxyd/conntrack/reconcile.h"
#include "proxyd/health/health.h"
#include "proxyd/health/node_ports.h"
#include "proxyd/localhost/localhost.h"
#include "proxyd/model/options.h"
#include "proxyd/model/tracker.h"

namespace hawser::proxy {

struct DaemonOptions {
  std::string node;
  TrafficOptions traffic = {};  // where node ports are
  Nanos min_interval = std::chrono::milliseconds(5);
  Nanos audit_interval = std::chrono::seconds(30);  // conntrack, whole
  // Health check node ports are opened on the node's addresses in these; none: on all addresses.
  std::vector<Cidr> node_port_addresses = {};
  // Gets each unusable thing in an object, once a version of it; any thread. For events.
  std::function<void(const kube::Resource&, const kube::Object&, const std::string&)> on_problem = {};
};

// What the daemon works on, owned by main (or a test).
struct Kernel {
  Backend& backend;
  Conntrack& conntrack;
  netlink::Rtnl& rtnl;  // for this node's addresses
  LocalhostNodePorts* localhost = nullptr;
};

class Daemon {
 public:
  Daemon(DaemonOptions options, kube::Client& client, Kernel kernel, metrics::Registry& registry,
         Clock& clock = system_clock());
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  void start();
  // Ends the threads; the kernel keeps what it has.
  void stop();
  // Somebody else changed our rules; any thread.
  void table_changed();
  [[nodiscard]] const ProxyHealth& health() const { return health_; }
  [[nodiscard]] const Tracker& tracker() const { return tracker_; }

 private:
  void watch(kube::Informer& informer, const kube::Resource& kind,
             bool (Tracker::*fold)(const kube::ObjectPtr&, const kube::ObjectPtr&));
  void report(const std::string& problem);
  void request_sync();
  [[nodiscard]] bool listed() const;  // all three kinds
  Result<> sync_health_checks();
  Result<> sync();
  Result<> sync_state(const DesiredStatePtr& state, bool& flows, bool& full);
  Result<> reconcile_flows(const DesiredState& state);
  void note_applied(const DesiredState& state, const Revisions& revisions);

  // The last state that the kernel was given; any thread.
  class Applied {
   public:
    void set(DesiredStatePtr s) {
      std::lock_guard l(mu_);
      state_ = std::move(s);
    }
    [[nodiscard]] DesiredStatePtr get() const {
      std::lock_guard l(mu_);
      return state_;
    }

   private:
    mutable std::mutex mu_;
    DesiredStatePtr state_;  // guarded by mu_
  };

  const DaemonOptions options_;
  Kernel kernel_;
  Clock& clock_;
  ProxyMetrics metrics_;
  const std::shared_ptr<Applied> applied_ = std::make_shared<Applied>();
  ProxyHealth health_;
  Tracker tracker_;
  ConntrackReconciler reconciler_;
  LocalEndpointCounts local_counts_;
  std::map<std::string, std::atomic<std::uint64_t>> seen_;  // newest resourceVersion folded in, by kind; keys are fixed
  std::atomic<bool> foreign_change_{false};

  // Runner thread only.
  PendingCounts counts_;                 // not in the kernel yet
  std::vector<WallTime> trigger_times_;  // of changes that are not in the kernel yet
  MonoTime next_audit_{};
  bool flows_pending_ = false;
  bool first_ = true;
  std::string last_error_;
  HealthCheckNodePorts health_checks_;

  kube::EndpointSliceClient slice_client_;
  kube::Informer services_, slices_, nodes_;
  std::unique_ptr<BoundedRunner> runner_;
};

}  // namespace hawser::proxy
