// SPDX-License-Identifier: Apache-2.0
// The endpoints that a Service's pods give it, before they are put into EndpointSlices or Endpoints. Pure, any thread.
// Source: "EndpointSlices" of the Kubernetes documentation; KEP-1669 and KEP-1672 for the conditions of terminating
// pods.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/controllers/pod_state.h"

namespace hawser::controllers {

struct EndpointPort {
  std::string name;
  std::string protocol = "TCP";
  std::int64_t port = 0;
  std::string app_protocol;
  auto operator<=>(const EndpointPort&) const = default;
};

struct ServiceEndpoint {
  std::string address;
  bool v6 = false;
  bool ready = false;  // serving and not terminating, or the Service publishes every address
  bool serving = false;
  bool terminating = false;
  std::string node;
  std::string hostname;  // only if the pod's subdomain is this Service
  std::string zone;
  std::string pod_name, pod_namespace, pod_uid;
  std::vector<EndpointPort> ports;  // sorted; may differ from pod to pod where targetPort is a name
};

// As Endpoints and EndpointSlices write them: the pod behind an endpoint, and ports. An EndpointSlice writes an empty
// name too.
[[nodiscard]] Object pod_reference(const ServiceEndpoint& e);
[[nodiscard]] Array ports_json(const std::vector<EndpointPort>& ports, bool empty_names);

// Zone of a node, "" if unknown.
using ZoneOf = std::function<std::string(std::string_view node)>;

[[nodiscard]] bool has_selector(const Object& service);
[[nodiscard]] bool is_headless(const Object& service);
[[nodiscard]] bool is_external_name(const Object& service);
// Every pod in `pods` that the selector matches and that has an address, for each address family of the Service.
[[nodiscard]] std::vector<ServiceEndpoint> service_endpoints(const Object& service, std::span<const ObjectPtr> pods,
                                                             const ZoneOf& zone);
// Address families to publish, as addressType: from spec.ipFamilies, else from the clusterIP, else IPv4.
[[nodiscard]] std::vector<bool> wants_v6(const Object& service);

// What a pod's endpoint is made of: two pods with equal values give the same endpoint, so that an update of anything
// else is no news.
[[nodiscard]] bool same_endpoint_input(const Object& a, const Object& b);

// When the change was made that the next write will publish: remembers, per Service, the times seen last. One thread
// per instance.
class TriggerTimes {
 public:
  // The earliest time among those that are new since the last call for this Service; nothing if there are none.
  std::optional<WallTime> next(const Object& service, std::span<const ObjectPtr> matching_pods);
  void forget(const std::string& service_key) { seen_.erase(service_key); }

 private:
  struct Seen {
    WallTime service{};
    std::map<std::string, WallTime> pods;  // by name
  };
  std::map<std::string, Seen> seen_;
};

}  // namespace hawser::controllers
