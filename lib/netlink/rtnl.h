// SPDX-License-Identifier: Apache-2.0
// Rtnl: what we ask of rtnetlink, as plain values. Two implementations: KernelRtnl (rtnl_kernel.h) for one network
// namespace, and FakeRtnl (rtnl_fake.h), a working model for tests. Ensure-semantics on top: rtnl_ensure.h.
//
// One thread at a time per object. The address family is data in every call. Errors carry the kernel's errno:
// is_exists() / is_not_found() apply. Deleting what is not there is an error here; callers decide that it is fine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/ip.h"

namespace hawser::netlink {

// Marks our routes (the `proto` column of `ip route`), so that ours can be told from others'. Not in the kernel's list,
// above the numbers that routing daemons took.
inline constexpr std::uint8_t kRouteProtocol = 72;

struct VxlanParams {
  std::uint32_t vni = 0;
  std::uint16_t port = 0;
  IpAddr local;  // source of the outer packets
  int underlay_index = 0;
  bool learning = false;
  bool operator==(const VxlanParams&) const = default;
};

struct Link {
  int index = 0;
  std::string name;
  std::string kind;  // "veth", "vxlan", "bridge", "" for hardware and lo
  int mtu = 0;
  bool up = false;       // IFF_UP, as the administrator set it
  bool carrier = false;  // IFF_LOWER_UP
  bool running = false;  // IFF_RUNNING: the kernel has taken the carrier in, so that a bridge forwards to this port
  MacAddr mac;
  int master = 0;
  int peer_index = 0;  // veth: the other end's index, in its own namespace
  std::string alias;
  VxlanParams vxlan;  // kind "vxlan"
};

// A new veth's far end is always down: the kernel cannot set it up before the pair is joined.
struct VethPeer {
  std::string name;
  int netns_fd = -1;  // made directly there; -1: here
  std::optional<MacAddr> mac;
};

// A link to make, in one message.
struct LinkSpec {
  std::string name;
  std::string kind;
  int mtu = 0;  // 0: the kind's default
  std::optional<MacAddr> mac;
  bool up = false;
  VethPeer peer;      // kind "veth"; the MTU goes for both ends
  VxlanParams vxlan;  // kind "vxlan"
};

struct LinkChange {
  std::optional<bool> up;
  std::optional<int> mtu;
  std::optional<MacAddr> mac;
  std::optional<int> master;  // 0: none
  std::optional<std::string> alias;
  // IPv6 addresses the kernel makes by itself (link-local): false for devices that carry only what we give them.
  std::optional<bool> auto_ipv6;
  std::optional<bool> promiscuous;
  std::optional<bool> hairpin;   // a bridge's port: may send a frame back where it came from
  std::optional<bool> learning;  // kind "vxlan"
};

struct Address {
  int link = 0;
  Cidr cidr;
  bool no_dad = false;  // IPv6: usable at once, without duplicate address detection
  bool operator==(const Address&) const = default;
};

// kUnreachable answers the sender with an ICMP error, kBlackhole with silence.
enum class RouteType { kUnicast, kBlackhole, kUnreachable };

struct Route {
  Cidr dst;  // 0.0.0.0/0 or ::/0 is the default route
  RouteType type = RouteType::kUnicast;
  int link = 0;
  IpAddr via;           // invalid: directly connected
  bool onlink = false;  // `via` is taken as reachable on the link although no route says so
  bool scope_link = false;
  IpAddr source;  // preferred source address
  std::uint32_t metric = 0;
  std::uint8_t protocol = kRouteProtocol;
  std::uint32_t table = 254;  // RT_TABLE_MAIN
  bool operator==(const Route&) const = default;
};

// kNeighbor: `ip` is at `mac` on the link. kFdb (a vxlan device's own table): `mac` is behind the tunnel end `ip`.
enum class NeighTable { kNeighbor, kFdb };
struct Neigh {
  NeighTable table = NeighTable::kNeighbor;
  int link = 0;
  IpAddr ip;
  MacAddr mac;
  bool permanent = true;
  auto operator<=>(const Neigh&) const = default;
};

// kAdd fails with EEXIST on the same key; kReplace overwrites it.
enum class Verb { kAdd, kReplace, kDelete };

class Rtnl {
 public:
  virtual ~Rtnl() = default;

  virtual Result<Link> get_link(const std::string& name) = 0;
  virtual Result<std::vector<Link>> list_links() = 0;
  virtual Result<> add_link(const LinkSpec& spec) = 0;
  virtual Result<> change_link(int index, const LinkChange& change) = 0;
  virtual Result<> delete_link(int index) = 0;

  // link 0: of every link.
  virtual Result<std::vector<Address>> list_addresses(int link) = 0;
  virtual Result<> change_address(Verb verb, const Address& address) = 0;
  // The main table, unicast, blackhole and unreachable, both families; link 0: every route.
  virtual Result<std::vector<Route>> list_routes(int link) = 0;
  virtual Result<> change_route(Verb verb, const Route& route) = 0;
  // Entries of one table on one link.
  virtual Result<std::vector<Neigh>> list_neighs(NeighTable table, int link) = 0;
  virtual Result<> change_neigh(Verb verb, const Neigh& neigh) = 0;
};

}  // namespace hawser::netlink
