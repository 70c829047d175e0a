// SPDX-License-Identifier: Apache-2.0
// The way of a connection's first packet through the Services of this node, found twice: from the model alone
// (walk_model) and from the table as it was read back (walk_kernel). Both give the same type, so that comparing them is
// comparing values. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proxyd/inspect/facts.h"

namespace hawser::proxy {

struct Query {
  IpAddr source;
  IpAddr destination;
  std::uint16_t port = 0;
  std::uint8_t protocol = 0;   // IPPROTO_*
  std::string interface = {};  // it comes in through; matters where pods are told by interface
};

// What the destination is.
enum class Match : std::uint8_t {
  kFrontend,
  kClusterIp,     // a Service's address, but no port of it
  kServiceRange,  // no Service's address, but of their range
  kNone,
};
enum class Fate : std::uint8_t { kEndpoints, kReject, kDrop, kPass };

struct Walk {
  Match match = Match::kNone;
  SideId id;                  // kFrontend: the key that decides
  bool limited = false;       // to source ranges
  std::optional<Cidr> range;  // limited: the one that has the source; none: dropped
  bool local_lookup = false;  // externalTrafficPolicy Local: has endpoints of this node apart
  bool kept_local = false;    // and the source may use only those
  std::uint32_t affinity_seconds = 0;
  std::vector<Target> targets;  // sorted
  bool masquerade = false;      // by mark
  bool hairpin = false;         // if the source is chosen itself
  Fate fate = Fate::kPass;
  std::string scheduler;  // mode ipvs: how one of the targets is chosen
  std::string damage;     // kernel only: why packets cannot go as the elements say
  bool operator==(const Walk&) const = default;
};

// The model's frontend for a query, and the Service that has it. A cluster IP without that port: its Service alone.
struct Hit {
  const ServiceState* service = nullptr;
  const Frontend* frontend = nullptr;
};
// In `state`, which is one of the model's two.
[[nodiscard]] Hit find_frontend(const Query& q, const DesiredState& state, const TrafficOptions& o,
                                const std::vector<IpAddr>& node_addresses);

// True if it is known, and a pod's.
[[nodiscard]] bool from_pod(const Query& q, const TrafficOptions& o);
[[nodiscard]] bool knows_pods(const TrafficOptions& o, int family);

[[nodiscard]] Walk walk_model(const Query& q, const Facts& f);
[[nodiscard]] Walk walk_kernel(const Query& q, const Facts& f);

// A pick chain by its name.
[[nodiscard]] std::optional<PickChain> parse_pick_chain(const std::string& name, int family, bool node_port);

}  // namespace hawser::proxy
