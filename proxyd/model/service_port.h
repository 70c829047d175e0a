// SPDX-License-Identifier: Apache-2.0
// ServicePort: one port of one Service as every back end needs it, and its reading from the API object. Pure, any
// thread.
//
// Which Services are handled at all [P01]: those with a cluster IP; not ExternalName, not headless. (Services and
// slices with the labels service.kubernetes.io/service-proxy-name and service.kubernetes.io/headless are left out by
// the watch itself.)
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip.h"
#include "lib/kube/object.h"

namespace hawser::proxy {

// IPPROTO_* numbers; 0: not one that Services know.
[[nodiscard]] std::uint8_t protocol_number(std::string_view name);
[[nodiscard]] std::string_view protocol_name(std::uint8_t number);

struct ServicePort {
  std::string name;  // "" when the Service has one unnamed port
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  std::uint16_t node_port = 0;  // 0: none
  bool operator==(const ServicePort&) const = default;
};

// Shares of new connections, "10.244.1.2=3,10.244.1.3=1" on an EndpointSlice or a Service. An endpoint that is not
// named has 1. 0: no new connections while another endpoint can have them.
inline constexpr std::string_view kWeightsAnnotation = "hawser.io/endpoint-weights";
inline constexpr std::uint32_t kMaxWeight = 100;
struct EndpointWeight {
  IpAddr addr;
  std::uint16_t weight = 1;
  bool operator==(const EndpointWeight&) const = default;
};
// What the annotation of `o` says; each part that cannot be used is left out and named by `problem`.
[[nodiscard]] std::vector<EndpointWeight> parse_weights(const kube::Object& o,
                                                        const std::function<void(std::string)>& problem);

struct Service {
  std::string key;  // "namespace/name"
  std::vector<ServicePort> ports;
  std::vector<IpAddr> cluster_ips;
  std::vector<IpAddr> external_ips;       // spec.externalIPs
  std::vector<IpAddr> load_balancer_ips;  // without those that the balancer keeps for itself (ipMode Proxy)
  bool limited = false;                   // loadBalancerSourceRanges: only `source_ranges` may use load_balancer_ips
  std::vector<Cidr> source_ranges;        // both families, none inside another
  std::vector<EndpointWeight> weights;    // annotation kWeightsAnnotation; before the slices' own
  std::uint32_t affinity_seconds = 0;     // 0: none
  bool external_local = false;            // externalTrafficPolicy: Local
  bool internal_local = false;            // internalTrafficPolicy: Local
  std::uint16_t health_check_node_port = 0;
  bool operator==(const Service&) const = default;
};

// What `o` asks for. An object that is not for us gives a Service without ports. Each thing in it that cannot be used
// is left out and named in `problems`, one sentence each; the rest is used.
[[nodiscard]] Service parse_service(const kube::Object& o, std::vector<std::string>& problems);

}  // namespace hawser::proxy
