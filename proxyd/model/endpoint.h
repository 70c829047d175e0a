// SPDX-License-Identifier: Apache-2.0
// Endpoint: one address behind a service port, and its reading from an EndpointSlice. Pure, any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip.h"
#include "lib/kube/object.h"

namespace hawser::proxy {

// Where packets go.
struct Target {
  IpAddr addr;
  std::uint16_t port = 0;
  auto operator<=>(const Target&) const = default;
};

// Whom the EndpointSlice controller wants an endpoint to serve [P23].
struct Hints {
  std::vector<std::string> zones;
  std::vector<std::string> nodes;
  bool operator==(const Hints&) const = default;
};

struct Endpoint {
  Target target;
  bool ready = true;
  bool serving = true;
  bool terminating = false;
  std::uint16_t weight = 1;            // share of new connections, see kWeightsAnnotation
  bool local = false;                  // on this node; an endpoint without nodeName never is
  std::shared_ptr<const Hints> hints;  // null: none
  bool operator==(const Endpoint& o) const;
};

// One slice: its endpoints' addresses once, and the ports they all have.
struct Slice {
  std::string service;  // "namespace/name" of the Service
  struct Port {
    std::string name;
    std::uint8_t protocol = 0;
    std::uint16_t port = 0;
    bool operator==(const Port&) const = default;
  };
  std::vector<Port> ports;
  std::vector<Endpoint> endpoints;  // target.port is 0 here
  bool operator==(const Slice&) const = default;
};

// `problems` as for parse_service(). A slice that is not for us (no service label, FQDN) has no endpoints.
[[nodiscard]] Slice parse_slice(const kube::Object& o, std::string_view this_node, std::vector<std::string>& problems);

}  // namespace hawser::proxy
