// SPDX-License-Identifier: Apache-2.0
// RuleBuilder: nftables rules as statements. Each call adds the kernel's expressions and nft's text of the same
// statement, so that goldens read like `nft list` and the netns tests compare the two. Registers are assigned inside; a
// statement starts again at the first one. Pure, any thread.
//
//   auto r = RuleBuilder("prerouting").match_fib_daddr_local().vmap({meta_l4proto(), th_dport()},
//   "node_ports").build();
//
// In an inet table an address field needs the packet's family: the builder adds `meta nfproto` where the text implies
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip.h"
#include "lib/nft/object.h"

namespace hawser::nft {

// Something of the packet (or a random number) that is loaded into registers.
struct Field {
  Expr load;                    // without its destination register
  std::uint16_t dreg_attr = 0;  // the attribute that names the register
  std::uint32_t bytes = 0;
  std::string text;
  int family = 0;           // AF_INET or AF_INET6: only in packets of that family
  bool ct_or_meta = false;  // text needs no protocol dependency
};

Field ip_saddr(int family);
Field ip_daddr(int family);
Field meta_l4proto();
Field th_dport();
Field numgen_random(std::uint32_t modulus);
Field ct_original_daddr(int family);
Field ct_original_proto_dst();

enum class Op : std::uint8_t { kEq, kNeq };

class RuleBuilder {
 public:
  // `table`: whether family dependencies must be explicit expressions (inet) or are given by the table.
  explicit RuleBuilder(std::string chain, Family table = Family::kInet);

  RuleBuilder& match(const Field& f, Op op, const Bytes& value, std::string_view value_text);
  RuleBuilder& match_cidr(const Field& f, Op op, const Cidr& c);
  RuleBuilder& match_set(const std::vector<Field>& key, std::string_view set, Op op = Op::kEq);
  RuleBuilder& match_mark(std::uint32_t mask, Op op);  // mark & mask == mask, or != mask
  RuleBuilder& match_oifname(std::string_view name, Op op);
  // A name that ends in * stands for all that begin so. A packet of this host came in nowhere: its name is empty.
  RuleBuilder& match_iifname(std::string_view name, Op op);
  RuleBuilder& match_fib_daddr_local();  // the packet is for an address of this host
  RuleBuilder& match_fib_saddr_local();
  RuleBuilder& match_nfproto(int family);
  RuleBuilder& match_l4proto(std::uint8_t proto);  // IPPROTO_TCP, _UDP or _SCTP
  RuleBuilder& match_echo_request(int family);
  RuleBuilder& match_ct_state(std::uint32_t bit, Op op);  // NF_CT_STATE_*: see kCtInvalid
  RuleBuilder& match_ct_status_dnat();

  RuleBuilder& set_mark_bits(std::uint32_t mask);
  RuleBuilder& clear_mark_bits(std::uint32_t mask);
  RuleBuilder& limit_per_second(std::uint64_t rate, std::uint32_t burst_packets);
  RuleBuilder& counter();
  // update @map { key timeout T : value }: remembers `value` for `key`; an element that is there keeps its value and
  // only lasts longer. The value is packet fields: one that comes from another map makes nft 1.0.6 abort when it lists
  // the rule.
  RuleBuilder& update_map(const std::vector<Field>& key, std::string_view map, std::uint64_t timeout_ms,
                          const std::vector<Field>& value);

  RuleBuilder& verdict(const Verdict& v);
  RuleBuilder& vmap(const std::vector<Field>& key, std::string_view map);
  // dnat to the address and port that `map` has for `key`; no match: the rule ends.
  RuleBuilder& dnat_map(int family, const std::vector<Field>& key, std::string_view map);
  RuleBuilder& dnat(const IpAddr& to, std::uint16_t port);
  RuleBuilder& snat(const IpAddr& to);
  RuleBuilder& redirect();  // to this host: the address of the interface it came in, or loopback for the host's own
  RuleBuilder& masquerade(bool fully_random);
  RuleBuilder& reject_tcp_reset();  // implies the match on TCP
  RuleBuilder& reject_port_unreachable();
  RuleBuilder& comment(std::string text);

  [[nodiscard]] Rule build() { return std::move(rule_); }

 private:
  void add(Expr e) { rule_.exprs.push_back(std::move(e)); }
  void say(std::string_view text);
  void need_family(int family);
  void load(const Field& f, unsigned word);
  unsigned load_key(const std::vector<Field>& key, unsigned word);  // returns the word after it
  void cmp(unsigned word, Op op, const Bytes& value);
  void bitwise(std::uint32_t mask, std::uint32_t xor_bits);

  Rule rule_;
  int known_family_ = 0;
};

inline constexpr std::uint32_t kCtInvalid = 1, kCtEstablished = 2, kCtRelated = 4, kCtNew = 8;
inline constexpr std::uint32_t kMaxConcatWords = 16;

// Canonical text of the rule's expressions, counters' values left out: equal rules, ours or the kernel's, have equal
// ones.
[[nodiscard]] std::string fingerprint(const Rule& r);

}  // namespace hawser::nft
