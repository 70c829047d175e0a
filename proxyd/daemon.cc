// SPDX-License-Identifier: Apache-2.0
#include "proxyd/daemon.h"

#include <algorithm>

#include <malloc.h>

#include "lib/base/log.h"

namespace hawser::proxy {
namespace {

// Those of other proxies, and headless ones, never reach this process [P01].
constexpr const char* kOurs = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
constexpr Nanos kRetryInterval = std::chrono::seconds(1);
constexpr std::size_t kLargeSync = 10000;  // changes; their buffers are worth giving back

double seconds(Nanos d) {
  return std::chrono::duration<double>(d).count();
}
double seconds(WallTime t) {
  return seconds(t.time_since_epoch());
}

}  // namespace

Daemon::Daemon(DaemonOptions options, kube::Client& client, Kernel kernel, metrics::Registry& registry, Clock& clock)
    : options_(std::move(options)),
      kernel_(kernel),
      clock_(clock),
      metrics_(registry),
      health_(clock),
      tracker_({.name = options_.node, .zone = {}}, [](const std::string& problem) { log::warn("{}", problem); }),
      reconciler_(kernel.conntrack, registry, clock),
      services_(client, kube::kServices, {.label_selector = kOurs}, clock),
      slices_(client, kube::kEndpointSlices, {.label_selector = kOurs}, clock),
      nodes_(client, kube::kNodes, {.field_selector = "metadata.name=" + options_.node}, clock),
      runner_(std::make_unique<BoundedRunner>(
          BoundedRunnerOptions{options_.min_interval, kRetryInterval, options_.audit_interval},
          [this] { return sync(); }, clock)) {}

Daemon::~Daemon() {
  stop();
}

void Daemon::watch(kube::Informer& informer, bool (Tracker::*fold)(const kube::ObjectPtr&, const kube::ObjectPtr&)) {
  informer.start({.on_change =
                      [this, fold](const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
                        if ((tracker_.*fold)(old, current)) request_sync();
                        health_.set_node_eligible(tracker_.node_eligible());
                      },
                  .on_synced = [this] { request_sync(); }});
}

void Daemon::start() {
  runner_->start();
  watch(nodes_, &Tracker::on_node);
  watch(services_, &Tracker::on_service);
  watch(slices_, &Tracker::on_slice);
}

void Daemon::stop() {
  for (auto* i : {&services_, &slices_, &nodes_}) i->stop();
  runner_->stop();
}

void Daemon::request_sync() {
  health_.queued();
  metrics_.last_queued.set(seconds(clock_.wall()));
  const PendingCounts p = tracker_.pending();
  metrics_.service_changes_pending.set(static_cast<double>(p.service_changes));
  metrics_.endpoint_changes_pending.set(static_cast<double>(p.endpoint_changes));
  runner_->run();
}

void Daemon::table_changed() {
  foreign_change_ = true;
  runner_->run();
}

Result<> Daemon::sync() {
  if (!services_.synced() || !slices_.synced() || !nodes_.synced()) return {};
  if (foreign_change_.exchange(false)) kernel_.backend.invalidate();
  const MonoTime start = clock_.now();
  Tracker::Taken taken = tracker_.take();
  counts_.service_changes += taken.counts.service_changes;
  counts_.endpoint_changes += taken.counts.endpoint_changes;
  trigger_times_.insert(trigger_times_.end(), taken.trigger_times.begin(), taken.trigger_times.end());
  bool udp = false;
  if (auto r = sync_state(taken.state, udp); !r) {
    metrics_.sync_failures.add();
    // Tried again every second: one line is enough.
    if (last_error_ != r.error().text) log::error("sync of generation {}: {}", taken.state->generation, r.error().text);
    last_error_ = r.error().text;
    return r;
  }
  last_error_.clear();
  metrics_.sync_duration.observe(seconds(clock_.now() - start));
  note_applied(*taken.state);
  flows_pending_ = flows_pending_ || udp || clock_.now() >= next_audit_;
  if (!flows_pending_) return {};
  if (auto r = reconcile_flows(*taken.state); !r) {
    log::warn("stale UDP flows: {}", r.error().text);
    return r;
  }
  return {};
}

Result<> Daemon::sync_state(const DesiredStatePtr& state, bool& udp) {
  auto report = kernel_.backend.apply(state);
  if (!report) return propagate(report);
  udp = report->udp;
  reconciler_.note_left(report->left);
  if (report->full) {
    if (!first_ && report->changes > 0) metrics_.repairs.add();
    log::info("generation {}: {} frontends of {} Services, {} changes written", state->generation, report->frontends,
              state->services.size(), report->changes);
    first_ = false;
  }
  if (report->changes > kLargeSync) malloc_trim(0);
  return {};
}

void Daemon::note_applied(const DesiredState& state) {
  const WallTime now = clock_.wall();
  health_.synced(state.generation);
  metrics_.generation.set(static_cast<double>(state.generation));
  metrics_.last_synced.set(seconds(now));
  metrics_.service_changes.add(static_cast<double>(counts_.service_changes));
  metrics_.endpoint_changes.add(static_cast<double>(counts_.endpoint_changes));
  counts_ = {};
  const PendingCounts p = tracker_.pending();
  metrics_.service_changes_pending.set(static_cast<double>(p.service_changes));
  metrics_.endpoint_changes_pending.set(static_cast<double>(p.endpoint_changes));
  for (const WallTime t : std::exchange(trigger_times_, {})) metrics_.programming_duration.observe(seconds(now - t));
}

Result<> Daemon::reconcile_flows(const DesiredState& state) {
  auto addresses = kernel_.rtnl.list_addresses(0);
  if (!addresses) return propagate(addresses);
  std::vector<IpAddr> node;
  for (const auto& a : *addresses) {
    if (serves_node_ports(options_.traffic, a.cidr.addr())) node.push_back(a.cidr.addr());
  }
  std::ranges::sort(node);
  auto removed = reconciler_.run(state, node);
  if (!removed) return propagate(removed);
  if (*removed > 0) log::info("removed {} UDP flows to endpoints that are gone", *removed);
  flows_pending_ = false;
  next_audit_ = clock_.now() + options_.audit_interval;
  return {};
}

}  // namespace hawser::proxy
