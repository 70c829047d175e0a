// SPDX-License-Identifier: Apache-2.0
#include "proxyd/conntrack/reconcile.h"

#include <algorithm>
#include <map>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

FrontendKey key_of(const Frontend& f) {
  return {f.protocol, f.addr, f.is_node_port() ? f.family : f.addr.family(), f.port};
}

bool allows(const Frontend& f, const netlink::FlowEnd& end) {
  const Target t{end.addr, end.port};
  auto in = [&](const std::vector<Target>& list) { return std::ranges::find(list, t) != list.end(); };
  return in(f.targets) || in(f.local) || in(f.draining);
}

using FrontendMap = std::map<FrontendKey, const Frontend*>;

bool is_stale(const StaleInput& in, const FrontendMap& ours, const Flow& f) {
  const bool translated = f.answers_from != f.destination;
  const FrontendKey vip{f.protocol, f.destination.addr, f.destination.addr.family(), f.destination.port};
  const FrontendKey node_port{f.protocol, IpAddr(), f.destination.addr.family(), f.destination.port};
  if (auto it = ours.find(vip); it != ours.end()) return !allows(*it->second, f.answers_from);
  // A node port is one on this node's addresses only: a flow to the same port of another machine is not ours.
  const bool here = std::ranges::binary_search(in.node_addresses, f.destination.addr);
  if (auto it = ours.find(node_port); it != ours.end() && here) return !allows(*it->second, f.answers_from);
  return translated && (in.gone.contains(vip) || (here && in.gone.contains(node_port)));
}

}  // namespace

std::set<FrontendKey> flow_frontends(const DesiredState& d) {
  std::set<FrontendKey> out;
  for (const auto& s : d.services) {
    for (const auto& f : s->frontends) {
      if (flows_are_removed(f.protocol)) out.insert(key_of(f));
    }
  }
  return out;
}

std::vector<Flow> stale_flows(const StaleInput& in, const std::vector<Flow>& flows) {
  FrontendMap ours;
  for (const auto& s : in.desired.services) {
    for (const auto& f : s->frontends) {
      if (flows_are_removed(f.protocol)) ours.emplace(key_of(f), &f);
    }
  }
  std::vector<Flow> out;
  for (const auto& f : flows) {
    if (flows_are_removed(f.protocol) && is_stale(in, ours, f)) out.push_back(f);
  }
  return out;
}

ConntrackReconciler::ConntrackReconciler(Conntrack& table, metrics::Registry& registry, Clock& clock)
    : table_(table),
      clock_(clock),
      duration_(registry.histogram("kubeproxy_conntrack_reconciler_sync_duration_seconds",
                                   "Comparing the flows with the endpoints.",
                                   metrics::exponential_buckets(0.001, 2, 15), {"ip_family"})),
      deleted_(registry.counter("kubeproxy_conntrack_reconciler_deleted_entries_total", "Stale flows removed.",
                                {"ip_family"})) {
  for (const char* family : {"IPv4", "IPv6"}) {
    duration_.with({family});
    deleted_.with({family});
  }
}

Result<int> ConntrackReconciler::run(const DesiredState& desired, const std::vector<IpAddr>& node_addresses) {
  auto now = flow_frontends(desired);
  for (const auto& k : current_) {
    if (!now.contains(k)) gone_.insert(k);
  }
  for (const auto& k : now) gone_.erase(k);
  current_ = std::move(now);
  if (current_.empty() && gone_.empty()) return 0;
  std::set<std::uint8_t> protocols;
  for (const auto* keys : {&current_, &gone_})
    for (const auto& k : *keys) protocols.insert(std::get<0>(k));
  int removed = 0;
  for (const auto& [family, name] : {std::pair{AF_INET, "IPv4"}, {AF_INET6, "IPv6"}}) {
    const auto start = clock_.now();
    int here = 0;
    for (const std::uint8_t protocol : protocols) {
      auto flows = table_.list(family, protocol);
      if (!flows) return propagate(flows);
      for (const auto& f : stale_flows({desired, gone_, node_addresses}, *flows)) {
        if (auto r = table_.remove(f); !r) return propagate(r);
        here++;
      }
    }
    removed += here;
    duration_.with({name}).observe(std::chrono::duration<double>(clock_.now() - start).count());
    deleted_.with({name}).add(here);
  }
  // Their rules are gone and now their flows, so no new ones can appear.
  gone_.clear();
  return removed;
}

}  // namespace hawser::proxy
