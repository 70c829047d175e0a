// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
#include "proxyd/localhost/program.h"

#include <cstddef>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "proxyd/localhost/assembler.h"

namespace hawser::proxy {
namespace {

// Registers: the context, then what must outlive a call. Those below 6 are lost by one.
constexpr auto kContext = BPF_REG_6;
constexpr auto kAsked = BPF_REG_7;  // the IPv4 address
constexpr auto kConfig = BPF_REG_9;
constexpr auto kStack = BPF_REG_10;
// Places on the stack.
constexpr int kZeroAt = -4, kPortAt = -16, kOriginAt = -32, kValueAt = -36;

constexpr int kIp4 = offsetof(bpf_sock_addr, user_ip4), kUserPort = offsetof(bpf_sock_addr, user_port);
constexpr int kPortProtocol = kPortAt + int{offsetof(HookPort, protocol)};
constexpr int kPortFamily = kPortAt + int{offsetof(HookPort, family)};
constexpr int kOriginPort = kOriginAt + int{offsetof(HookOrigin, port)};
constexpr int kOriginFamily = kOriginAt + int{offsetof(HookOrigin, family)};
constexpr int ip6(int word) {
  return int{offsetof(bpf_sock_addr, user_ip6)} + 4 * word;
}
constexpr int v6(int word) {
  return int{offsetof(HookConfig, v6)} + 4 * word;
}

class Program {
 public:
  Program(const HookKind& kind, const HookMaps& maps) : kind_(kind), maps_(maps) {}

  std::vector<bpf_insn> build() && {
    a_.move(kContext, BPF_REG_1);
    if (kind_.answer)
      answer();
    else
      question();
    a_.bind(out_);
    a_.set(BPF_REG_0, 1);  // go on
    a_.exit();
    return std::move(a_).finish();
  }

 private:
  void question() {
    if (kind_.family == AF_INET) {
      a_.load(BPF_W, kAsked, kContext, kIp4);
      leave_unless_loopback4(kAsked);
      question4(kIp4);
      return;
    }
    const auto v6_only = a_.label();
    load_high_words();
    a_.load(BPF_W, kAsked, kContext, ip6(3));
    a_.if_not32(BPF_REG_4, htonl(0xffff), v6_only);
    leave_unless_loopback4(kAsked);
    question4(ip6(3));
    a_.jump(out_);
    a_.bind(v6_only);
    a_.if_not32(BPF_REG_4, 0, out_);
    a_.if_not32(kAsked, htonl(1), out_);
    question6();
  }

  // Words 0 and 1 have to be 0; word 2 is left in register 4.
  void load_high_words() {
    for (const int word : {0, 1}) {
      a_.load(BPF_W, BPF_REG_4, kContext, ip6(word));
      a_.if_not32(BPF_REG_4, 0, out_);
    }
    a_.load(BPF_W, BPF_REG_4, kContext, ip6(2));
  }

  void leave_unless_loopback4(std::uint8_t r) {
    a_.move(BPF_REG_2, r);
    a_.and32(BPF_REG_2, htonl(0xff000000));
    a_.if_not32(BPF_REG_2, htonl(0x7f000000), out_);
  }

  // A socket that is bound to loopback could get no answer from elsewhere: it stays, and is refused.
  void load_socket() {
    a_.load(BPF_DW, BPF_REG_1, kContext, offsetof(bpf_sock_addr, sk));
    a_.if_zero(BPF_REG_1, out_);
  }

  void question4(int address_at) {
    load_socket();
    a_.load(BPF_W, BPF_REG_2, BPF_REG_1, offsetof(bpf_sock, src_ip4));
    a_.and32(BPF_REG_2, htonl(0xff000000));
    a_.if_is32(BPF_REG_2, htonl(0x7f000000), out_);
    load_config();
    a_.load(BPF_W, BPF_REG_8, kConfig, offsetof(HookConfig, v4));
    a_.if_zero(BPF_REG_8, out_);
    leave_unless_node_port(AF_INET);
    note_origin(AF_INET);
    a_.store(BPF_W, kContext, address_at, BPF_REG_8);
  }

  void question6() {
    const auto free = a_.label();
    load_socket();
    for (const int word : {0, 1, 2, 3}) {
      a_.load(BPF_W, BPF_REG_2, BPF_REG_1, int{offsetof(bpf_sock, src_ip6)} + 4 * word);
      a_.if_not32(BPF_REG_2, word == 3 ? htonl(1) : 0, free);
    }
    a_.jump(out_);
    a_.bind(free);
    load_config();
    a_.load(BPF_W, BPF_REG_8, kConfig, v6(0));
    a_.if_zero(BPF_REG_8, out_);
    a_.set(kAsked, 0);
    leave_unless_node_port(AF_INET6);
    note_origin(AF_INET6);
    for (const int word : {0, 1, 2, 3}) {
      a_.load(BPF_W, BPF_REG_2, kConfig, v6(word));
      a_.store(BPF_W, kContext, ip6(word), BPF_REG_2);
    }
  }

  // Also leaves in other network namespaces.
  void load_config() {
    a_.store_value(BPF_W, kStack, kZeroAt, 0);
    look_up(maps_.config, kZeroAt);
    a_.move(kConfig, BPF_REG_0);
    a_.move(BPF_REG_1, kContext);
    a_.call(BPF_FUNC_get_netns_cookie);
    a_.load(BPF_DW, BPF_REG_2, kConfig, offsetof(HookConfig, netns));
    a_.if_not(BPF_REG_0, BPF_REG_2, out_);
  }

  void leave_unless_node_port(int family) {
    a_.load(BPF_W, BPF_REG_2, kContext, kUserPort);
    a_.store(BPF_W, kStack, kPortAt, BPF_REG_2);
    a_.load(BPF_W, BPF_REG_2, kContext, offsetof(bpf_sock_addr, protocol));
    a_.store(BPF_H, kStack, kPortProtocol, BPF_REG_2);
    a_.store_value(BPF_H, kStack, kPortFamily, family);
    look_up(maps_.ports, kPortAt);
  }

  void put_origin_key(int family) {
    a_.move(BPF_REG_1, kContext);
    a_.call(BPF_FUNC_get_socket_cookie);
    a_.store(BPF_DW, kStack, kOriginAt, BPF_REG_0);
    a_.load(BPF_W, BPF_REG_2, kContext, kUserPort);
    a_.store(BPF_W, kStack, kOriginPort, BPF_REG_2);
    a_.store_value(BPF_W, kStack, kOriginFamily, family);
  }

  void note_origin(int family) {
    put_origin_key(family);
    a_.store(BPF_W, kStack, kValueAt, kAsked);
    a_.load_map(BPF_REG_1, maps_.origins);
    point_at(BPF_REG_2, kOriginAt);
    point_at(BPF_REG_3, kValueAt);
    a_.set(BPF_REG_4, BPF_ANY);
    a_.call(BPF_FUNC_map_update_elem);
  }

  void answer() {
    load_config();
    if (kind_.family == AF_INET) {
      a_.load(BPF_W, kAsked, kContext, kIp4);
      answer4(kIp4);
      return;
    }
    const auto v6_only = a_.label();
    a_.load(BPF_W, BPF_REG_2, kContext, ip6(0));
    a_.if_not32(BPF_REG_2, 0, v6_only);
    load_high_words();
    a_.if_not32(BPF_REG_4, htonl(0xffff), v6_only);
    a_.load(BPF_W, kAsked, kContext, ip6(3));
    answer4(ip6(3));
    a_.jump(out_);
    a_.bind(v6_only);
    for (const int word : {0, 1, 2, 3}) {
      a_.load(BPF_W, BPF_REG_2, kContext, ip6(word));
      a_.load(BPF_W, BPF_REG_3, kConfig, v6(word));
      a_.if_not(BPF_REG_2, BPF_REG_3, out_);
    }
    look_up_origin(AF_INET6);
    a_.set(BPF_REG_2, 0);
    for (const int word : {0, 1, 2}) a_.store(BPF_W, kContext, ip6(word), BPF_REG_2);
    a_.set(BPF_REG_2, static_cast<std::int32_t>(htonl(1)));
    a_.store(BPF_W, kContext, ip6(3), BPF_REG_2);
  }

  void answer4(int address_at) {
    a_.load(BPF_W, BPF_REG_2, kConfig, offsetof(HookConfig, v4));
    a_.if_not(BPF_REG_2, kAsked, out_);
    look_up_origin(AF_INET);
    a_.load(BPF_W, BPF_REG_2, BPF_REG_0, 0);
    a_.store(BPF_W, kContext, address_at, BPF_REG_2);
  }

  void look_up_origin(int family) {
    put_origin_key(family);
    look_up(maps_.origins, kOriginAt);
  }

  void point_at(std::uint8_t r, int place) {
    a_.move(r, kStack);
    a_.add_to(r, place);
  }

  // Leaves if there is none.
  void look_up(int map, int key) {
    a_.load_map(BPF_REG_1, map);
    point_at(BPF_REG_2, key);
    a_.call(BPF_FUNC_map_lookup_elem);
    a_.if_zero(BPF_REG_0, out_);
  }

  const HookKind& kind_;
  const HookMaps& maps_;
  Assembler a_;
  const Assembler::Label out_ = a_.label();
};

}  // namespace

std::span<const HookKind> hook_kinds() {
  static constexpr HookKind kKinds[] = {
      {BPF_CGROUP_UDP4_RECVMSG, AF_INET, true},      {BPF_CGROUP_UDP6_RECVMSG, AF_INET6, true},
      {BPF_CGROUP_INET4_GETPEERNAME, AF_INET, true}, {BPF_CGROUP_INET6_GETPEERNAME, AF_INET6, true},
      {BPF_CGROUP_INET4_CONNECT, AF_INET, false},    {BPF_CGROUP_INET6_CONNECT, AF_INET6, false},
      {BPF_CGROUP_UDP4_SENDMSG, AF_INET, false},     {BPF_CGROUP_UDP6_SENDMSG, AF_INET6, false}};
  return kKinds;
}

std::vector<bpf_insn> hook_program(const HookKind& kind, const HookMaps& maps) {
  return Program(kind, maps).build();
}

}  // namespace hawser::proxy
