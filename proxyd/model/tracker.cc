// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/tracker.h"

#include <algorithm>

#include "lib/base/time_text.h"

namespace hawser::proxy {
namespace {

constexpr std::string_view kTriggerAnnotation = "endpoints.kubernetes.io/last-change-trigger-time";
constexpr std::string_view kAutoscalerTaint = "ToBeDeletedByClusterAutoscaler";

bool eligible(const kube::Object& node) {
  if (kube::deleting(node)) return false;
  return std::ranges::none_of(kube::arr(node, {"spec", "taints"}),
                              [](const auto& t) { return kube::str(kube::as_obj(t), {"key"}) == kAutoscalerTaint; });
}

}  // namespace

Tracker::Tracker(NodeInfo node, std::function<void(const std::string&)> report)
    : report_(std::move(report)), node_(std::move(node)), state_(std::make_shared<DesiredState>()) {}

bool Tracker::on_service(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  std::vector<std::string> problems;
  Service s;
  if (current) s = parse_service(*current, problems);
  for (const auto& p : problems) report_(p);
  const std::string key = kube::key(current ? *current : *old);
  std::lock_guard l(mu_);
  const auto it = services_.find(key);
  if (s.ports.empty()) {
    if (it == services_.end()) return false;
    services_.erase(it);
  } else if (it == services_.end()) {
    services_.emplace(key, std::move(s));
  } else if (it->second == s) {
    return false;
  } else {
    it->second = std::move(s);
  }
  ++counts_.service_changes;
  touched_.insert(key);
  return true;
}

bool Tracker::on_slice(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  std::string node;
  {
    std::lock_guard l(mu_);
    node = node_.name;
  }
  std::vector<std::string> problems;
  Slice s;
  if (current) s = parse_slice(*current, node, problems);
  for (const auto& p : problems) report_(p);
  const std::string key = kube::key(current ? *current : *old);
  std::lock_guard l(mu_);
  std::string service = s.service;
  const std::string before = slices_.service_of(key);
  bool changed = false;
  if (current && !service.empty()) {
    changed = slices_.update(key, std::move(s));
  } else {
    service = slices_.remove(key);
    changed = !service.empty();
  }
  if (!changed) return false;
  ++counts_.endpoint_changes;
  touched_.insert(service);
  if (!before.empty()) touched_.insert(before);  // another one: its label has changed
  if (current) note_trigger(service, *current);
  return true;
}

void Tracker::note_trigger(const std::string& service, const kube::Object& slice) {
  const auto text = kube::str(slice, {"metadata", "annotations", kTriggerAnnotation});
  if (text.empty()) return;
  auto at = parse_rfc3339(text);
  if (!at) return;
  auto [it, added] = triggers_.try_emplace(service, *at);
  if (!added) it->second = std::min(it->second, *at);
}

bool Tracker::on_node(const kube::ObjectPtr&, const kube::ObjectPtr& current) {
  std::lock_guard l(mu_);
  node_eligible_ = current && eligible(*current);
  if (!current) return false;
  std::string zone(kube::str(*current, {"metadata", "labels", "topology.kubernetes.io/zone"}));
  std::vector<IpAddr> addresses;
  for (const auto& v : kube::arr(*current, {"status", "addresses"})) {
    if (auto a = IpAddr::parse(kube::str(kube::as_obj(v), {"address"}))) addresses.push_back(*a);
  }
  if (zone == node_.zone && addresses == node_.addresses) return false;
  node_.zone = std::move(zone);
  node_.addresses = std::move(addresses);
  for (const auto& [key, s] : services_) touched_.insert(key);
  return true;
}

std::vector<PortEndpoints> Tracker::endpoints_of(const Service& s) const {
  std::vector<PortEndpoints> ports;
  for (const ServicePort& p : s.ports) ports.push_back({p, slices_.endpoints(s.key, p)});
  return ports;
}

ServiceStatePtr Tracker::compute(const std::string& key) const {
  const auto it = services_.find(key);
  if (it == services_.end()) return nullptr;
  return std::make_shared<const ServiceState>(make_service_state(it->second, endpoints_of(it->second), node_));
}

std::optional<ServiceView> Tracker::view(const std::string& key) const {
  std::lock_guard l(mu_);
  const auto it = services_.find(key);
  if (it == services_.end()) return std::nullopt;
  return ServiceView{it->second, endpoints_of(it->second), slices_.slices(key)};
}

Tracker::Taken Tracker::take() {
  std::lock_guard l(mu_);
  Taken r;
  r.counts = std::exchange(counts_, {});
  for (const auto& [service, at] : std::exchange(triggers_, {})) r.trigger_times.push_back(at);
  const ServiceList& before = state_->services;
  ServiceList::Changes changes;
  for (const std::string& key : std::exchange(touched_, {})) {
    ServiceStatePtr now = compute(key);
    const ServiceStatePtr was = before.find(key);
    if (was == now || (was && now && *was == *now)) continue;
    changes.emplace_back(key, std::move(now));
  }
  if (!changes.empty()) {
    state_ = std::make_shared<const DesiredState>(
        DesiredState{.generation = state_->generation + 1, .services = before.with(std::move(changes))});
  }
  r.state = state_;
  return r;
}

DesiredStatePtr Tracker::state() const {
  std::lock_guard l(mu_);
  return state_;
}

NodeInfo Tracker::node() const {
  std::lock_guard l(mu_);
  return node_;
}

PendingCounts Tracker::pending() const {
  std::lock_guard l(mu_);
  return counts_;
}

bool Tracker::node_eligible() const {
  std::lock_guard l(mu_);
  return node_eligible_;
}

}  // namespace hawser::proxy
