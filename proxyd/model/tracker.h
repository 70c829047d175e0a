// SPDX-License-Identifier: Apache-2.0
// Tracker: folds API events into DesiredState. Informer threads call the on_* functions; the sync thread calls take().
//
// For each Service touched since the last take() it holds {previous, current}; a change that undoes itself is no
// change, and take() returns the state of before (same pointer, same generation). Nothing is dropped when take()'s
// result could not be applied: the state is whole, not a difference.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/kube/client.h"
#include "proxyd/model/desired_state.h"
#include "proxyd/model/endpoint_slice_cache.h"

namespace hawser::proxy {

struct PendingCounts {
  std::uint64_t service_changes = 0;   // since the last take()
  std::uint64_t endpoint_changes = 0;  // since the last take()
};

// What the API says of one Service, for people who ask.
struct ServiceView {
  Service service;
  std::vector<PortEndpoints> ports;
  std::map<std::string, Slice> slices;  // by "namespace/name"
};

class Tracker {
 public:
  // `report` gets one sentence for each unusable thing in an object, once per version of it.
  Tracker(NodeInfo node, std::function<void(const std::string&)> report);

  // Old null: added; current null: deleted. True if a sync is needed.
  bool on_service(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  bool on_slice(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  bool on_node(const kube::ObjectPtr& old, const kube::ObjectPtr& current);

  struct Taken {
    DesiredStatePtr state;
    PendingCounts counts;
    // When the changes in it were made, by the slices' annotation: the oldest of each Service. For network programming
    // latency.
    std::vector<WallTime> trigger_times;
  };
  Taken take();
  [[nodiscard]] PendingCounts pending() const;
  [[nodiscard]] DesiredStatePtr state() const;  // as take() last gave it
  [[nodiscard]] NodeInfo node() const;
  [[nodiscard]] std::optional<ServiceView> view(const std::string& key) const;  // none: not ours
  // Deleting, or tainted for removal by the cluster autoscaler: load balancers should not choose this node [P83].
  [[nodiscard]] bool node_eligible() const;

 private:
  void note_trigger(const std::string& service, const kube::Object& slice);
  [[nodiscard]] std::vector<PortEndpoints> endpoints_of(const Service& s) const;
  [[nodiscard]] ServiceStatePtr compute(const std::string& key) const;  // null: not ours any more

  const std::function<void(const std::string&)> report_;

  mutable std::mutex mu_;
  NodeInfo node_;                             // guarded by mu_
  bool node_eligible_ = true;                 // guarded by mu_
  std::map<std::string, Service> services_;   // guarded by mu_
  EndpointSliceCache slices_;                 // guarded by mu_
  std::set<std::string> touched_;             // guarded by mu_: Services to compute again
  std::map<std::string, WallTime> triggers_;  // guarded by mu_
  PendingCounts counts_;                      // guarded by mu_
  DesiredStatePtr state_;                     // guarded by mu_
};

}  // namespace hawser::proxy
