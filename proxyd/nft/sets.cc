// SPDX-License-Identifier: Apache-2.0
// The sets of layout.h: names, types, and what the options put into them.
#include <sys/socket.h>

#include "proxyd/nft/layout.h"

namespace hawser::proxy {
namespace {

constexpr std::uint32_t kMaxAffinityEntries = 1u << 18;  // a family; beyond it new clients are not remembered

char family_digit(int family) {
  return family == AF_INET ? '4' : '6';
}
nft::DataType addr_type(int family) {
  return family == AF_INET ? nft::DataType::kIpv4Addr : nft::DataType::kIpv6Addr;
}

}  // namespace

const std::vector<SetRole>& all_roles() {
  static const std::vector<SetRole> kAll = {SetRole::kServices,
                                            SetRole::kLocalServices,
                                            SetRole::kNodePorts,
                                            SetRole::kLocalNodePorts,
                                            SetRole::kEndpoints,
                                            SetRole::kLocalEndpoints,
                                            SetRole::kNodePortEndpoints,
                                            SetRole::kLocalNodePortEndpoints,
                                            SetRole::kAffinityServices,
                                            SetRole::kAffinityNodePorts,
                                            SetRole::kAffinity,
                                            SetRole::kNodePortAffinity,
                                            SetRole::kHairpin,
                                            SetRole::kLimited,
                                            SetRole::kSources,
                                            SetRole::kClusterIps,
                                            SetRole::kLeft,
                                            SetRole::kPods,
                                            SetRole::kNodePortAddresses,
                                            SetRole::kServiceRanges};
  return kAll;
}

std::vector<Cidr> fixed_ranges(SetRole role, int family, const LayoutOptions& o) {
  std::vector<Cidr> r;
  if (role == SetRole::kPods && o.detect_local == DetectLocal::kCidr) r = o.cluster_cidrs;
  if (role == SetRole::kNodePortAddresses) r = o.node_port_addresses;
  if (role == SetRole::kServiceRanges) r = o.service_cidrs;
  std::erase_if(r, [&](const Cidr& c) { return c.family() != family; });
  return without_nested(std::move(r));
}

std::string set_name(SetRole role, int family) {
  const char* base = "";
  switch (role) {
    case SetRole::kServices:
      base = "services";
      break;
    case SetRole::kLocalServices:
      base = "local-services";
      break;
    case SetRole::kNodePorts:
      base = "node-ports";
      break;
    case SetRole::kLocalNodePorts:
      base = "local-node-ports";
      break;
    case SetRole::kEndpoints:
      base = "endpoints";
      break;
    case SetRole::kLocalEndpoints:
      base = "local-endpoints";
      break;
    case SetRole::kNodePortEndpoints:
      base = "node-port-endpoints";
      break;
    case SetRole::kLocalNodePortEndpoints:
      base = "local-node-port-endpoints";
      break;
    case SetRole::kAffinityServices:
      base = "affinity-services";
      break;
    case SetRole::kAffinityNodePorts:
      base = "affinity-node-ports";
      break;
    case SetRole::kAffinity:
      base = "affinity";
      break;
    case SetRole::kNodePortAffinity:
      base = "node-port-affinity";
      break;
    case SetRole::kHairpin:
      base = "hairpin";
      break;
    case SetRole::kLimited:
      base = "limited";
      break;
    case SetRole::kSources:
      base = "sources";
      break;
    case SetRole::kClusterIps:
      base = "cluster-ips";
      break;
    case SetRole::kLeft:
      base = "left";
      break;
    case SetRole::kPods:
      base = "pods";
      break;
    case SetRole::kNodePortAddresses:
      base = "node-port-addresses";
      break;
    case SetRole::kServiceRanges:
      base = "service-ranges";
      break;
  }
  return std::string(base) + family_digit(family);
}

nft::Set set_spec(SetRole role, int family) {
  using nft::DataType;
  const DataType addr = addr_type(family);
  const std::vector<DataType> vip = {addr, DataType::kInetProto, DataType::kInetService};
  const std::vector<DataType> port = {DataType::kInetProto, DataType::kInetService};
  const std::vector<DataType> target = {addr, DataType::kInetService};
  const auto with = [](std::vector<DataType> v, DataType last) {
    v.push_back(last);
    return v;
  };
  nft::Set s{.name = set_name(role, family)};
  switch (role) {
    case SetRole::kServices:
    case SetRole::kLocalServices:
    case SetRole::kAffinityServices:
      s.key = vip;
      s.verdict_map = true;
      break;
    case SetRole::kNodePorts:
    case SetRole::kLocalNodePorts:
    case SetRole::kAffinityNodePorts:
      s.key = port;
      s.verdict_map = true;
      break;
    case SetRole::kEndpoints:
    case SetRole::kLocalEndpoints:
      // "mark" is nft's only named type for a number of 4 bytes in host order, which is what numgen gives.
      s.key = with(vip, DataType::kMark);
      s.data = target;
      break;
    case SetRole::kNodePortEndpoints:
    case SetRole::kLocalNodePortEndpoints:
      s.key = with(port, DataType::kMark);
      s.data = target;
      break;
    case SetRole::kAffinity:
    case SetRole::kNodePortAffinity:
      s.key = role == SetRole::kAffinity ? vip : port;
      s.key.insert(s.key.begin(), addr);
      s.data = target;
      s.timeout = s.dynamic = true;
      s.size = kMaxAffinityEntries;
      break;
    case SetRole::kHairpin:
      s.key = {addr, addr};
      break;
    case SetRole::kLimited:
      s.key = vip;
      break;
    case SetRole::kLeft:
      s.key = vip;
      s.timeout = true;
      break;
    case SetRole::kSources:
      s.key = with(vip, addr);
      s.interval = true;
      break;
    case SetRole::kClusterIps:
      s.key = {addr};
      break;
    case SetRole::kPods:
    case SetRole::kNodePortAddresses:
    case SetRole::kServiceRanges:
      s.key = {addr};
      s.interval = true;
      break;
  }
  return s;
}

}  // namespace hawser::proxy
