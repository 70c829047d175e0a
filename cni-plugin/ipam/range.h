// SPDX-License-Identifier: Apache-2.0
// Range: the addresses of one subnet that may be given out, with host-local's keys and defaults (FEATURES C51). Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "lib/base/ip.h"

namespace hawser::cni::ipam {

struct Range {
  Cidr subnet;
  IpAddr first;
  IpAddr last;
  IpAddr gateway;             // never given out
  std::vector<Cidr> exclude;  // nor these

  [[nodiscard]] bool contains(const IpAddr& a) const;
  // Whether an address of the range may be given out.
  [[nodiscard]] bool gives(const IpAddr& a) const;
  // Addresses that may be given out.
  [[nodiscard]] std::uint32_t capacity() const;
  // Addresses from first to last, at most kMaxSlots: a larger range gives out only its beginning.
  [[nodiscard]] std::uint32_t slots() const;
  [[nodiscard]] IpAddr at(std::uint32_t slot) const { return first.plus(slot); }
  // Position of an address that contains() holds for; slots() or more if past the cap.
  [[nodiscard]] std::uint64_t slot_of(const IpAddr& a) const;
  [[nodiscard]] std::string file_name() const;  // "10.244.1.1-10.244.1.254"
  auto operator<=>(const Range&) const = default;
};

// One address is taken from each set: two sets are dual stack. Sets with several ranges are tried in order.
using RangeSet = std::vector<Range>;

// The whole subnet: gateway is its first address, the network and (IPv4) broadcast addresses are left out.
Result<Range> whole_subnet(const Cidr& subnet);
// The subnet that has just these ends; nullopt: they are not a whole subnet's.
std::optional<Range> whole_subnet_between(const IpAddr& first, const IpAddr& last);
// ["10.1.2.3", "10.1.2.64/26", ...]: addresses and whole networks; errors begin with "exclude".
Result<std::vector<Cidr>> parse_exclude(const boost::json::value& v);
// {"subnet", "rangeStart", "rangeEnd", "gateway", "exclude"}.
Result<Range> parse_range(const boost::json::object& o);
// [[{...}, ...], ...]; overlapping ranges are refused.
Result<std::vector<RangeSet>> parse_range_sets(const boost::json::value& v);

}  // namespace hawser::cni::ipam
