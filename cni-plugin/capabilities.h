// SPDX-License-Identifier: Apache-2.0
// Capabilities: what a runtime may ask for one attachment beside its addresses (CNI CONVENTIONS.md; FEATURES C30-C38):
// MAC, DNS, port mappings, bandwidth. A capability in runtimeConfig beats args.cni, which beats CNI_ARGS. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <boost/json/object.hpp>

#include "cni-plugin/environment.h"
#include "cni-plugin/failure.h"
#include "lib/base/ip.h"

namespace hawser::cni {

// One port of the node that leads to the container.
struct PortMapping {
  std::uint16_t host_port = 0;
  std::uint16_t container_port = 0;
  std::uint8_t protocol = 0;  // IPPROTO_*
  IpAddr host_ip;             // invalid: every address of the node
  auto operator<=>(const PortMapping&) const = default;
};
[[nodiscard]] const char* protocol_text(std::uint8_t protocol);  // "tcp"
[[nodiscard]] std::string text_of(const PortMapping& m);         // "192.0.2.11:8080/tcp"

// One direction; 0: no limit.
struct RateLimit {
  std::uint64_t bits_per_second = 0;
  std::uint64_t burst_bits = 0;
  bool operator==(const RateLimit&) const = default;
};
struct Bandwidth {
  RateLimit ingress;  // to the container
  RateLimit egress;   // from it
  [[nodiscard]] bool any() const { return ingress.bits_per_second != 0 || egress.bits_per_second != 0; }
  bool operator==(const Bandwidth&) const = default;
};

struct Capabilities {
  std::optional<MacAddr> mac;
  boost::json::object dns;  // as a result has it; empty: not asked for
  std::vector<PortMapping> ports;
  Bandwidth bandwidth;
};

// `conf` is the whole network configuration. Wrong values: kInvalidConfig, naming field and value.
Outcome<Capabilities> parse_capabilities(const boost::json::object& conf, const Environment& env);

}  // namespace hawser::cni
