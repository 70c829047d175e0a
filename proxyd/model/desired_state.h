// SPDX-License-Identifier: Apache-2.0
// DesiredState: what the kernel should do, as one immutable value with a generation. Trackers make it; back ends, the
// conntrack reconciler, health and metrics read it. Parts that did not change are shared between generations, so
// comparing two is comparing pointers. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <netinet/in.h>

#include "proxyd/model/service_list.h"
#include "proxyd/model/service_port.h"
#include "proxyd/model/topology.h"

namespace hawser::proxy {

// How traffic comes to a frontend; decides whose source address is kept [P19, P20, P59].
enum class Reach : std::uint8_t {
  kInternal,       // a cluster IP: sources outside the pods' ranges are masqueraded
  kExternal,       // external address or node port, policy Cluster: always masqueraded
  kExternalLocal,  // policy Local: clients outside get `local` with their source kept; pods and this node get `cluster`
};

// One (address, protocol, port) that packets are sent to.
struct Frontend {
  IpAddr addr;     // invalid: any address of this node (a node port)
  int family = 0;  // also where addr is invalid
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  Reach reach = Reach::kInternal;
  std::uint32_t affinity_seconds = 0;
  std::vector<Target> targets;   // sorted, weights as repetitions; under internalTrafficPolicy Local the local ones
  std::vector<Target> local;     // kExternalLocal only
  std::vector<Target> draining;  // flows to these stay, new ones do not come
  WhenEmpty when_empty = WhenEmpty::kReject;
  bool limited = false;       // only `sources` get an answer [P13]
  std::vector<Cidr> sources;  // sorted, none inside another
  [[nodiscard]] bool is_node_port() const { return !addr; }
  bool operator==(const Frontend&) const = default;
};

// Whether a flow of this protocol is taken from an endpoint that is gone. A TCP connection ends by itself and stays
// where it is.
[[nodiscard]] inline bool flows_are_removed(std::uint8_t protocol) {
  return protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}
// What such a flow's original destination is compared with: a frontend's (protocol; address or, for a node port, the
// invalid address; family; port).
using FrontendKey = std::tuple<std::uint8_t, IpAddr, int, std::uint16_t>;

struct ServiceState {
  std::string key;  // "namespace/name"
  std::vector<Frontend> frontends;
  std::vector<IpAddr> cluster_ips;  // sorted; their other ports are refused [P30]
  std::vector<IpAddr> local_addrs;  // of endpoints on this node, sorted: whose packets may come back to them [P44]
  bool operator==(const ServiceState&) const = default;
};

struct DesiredState {
  std::uint64_t generation = 0;
  ServiceList services;
};
using DesiredStatePtr = std::shared_ptr<const DesiredState>;

struct PortEndpoints {
  ServicePort port;
  std::vector<Endpoint> endpoints;
};
// The frontends of one Service. Pure.
[[nodiscard]] ServiceState make_service_state(const Service& s, const std::vector<PortEndpoints>& ports,
                                              const NodeInfo& node);

}  // namespace hawser::proxy
