// SPDX-License-Identifier: Apache-2.0
// A tracer: runs the first packet of a connection through a table as the kernel would, expression by expression. It
// knows the expressions that RuleBuilder makes and nothing of what the rules are for, so a test can hold them against
// the model. Pure, for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/nft/fake_nft.h"
#include "proxyd/model/endpoint.h"

namespace hawser::proxy {

struct Packet {
  IpAddr source, destination;
  std::uint8_t protocol = 0;           // IPPROTO_*
  std::uint16_t destination_port = 0;  // of ICMP: its type
  std::string interface = {};          // came in through; empty: sent by this host
};

struct Trace {
  enum class End : std::uint8_t { kPass, kTranslated, kRedirected, kDrop, kReset, kReject };
  End end = End::kPass;
  std::optional<Target> target;    // kTranslated
  bool masquerade = false;         // kTranslated and kPass
  std::uint32_t mark = 0;          // as it leaves the host
  std::vector<std::string> steps;  // rules that matched
};

struct TraceInput {
  const nft::FakeNft::TableModel& table;
  std::function<bool(const IpAddr&)> is_local;  // an address of this host
  std::uint32_t random = 0;                     // what numgen draws, before its modulus
};

[[nodiscard]] Trace trace(const TraceInput& in, const Packet& p);

}  // namespace hawser::proxy
