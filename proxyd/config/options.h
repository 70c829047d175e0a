// SPDX-License-Identifier: Apache-2.0
// ProxyOptions: a Config as this program uses it: checked and typed. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proxyd/config/config.h"
#include "proxyd/conntrack/kernel_limits.h"
#include "proxyd/model/options.h"

namespace hawser::proxy {

// Kernel settings of connection tracking; the defaults are kube-proxy's.
struct ConntrackSettings {
  std::int64_t max_per_core = 32768;  // 0: the kernel's limit stays, `min` or not
  std::int64_t min = 131072;
  bool max_given = false;  // else a limit that is higher stays
  // Unset: the kernel's own stays.
  std::optional<Nanos> tcp_established = std::chrono::hours(24), tcp_close_wait = std::chrono::hours(1);
  std::optional<Nanos> udp, udp_stream;
  bool tcp_be_liberal = false;
  bool operator==(const ConntrackSettings&) const = default;
};

struct ProxyOptions {
  std::string kubeconfig;                  // empty: the pod's service account, or `master` alone
  std::string master;                      // wins over the kubeconfig's server
  std::string node;                        // empty: the host name
  std::string healthz_bind, metrics_bind;  // empty: none
  bool bind_hard_fail = false;
  // Complete but for what only the Node object tells: its pod range (NodeCIDR), its addresses ("primary").
  TrafficOptions traffic;
  bool node_cidr = false;
  bool node_port_primary = false;
  Nanos sync_period{}, min_sync_period{};
  bool localhost_node_ports = false;  // node ports on loopback too
  std::string cgroup_root;            // for them; empty: to be found
  std::optional<int> oom_score;
  std::int64_t verbosity = 0;
  ConntrackSettings conntrack;
  std::string configz;  // the whole configuration as JSON, for /configz
};

// Adds to c.notes what is served otherwise than its words say. Errors name the field.
Result<ProxyOptions> make_options(Config& c);
// Whether the Node object must be read before the rules can be written.
[[nodiscard]] inline bool needs_node(const ProxyOptions& o) {
  return o.node_cidr || o.node_port_primary;
}
// Completes o.traffic from the Node object. An error says what the node lacks.
Result<> add_node(const boost::json::object& node, ProxyOptions& o);

// The sysctls that `s` asks for on a machine with `cores` processors.
[[nodiscard]] std::vector<KernelSetting> conntrack_sysctls(const ConntrackSettings& s, int cores);

}  // namespace hawser::proxy
