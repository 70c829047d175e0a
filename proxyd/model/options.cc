// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/options.h"

#include <algorithm>
#include <bit>

#include <net/if.h>

namespace hawser::proxy {
namespace {

bool is_loopback(const IpAddr& a) {
  static const Cidr kV4 = *Cidr::parse("127.0.0.0/8"), kV6 = *Cidr::parse("::1/128");
  return kV4.contains(a) || kV6.contains(a);
}

}  // namespace

Result<std::vector<Cidr>> parse_node_port_addresses(const std::vector<std::string>& texts,
                                                    const std::vector<IpAddr>& node_addresses) {
  std::vector<Cidr> r;
  for (const auto& text : texts) {
    if (text == "primary") {
      if (texts.size() > 1) return fail(EINVAL, "nodePortAddresses: \"primary\" stands alone");
      if (node_addresses.empty()) return fail(EINVAL, "nodePortAddresses: the node's addresses are not known");
      for (const IpAddr& a : node_addresses) r.emplace_back(a, a.bits());
      return r;
    }
    auto c = Cidr::parse(text);
    if (!c) return propagate(c, "nodePortAddresses");
    r.push_back(c->network());
  }
  return r;
}

std::vector<Cidr> without_nested(std::vector<Cidr> ranges) {
  // A range sorts before those inside it, and after the widest with the same first address.
  for (Cidr& c : ranges) c = c.network();
  std::ranges::sort(ranges);
  std::vector<Cidr> r;
  for (const Cidr& c : ranges) {
    if (r.empty() || !r.back().contains(c)) r.push_back(c);
  }
  return r;
}

bool serves_node_ports(const TrafficOptions& o, const IpAddr& address) {
  if (is_loopback(address)) return false;
  bool limited = false;
  for (const Cidr& c : o.node_port_addresses) {
    if (c.contains(address)) return true;
    limited = limited || c.family() == address.family();
  }
  return !limited;
}

Result<> check(const TrafficOptions& o) {
  const bool by_interface =
      o.detect_local == DetectLocal::kBridgeInterface || o.detect_local == DetectLocal::kInterfacePrefix;
  if (by_interface && (o.local_interface.empty() || o.local_interface.size() >= IFNAMSIZ))
    return fail(EINVAL, "detectLocal: the interface name \"{}\" needs 1 to {} characters", o.local_interface,
                IFNAMSIZ - 1);
  if (!std::has_single_bit(o.masquerade_mark)) return fail(EINVAL, "masqueradeBit: must be one bit of 32");
  for (std::size_t i = 0; i < o.cluster_cidrs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (o.cluster_cidrs[i].overlaps(o.cluster_cidrs[j]))
        return fail(EINVAL, "clusterCIDR: {} overlaps {}", o.cluster_cidrs[i], o.cluster_cidrs[j]);
    }
  }
  return {};
}

}  // namespace hawser::proxy
