// SPDX-License-Identifier: Apache-2.0
// Stale UDP and SCTP flows. A UDP client that never closes its socket keeps its conntrack entry alive for ever, and
// with it the endpoint that was chosen at first, long after that endpoint is gone [P71, X01]. kube-proxy clears entries
// upon events
// ("endpoint removed", "from none to some") and so misses what it did not see. Here the whole table is compared with
// the desired state: level-triggered, so restarts and lost events change nothing.
//
// SCTP associations are long, and their ports are often fixed at both ends: one that begins anew would meet the entry
// of the old one, and go to the dead endpoint again. TCP clients take another port.
//
// A flow is stale if its original destination is such a frontend of ours and its answers come from no endpoint that the
// frontend may use now (draining ones may be used by the flows they have). That includes a flow that was never
// translated, made before there were endpoints or rules. A flow to a frontend that was ours and is gone is stale if it
// was translated; what was ours before this process, the back end finds in the kernel. Nothing else is touched [P72].
#pragma once

#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/metrics.h"
#include "lib/netlink/conntrack.h"
#include "proxyd/model/desired_state.h"

namespace hawser::proxy {

using netlink::Conntrack;
using netlink::FakeConntrack;
using netlink::Flow;
using netlink::KernelConntrack;

// Frontends of a state whose flows_are_removed().
[[nodiscard]] std::set<FrontendKey> flow_frontends(const DesiredState& d);

struct StaleInput {
  const DesiredState& desired;
  const std::set<FrontendKey>& gone;          // were in an earlier state and are not in this one
  const std::vector<IpAddr>& node_addresses;  // sorted: where node ports are
};
// Those of `flows` that must go. Pure.
[[nodiscard]] std::vector<Flow> stale_flows(const StaleInput& in, const std::vector<Flow>& flows);

// Runs it against the kernel after each sync. One thread.
class ConntrackReconciler {
 public:
  ConntrackReconciler(Conntrack& table, metrics::Registry& registry, Clock& clock);
  // Frontends that an earlier process served: gone, unless the next state has them.
  void note_left(const std::vector<FrontendKey>& left) { gone_.insert(left.begin(), left.end()); }
  // Compares and removes; returns how many flows were removed. Without such frontends, present or past, the
  // kernel is not asked. An error leaves the rest for the next run.
  Result<int> run(const DesiredState& desired, const std::vector<IpAddr>& node_addresses);

 private:
  Conntrack& table_;
  Clock& clock_;
  metrics::Family<metrics::Histogram>& duration_;  // by ip_family, as kube-proxy's
  metrics::Family<metrics::Counter>& deleted_;     // the same
  std::set<FrontendKey> current_, gone_;
};

}  // namespace hawser::proxy
