// SPDX-License-Identifier: Apache-2.0
// LocalhostNodePorts: a process of this node that connects to 127.0.0.1:NODEPORT or [::1]:NODEPORT reaches the Service
// [P10], by programs at the cgroups' root (program.h) and without route_localnet. Sync thread only, but status().
//
// After each sync apply() gives the kernel the state's node ports and one address of this node per family, which must
// be one that serves node ports. Only what differs is written; what an earlier process left is taken over. Every time
// the addresses are read again, what the kernel has is looked at too, and put right; a kernel that cannot do it is told
// of once, and asked again then.
#pragma once

#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/netlink/rtnl.h"
#include "proxyd/localhost/hooks.h"
#include "proxyd/model/desired_state.h"
#include "proxyd/model/options.h"

namespace hawser::proxy {

[[nodiscard]] std::set<LoopbackPort> loopback_ports(const DesiredState& s);
// Where connections to loopback go: of `own`, this node's addresses, one that serves node ports, in the order of
// `preferred` and then the lowest. None for a family whose loopback nodePortAddresses leaves out.
[[nodiscard]] LoopbackTargets loopback_targets(std::vector<IpAddr> own, const std::vector<IpAddr>& preferred,
                                               const TrafficOptions& o);

class LocalhostNodePorts {
 public:
  // `hooks` and `rtnl` outlive this.
  LocalhostNodePorts(LoopbackHooks& hooks, netlink::Rtnl& rtnl, TrafficOptions options)
      : hooks_(hooks), rtnl_(rtnl), options_(std::move(options)) {}

  // `preferred`: the Node object's addresses. `again`: this node's addresses may be others than at the last call.
  void apply(const DesiredStatePtr& state, const std::vector<IpAddr>& preferred, bool again);
  // "serving N ports by 192.0.2.11 and 2001:db8::11", or why not. Any thread.
  [[nodiscard]] std::string status() const;

 private:
  Result<> read_targets(const std::vector<IpAddr>& preferred);
  Result<> write(const DesiredState& state);
  void set_status(std::string text, bool bad);

  LoopbackHooks& hooks_;
  netlink::Rtnl& rtnl_;
  const TrafficOptions options_;
  std::optional<std::set<LoopbackPort>> there_;  // none: to be looked at
  std::optional<LoopbackTargets> written_;
  LoopbackTargets targets_;
  DesiredStatePtr applied_;
  std::vector<IpAddr> preferred_;

  mutable std::mutex mu_;
  std::string status_ = "not yet";  // guarded by mu_
};

}  // namespace hawser::proxy
