// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The BPF programs that lead a node's own connections from loopback to its node ports, as instructions, and the layout
// of the maps they share. Pure.
//
// They are attached to a cgroup and run when a process in it names an address: connect() and sendmsg() to
// 127.0.0.0/8 or ::1 and a port that is a node port go to the node's own address, where the rules for node ports take
// them. recvmsg() and getpeername() say loopback again to a socket that was led away. No packet ever has a loopback
// address outside lo, so route_localnet stays off. Pods are in cgroups below, but in other network namespaces, which
// the programs leave alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <linux/bpf.h>

namespace hawser::proxy {

// What the maps hold. Ports and addresses as the network has them.
struct HookPort {  // key of the node ports; the value is one byte
  std::uint32_t port;
  std::uint16_t protocol;
  std::uint16_t family;
};
struct HookConfig {       // the one element of the configuration
  std::uint64_t netns;    // cookie of the network namespace that the programs are for
  std::uint32_t v4;       // this node's address, 0: none
  std::uint32_t v6[4];    // the same
  std::uint32_t padding;  // named, so that it is compared
};
struct HookOrigin {  // key of the sockets that were led away; the value is the IPv4 address they asked for, 0 for ::1
  std::uint64_t socket;
  std::uint32_t port;
  std::uint32_t family;
};
static_assert(sizeof(HookPort) == 8 && sizeof(HookConfig) == 32 && sizeof(HookOrigin) == 16);

struct HookMaps {
  int ports = -1, config = -1, origins = -1;  // descriptors
};

struct HookKind {
  bpf_attach_type attach;
  int family;
  bool answer;  // tells the process an address; else it is told one
};
// All of them. Attached in this order nobody sees the node's address where it asked for loopback.
[[nodiscard]] std::span<const HookKind> hook_kinds();
[[nodiscard]] std::vector<bpf_insn> hook_program(const HookKind& kind, const HookMaps& maps);

}  // namespace hawser::proxy
