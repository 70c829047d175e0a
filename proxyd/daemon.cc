// SPDX-License-Identifier: Apache-2.0
#include "proxyd/daemon.h"

#include <algorithm>
#include <charconv>

#include <malloc.h>
#include <sys/socket.h>

#include "lib/base/log.h"
#include "proxyd/model/no_local.h"

namespace hawser::proxy {
namespace {

// Those of other proxies, and headless ones, never reach this process [P01].
constexpr const char* kOurs = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
constexpr Nanos kRetryInterval = std::chrono::seconds(1);
constexpr std::size_t kMaxLogged = 512;    // bytes of a sentence about an object; its names may be of any length
constexpr std::size_t kLargeSync = 10000;  // changes; their buffers are worth giving back

// What the informer's thread is folding in: whom the tracker's reports are about.
struct Subject {
  const kube::Resource* kind;
  const kube::Object* object;
};
thread_local Subject folding{};

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
      health_(clock, 2 * options_.audit_interval),
      tracker_({.name = options_.node, .zone = {}}, [this](const std::string& problem) { report(problem); }),
      reconciler_(kernel.conntrack, registry, clock),
      local_counts_(options_.node),
      health_checks_(health_,
                     [this](const std::string& service, const std::string& problem) {
                       const auto object = services_.get(service);
                       folding = {&kube::kServices, object.get()};
                       report(fmt::format("Service {}: {}", service, problem));
                       folding = {};
                     }),
      slice_client_(client),
      services_(client, kube::kServices, {.label_selector = kOurs}, clock),
      slices_(slice_client_, kube::kEndpointSlices, {.label_selector = kOurs}, clock),
      nodes_(client, kube::kNodes, {.field_selector = "metadata.name=" + options_.node}, clock),
      runner_(std::make_unique<BoundedRunner>(
          BoundedRunnerOptions{options_.min_interval, kRetryInterval, options_.audit_interval},
          [this] { return sync(); }, clock)) {
  // Counted when somebody asks, for it goes over all Services. The registry may outlive this.
  registry.on_collect([last = applied_, &gauge = metrics_.no_local_endpoints] {
    const DesiredStatePtr state = last->get();
    if (!state) return;
    for (const auto& [family, name] : {std::pair{AF_INET, "IPv4"}, {AF_INET6, "IPv6"}}) {
      const NoLocalEndpoints n = count_no_local(*state, family);
      gauge.with({"internal", name}).set(static_cast<double>(n.internal));
      gauge.with({"external", name}).set(static_cast<double>(n.external));
    }
  });
}

Daemon::~Daemon() {
  stop();
}

void Daemon::report(const std::string& problem) {
  log::warn("{}", std::string_view(problem).substr(0, kMaxLogged));
  if (options_.on_problem && folding.object) options_.on_problem(*folding.kind, *folding.object, problem);
}

void Daemon::watch(kube::Informer& informer, const kube::Resource& kind,
                   bool (Tracker::*fold)(const kube::ObjectPtr&, const kube::ObjectPtr&)) {
  auto& seen = seen_[std::string(kind.plural)];
  informer.start({.on_change =
                      [this, fold, &kind, &seen](const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
                        const kube::Object& object = current ? *current : *old;
                        folding = {&kind, &object};
                        bool changed = (tracker_.*fold)(old, current);
                        folding = {};
                        if (&kind == &kube::kServices) changed |= local_counts_.on_service(old, current);
                        if (&kind == &kube::kEndpointSlices) changed |= local_counts_.on_slice(old, current);
                        // Opaque by contract, a number with every server there is; else it stays 0.
                        std::uint64_t version = 0;
                        const auto text = kube::resource_version(object);
                        std::from_chars(text.data(), text.data() + text.size(), version);
                        seen = std::max<std::uint64_t>(seen, version);
                        if (changed) request_sync();
                        health_.set_node_eligible(tracker_.node_eligible());
                      },
                  .on_synced = [this] { request_sync(); }});
}

void Daemon::start() {
  runner_->start();
  // The keys first: the threads use the map.
  for (const auto* kind : {&kube::kNodes, &kube::kServices, &kube::kEndpointSlices})
    seen_[std::string(kind->plural)] = 0;
  watch(nodes_, kube::kNodes, &Tracker::on_node);
  watch(services_, kube::kServices, &Tracker::on_service);
  watch(slices_, kube::kEndpointSlices, &Tracker::on_slice);
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
  // Earlier it would do nothing but make the first sync wait for the interval.
  if (listed()) runner_->run();
}

bool Daemon::listed() const {
  return services_.synced() && slices_.synced() && nodes_.synced();
}

void Daemon::table_changed() {
  foreign_change_ = true;
  runner_->run();
}

Result<> Daemon::sync() {
  if (!listed()) return {};
  if (foreign_change_.exchange(false)) kernel_.backend.invalidate();
  const MonoTime start = clock_.now();
  health_.syncing();
  Revisions revisions;
  for (const auto& [kind, version] : seen_) revisions[kind] = version;
  Tracker::Taken taken = tracker_.take();
  counts_.service_changes += taken.counts.service_changes;
  counts_.endpoint_changes += taken.counts.endpoint_changes;
  trigger_times_.insert(trigger_times_.end(), taken.trigger_times.begin(), taken.trigger_times.end());
  bool flows = false, full = false;
  if (auto r = sync_state(taken.state, flows, full); !r) {
    metrics_.sync_failures.add();
    // Tried again every second: one line is enough.
    if (last_error_ != r.error().text) log::error("sync of generation {}: {}", taken.state->generation, r.error().text);
    last_error_ = r.error().text;
    return r;
  }
  last_error_.clear();
  const double took = seconds(clock_.now() - start);
  metrics_.sync_duration.observe(took);
  (full ? metrics_.full_sync_duration : metrics_.partial_sync_duration).observe(took);
  if (kernel_.localhost) kernel_.localhost->apply(taken.state, tracker_.node().addresses, clock_.now() >= next_audit_);
  applied_->set(taken.state);
  note_applied(*taken.state, revisions);
  if (auto r = sync_health_checks(); !r) log::warn("health check node ports: {}", r.error().text);
  flows_pending_ = flows_pending_ || flows || clock_.now() >= next_audit_;
  if (!flows_pending_) return {};
  if (auto r = reconcile_flows(*taken.state); !r) {
    log::warn("stale flows: {}", r.error().text);
    return r;
  }
  return {};
}

Result<> Daemon::sync_state(const DesiredStatePtr& state, bool& flows, bool& full) {
  auto report = kernel_.backend.apply(state);
  if (!report) return propagate(report);
  flows = report->flows;
  full = report->full;
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

Result<> Daemon::sync_health_checks() {
  std::vector<IpAddr> addresses;
  if (!options_.node_port_addresses.empty()) {
    auto all = kernel_.rtnl.list_addresses(0);
    if (!all) return propagate(all);
    for (const auto& a : *all) {
      const IpAddr& addr = a.cidr.addr();
      const bool served =
          std::ranges::any_of(options_.node_port_addresses, [&](const Cidr& c) { return c.contains(addr); });
      if (served) addresses.push_back(addr);
    }
    std::ranges::sort(addresses);
    addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
    if (addresses.empty()) return fail(EADDRNOTAVAIL, "the node has no address in nodePortAddresses");
  }
  health_checks_.apply(local_counts_.checks(), addresses);
  return {};
}

void Daemon::note_applied(const DesiredState& state, const Revisions& revisions) {
  const WallTime now = clock_.wall();
  health_.synced(state.generation, revisions);
  for (const auto& [kind, version] : revisions) metrics_.revision.with({kind}).set(static_cast<double>(version));
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
  if (*removed > 0) log::info("removed {} flows to endpoints that are gone", *removed);
  flows_pending_ = false;
  next_audit_ = clock_.now() + options_.audit_interval;
  return {};
}

}  // namespace hawser::proxy
