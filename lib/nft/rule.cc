// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/rule.h"

#include <algorithm>
#include <cstring>

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

namespace hawser::nft {
namespace {

// Expressions are written with the attributes that the kernel adds when it lists them (register ends, flags), so that
// fingerprints of what we want and what we find are equal.

// The n-th 32-bit register as the kernel prints it back: multiples of four by the name of the 16-byte register.
std::uint32_t reg(unsigned word) {
  return word % 4 == 0 ? NFT_REG_1 + word / 4 : NFT_REG32_00 + word;
}

unsigned words(std::uint32_t bytes) {
  return (bytes + 3) / 4;
}

Field payload(std::uint32_t base, std::uint32_t offset, std::uint32_t len, std::string text, int family) {
  return {
      .load = {"payload",
               {{NFTNL_EXPR_PAYLOAD_BASE, base}, {NFTNL_EXPR_PAYLOAD_OFFSET, offset}, {NFTNL_EXPR_PAYLOAD_LEN, len}}},
      .dreg_attr = NFTNL_EXPR_PAYLOAD_DREG,
      .bytes = len,
      .text = std::move(text),
      .family = family};
}

Field meta(std::uint32_t key, std::uint32_t bytes, std::string text) {
  return {.load = {"meta", {{NFTNL_EXPR_META_KEY, key}}},
          .dreg_attr = NFTNL_EXPR_META_DREG,
          .bytes = bytes,
          .text = std::move(text),
          .ct_or_meta = true};
}

Field fib(std::uint32_t flags, std::string text) {
  return {
      .load = {"fib", {{NFTNL_EXPR_FIB_FLAGS, flags}, {NFTNL_EXPR_FIB_RESULT, std::uint32_t{NFT_FIB_RESULT_ADDRTYPE}}}},
      .dreg_attr = NFTNL_EXPR_FIB_DREG,
      .bytes = 4,
      .text = std::move(text)};
}

Field ct(std::uint32_t key, std::uint32_t bytes, std::string text) {
  return {.load = {"ct", {{NFTNL_EXPR_CT_KEY, key}}},
          .dreg_attr = NFTNL_EXPR_CT_DREG,
          .bytes = bytes,
          .text = std::move(text)};
}

const char* op_text(Op op) {
  return op == Op::kEq ? " " : " != ";
}
const char* ip_word(int family) {
  return family == AF_INET ? "ip" : "ip6";
}

std::string key_text(const std::vector<Field>& key) {
  std::string t;
  for (const Field& f : key) t += (t.empty() ? "" : " . ") + f.text;
  return t;
}

const char* state_text(std::uint32_t bit) {
  switch (bit) {
    case kCtInvalid:
      return "invalid";
    case kCtEstablished:
      return "established";
    case kCtRelated:
      return "related";
    default:
      return "new";
  }
}

// nft prints whole units from days down: 10800 s is "3h".
std::string duration_text(std::uint64_t ms) {
  struct Unit {
    std::uint64_t ms;
    const char* name;
  };
  static constexpr Unit kUnits[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
  std::string t;
  for (const Unit& u : kUnits) {
    if (ms >= u.ms) t += fmt::format("{}{}", ms / u.ms, u.name);
    ms %= u.ms;
  }
  return t;
}

}  // namespace

Field ip_saddr(int family) {
  return family == AF_INET ? payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, "ip saddr", family)
                           : payload(NFT_PAYLOAD_NETWORK_HEADER, 8, 16, "ip6 saddr", family);
}
Field ip_daddr(int family) {
  return family == AF_INET ? payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, "ip daddr", family)
                           : payload(NFT_PAYLOAD_NETWORK_HEADER, 24, 16, "ip6 daddr", family);
}
Field meta_l4proto() {
  return meta(NFT_META_L4PROTO, 1, "meta l4proto");
}
Field th_dport() {
  return payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, "th dport", 0);
}

Field numgen_random(std::uint32_t modulus) {
  return {.load = {"numgen", {{NFTNL_EXPR_NG_MODULUS, modulus}, {NFTNL_EXPR_NG_TYPE, std::uint32_t{NFT_NG_RANDOM}}}},
          .dreg_attr = NFTNL_EXPR_NG_DREG,
          .bytes = 4,
          .text = fmt::format("numgen random mod {}", modulus),
          .ct_or_meta = true};
}

Field ct_original_daddr(int family) {
  Field f = ct(family == AF_INET ? NFT_CT_DST_IP : NFT_CT_DST_IP6, family == AF_INET ? 4 : 16,
               fmt::format("ct original {} daddr", ip_word(family)));
  f.load.attrs.emplace_back(NFTNL_EXPR_CT_DIR, std::uint8_t{0});
  f.family = family;
  return f;
}

Field ct_original_proto_dst() {
  Field f = ct(NFT_CT_PROTO_DST, 2, "ct original proto-dst");
  f.load.attrs.emplace_back(NFTNL_EXPR_CT_DIR, std::uint8_t{0});
  return f;
}

RuleBuilder::RuleBuilder(std::string chain, Family table) {
  rule_.chain = std::move(chain);
  if (table == Family::kIpv4) known_family_ = AF_INET;
  if (table == Family::kIpv6) known_family_ = AF_INET6;
}

void RuleBuilder::say(std::string_view text) {
  if (!rule_.text.empty()) rule_.text += ' ';
  rule_.text += text;
}

void RuleBuilder::need_family(int family) {
  if (family == 0 || family == known_family_) return;
  known_family_ = family;
  load(meta(NFT_META_NFPROTO, 1, ""), 0);
  cmp(0, Op::kEq, Bytes::u8(family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6));
}

void RuleBuilder::load(const Field& f, unsigned word) {
  Expr e = f.load;
  e.attrs.emplace_back(f.dreg_attr, reg(word));
  add(std::move(e));
}

unsigned RuleBuilder::load_key(const std::vector<Field>& key, unsigned word) {
  for (const Field& f : key) need_family(f.family);
  for (const Field& f : key) {
    load(f, word);
    word += words(f.bytes);
  }
  return word;
}

void RuleBuilder::cmp(unsigned word, Op op, const Bytes& value) {
  add({"cmp",
       {{NFTNL_EXPR_CMP_SREG, reg(word)},
        {NFTNL_EXPR_CMP_OP, std::uint32_t{op == Op::kEq ? NFT_CMP_EQ : NFT_CMP_NEQ}},
        {NFTNL_EXPR_CMP_DATA, value}}});
}

void RuleBuilder::bitwise(std::uint32_t mask, std::uint32_t xor_bits) {
  add({"bitwise",
       {{NFTNL_EXPR_BITWISE_SREG, reg(0)},
        {NFTNL_EXPR_BITWISE_DREG, reg(0)},
        {NFTNL_EXPR_BITWISE_LEN, std::uint32_t{4}},
        {NFTNL_EXPR_BITWISE_OP, std::uint32_t{NFT_BITWISE_BOOL}},
        {NFTNL_EXPR_BITWISE_MASK, Bytes::host32(mask)},
        {NFTNL_EXPR_BITWISE_XOR, Bytes::host32(xor_bits)}}});
}

RuleBuilder& RuleBuilder::match(const Field& f, Op op, const Bytes& value, std::string_view value_text) {
  need_family(f.family);
  load(f, 0);
  cmp(0, op, value);
  say(fmt::format("{}{}{}", f.text, op_text(op), value_text));
  return *this;
}

RuleBuilder& RuleBuilder::match_cidr(const Field& f, Op op, const Cidr& c) {
  const int bits = c.addr().bits();
  if (c.prefix() == bits) return match(f, op, Bytes::ip(c.addr()), c.addr().text());
  need_family(f.family);
  load(f, 0);
  Bytes mask, zero;
  for (int i = 0; i < bits; i += 8) {
    const int n = std::clamp(c.prefix() - i, 0, 8);
    mask.append(Bytes::u8(static_cast<std::uint8_t>(0xff00 >> n)).view());
    zero.append(Bytes::u8(0).view());
  }
  add({"bitwise",
       {{NFTNL_EXPR_BITWISE_SREG, reg(0)},
        {NFTNL_EXPR_BITWISE_DREG, reg(0)},
        {NFTNL_EXPR_BITWISE_LEN, static_cast<std::uint32_t>(bits / 8)},
        {NFTNL_EXPR_BITWISE_OP, std::uint32_t{NFT_BITWISE_BOOL}},
        {NFTNL_EXPR_BITWISE_MASK, mask},
        {NFTNL_EXPR_BITWISE_XOR, zero}}});
  cmp(0, op, Bytes::ip(c.network().addr()));
  say(fmt::format("{}{}{}", f.text, op_text(op), c.network().text()));
  return *this;
}

RuleBuilder& RuleBuilder::match_set(const std::vector<Field>& key, std::string_view set, Op op) {
  load_key(key, 0);
  add({"lookup",
       {{NFTNL_EXPR_LOOKUP_SREG, reg(0)},
        {NFTNL_EXPR_LOOKUP_SET, std::string(set)},
        {NFTNL_EXPR_LOOKUP_FLAGS, op == Op::kNeq ? std::uint32_t{NFT_LOOKUP_F_INV} : 0u}}});
  say(fmt::format("{}{}@{}", key_text(key), op_text(op), set));
  return *this;
}

RuleBuilder& RuleBuilder::match_mark(std::uint32_t mask, Op op) {
  load(meta(NFT_META_MARK, 4, ""), 0);
  bitwise(mask, 0);
  cmp(0, op, Bytes::host32(mask));
  say(fmt::format("meta mark & 0x{:08x} {} 0x{:08x}", mask, op == Op::kEq ? "==" : "!=", mask));
  return *this;
}

RuleBuilder& RuleBuilder::match_oifname(std::string_view name, Op op) {
  load(meta(NFT_META_OIFNAME, IFNAMSIZ, ""), 0);
  char buf[IFNAMSIZ] = {};
  std::memcpy(buf, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
  cmp(0, op, Bytes({reinterpret_cast<const std::uint8_t*>(buf), sizeof buf}));
  say(fmt::format("oifname{}\"{}\"", op_text(op), name));
  return *this;
}

RuleBuilder& RuleBuilder::match_iifname(std::string_view name, Op op) {
  load(meta(NFT_META_IIFNAME, IFNAMSIZ, ""), 0);
  char buf[IFNAMSIZ] = {};
  const bool prefix = name.ends_with('*');
  const std::size_t n = std::min<std::size_t>(name.size() - (prefix ? 1 : 0), IFNAMSIZ - 1);
  std::memcpy(buf, name.data(), n);
  cmp(0, op, Bytes({reinterpret_cast<const std::uint8_t*>(buf), prefix ? n : sizeof buf}));
  say(fmt::format("iifname{}\"{}\"", op_text(op), name));
  return *this;
}

RuleBuilder& RuleBuilder::match_fib_daddr_local() {
  return match(fib(NFTA_FIB_F_DADDR, "fib daddr type"), Op::kEq, Bytes::host32(RTN_LOCAL), "local");
}

RuleBuilder& RuleBuilder::match_fib_saddr_local() {
  return match(fib(NFTA_FIB_F_SADDR, "fib saddr type"), Op::kEq, Bytes::host32(RTN_LOCAL), "local");
}

RuleBuilder& RuleBuilder::match_nfproto(int family) {
  known_family_ = family;
  return match(meta(NFT_META_NFPROTO, 1, "meta nfproto"), Op::kEq,
               Bytes::u8(family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6), family == AF_INET ? "ipv4" : "ipv6");
}

RuleBuilder& RuleBuilder::match_l4proto(std::uint8_t proto) {
  const char* text = proto == IPPROTO_TCP ? "tcp" : proto == IPPROTO_UDP ? "udp" : "sctp";
  return match(meta_l4proto(), Op::kEq, Bytes::u8(proto), text);
}

RuleBuilder& RuleBuilder::match_echo_request(int family) {
  need_family(family);
  load(meta_l4proto(), 0);
  cmp(0, Op::kEq, Bytes::u8(family == AF_INET ? 1 : 58));
  load(payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, "", 0), 0);
  cmp(0, Op::kEq, Bytes::u8(family == AF_INET ? 8 : 128));  // ICMP_ECHO, ICMP6_ECHO_REQUEST
  say(family == AF_INET ? "icmp type echo-request" : "icmpv6 type echo-request");
  return *this;
}

RuleBuilder& RuleBuilder::match_ct_state(std::uint32_t bit, Op op) {
  load(ct(NFT_CT_STATE, 4, ""), 0);
  bitwise(bit, 0);
  cmp(0, op == Op::kEq ? Op::kNeq : Op::kEq, Bytes::host32(0));
  say(op == Op::kEq ? fmt::format("ct state {}", state_text(bit)) : fmt::format("! ct state {}", state_text(bit)));
  return *this;
}

RuleBuilder& RuleBuilder::match_ct_status_dnat() {
  constexpr std::uint32_t kIpsDstNat = 1u << 5;  // IPS_DST_NAT of nf_conntrack_common.h
  load(ct(NFT_CT_STATUS, 4, ""), 0);
  bitwise(kIpsDstNat, 0);
  cmp(0, Op::kNeq, Bytes::host32(0));
  say("ct status dnat");
  return *this;
}

RuleBuilder& RuleBuilder::set_mark_bits(std::uint32_t mask) {
  load(meta(NFT_META_MARK, 4, ""), 0);
  bitwise(~mask, mask);
  add({"meta", {{NFTNL_EXPR_META_KEY, std::uint32_t{NFT_META_MARK}}, {NFTNL_EXPR_META_SREG, reg(0)}}});
  say(fmt::format("meta mark set meta mark | 0x{:08x}", mask));
  return *this;
}

RuleBuilder& RuleBuilder::clear_mark_bits(std::uint32_t mask) {
  load(meta(NFT_META_MARK, 4, ""), 0);
  bitwise(~mask, 0);
  add({"meta", {{NFTNL_EXPR_META_KEY, std::uint32_t{NFT_META_MARK}}, {NFTNL_EXPR_META_SREG, reg(0)}}});
  say(fmt::format("meta mark set meta mark & 0x{:08x}", ~mask));
  return *this;
}

RuleBuilder& RuleBuilder::limit_per_second(std::uint64_t rate, std::uint32_t burst_packets) {
  add({"limit",
       {{NFTNL_EXPR_LIMIT_RATE, rate},
        {NFTNL_EXPR_LIMIT_UNIT, std::uint64_t{1}},
        {NFTNL_EXPR_LIMIT_BURST, burst_packets},
        {NFTNL_EXPR_LIMIT_TYPE, std::uint32_t{NFT_LIMIT_PKTS}}}});
  // nft leaves its default burst out.
  say(burst_packets == 5 ? fmt::format("limit rate {}/second", rate)
                         : fmt::format("limit rate {}/second burst {} packets", rate, burst_packets));
  return *this;
}

RuleBuilder& RuleBuilder::counter() {
  add({"counter", {{NFTNL_EXPR_CTR_PACKETS, std::uint64_t{0}}, {NFTNL_EXPR_CTR_BYTES, std::uint64_t{0}}}});
  say("counter");
  return *this;
}

RuleBuilder& RuleBuilder::update_map(const std::vector<Field>& key, std::string_view map, std::uint64_t timeout_ms,
                                     const std::vector<Field>& value) {
  // The largest case, IPv6, takes 15 of the 16 words: saddr 4, daddr 4, protocol 1, port 1; then address 4, port 1.
  const unsigned at = load_key(key, 0);
  load_key(value, at);
  add({"dynset",
       {{NFTNL_EXPR_DYNSET_SET_NAME, std::string(map)},
        {NFTNL_EXPR_DYNSET_OP, std::uint32_t{NFT_DYNSET_OP_UPDATE}},
        {NFTNL_EXPR_DYNSET_SREG_KEY, reg(0)},
        {NFTNL_EXPR_DYNSET_SREG_DATA, reg(at)},
        {NFTNL_EXPR_DYNSET_TIMEOUT, timeout_ms}}});
  say(fmt::format("update @{} {{ {} timeout {} : {} }}", map, key_text(key), duration_text(timeout_ms),
                  key_text(value)));
  return *this;
}

RuleBuilder& RuleBuilder::verdict(const Verdict& v) {
  const auto code = static_cast<std::uint32_t>(verdict_code(v.kind));
  Expr e{"immediate", {{NFTNL_EXPR_IMM_DREG, std::uint32_t{NFT_REG_VERDICT}}, {NFTNL_EXPR_IMM_VERDICT, code}}};
  if (!v.chain.empty()) e.attrs.emplace_back(NFTNL_EXPR_IMM_CHAIN, v.chain);
  add(std::move(e));
  say(verdict_text(v));
  return *this;
}

RuleBuilder& RuleBuilder::vmap(const std::vector<Field>& key, std::string_view map) {
  load_key(key, 0);
  add({"lookup",
       {{NFTNL_EXPR_LOOKUP_SREG, reg(0)},
        {NFTNL_EXPR_LOOKUP_SET, std::string(map)},
        {NFTNL_EXPR_LOOKUP_DREG, std::uint32_t{NFT_REG_VERDICT}},
        {NFTNL_EXPR_LOOKUP_FLAGS, std::uint32_t{0}}}});
  say(fmt::format("{} vmap @{}", key_text(key), map));
  return *this;
}

RuleBuilder& RuleBuilder::dnat_map(int family, const std::vector<Field>& key, std::string_view map) {
  need_family(family);
  load_key(key, 0);
  add({"lookup",
       {{NFTNL_EXPR_LOOKUP_SREG, reg(0)},
        {NFTNL_EXPR_LOOKUP_SET, std::string(map)},
        {NFTNL_EXPR_LOOKUP_DREG, reg(0)},
        {NFTNL_EXPR_LOOKUP_FLAGS, std::uint32_t{0}}}});
  add({"nat",
       {{NFTNL_EXPR_NAT_TYPE, std::uint32_t{NFT_NAT_DNAT}},
        {NFTNL_EXPR_NAT_FAMILY, std::uint32_t{family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6}},
        {NFTNL_EXPR_NAT_REG_ADDR_MIN, reg(0)},
        {NFTNL_EXPR_NAT_REG_ADDR_MAX, reg(0)},
        {NFTNL_EXPR_NAT_REG_PROTO_MIN, reg(family == AF_INET ? 1 : 4)},
        {NFTNL_EXPR_NAT_REG_PROTO_MAX, reg(family == AF_INET ? 1 : 4)},
        {NFTNL_EXPR_NAT_FLAGS, std::uint32_t{NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED}}}});
  say(fmt::format("dnat {} to {} map @{}", ip_word(family), key_text(key), map));
  return *this;
}

RuleBuilder& RuleBuilder::dnat(const IpAddr& to, std::uint16_t port) {
  need_family(to.family());
  const unsigned port_word = to.is_v4() ? 1 : 4;
  add({"immediate", {{NFTNL_EXPR_IMM_DREG, reg(0)}, {NFTNL_EXPR_IMM_DATA, Bytes::ip(to)}}});
  add({"immediate", {{NFTNL_EXPR_IMM_DREG, reg(port_word)}, {NFTNL_EXPR_IMM_DATA, Bytes::be16(port)}}});
  add({"nat",
       {{NFTNL_EXPR_NAT_TYPE, std::uint32_t{NFT_NAT_DNAT}},
        {NFTNL_EXPR_NAT_FAMILY, std::uint32_t{to.is_v4() ? NFPROTO_IPV4 : NFPROTO_IPV6}},
        {NFTNL_EXPR_NAT_REG_ADDR_MIN, reg(0)},
        {NFTNL_EXPR_NAT_REG_ADDR_MAX, reg(0)},
        {NFTNL_EXPR_NAT_REG_PROTO_MIN, reg(port_word)},
        {NFTNL_EXPR_NAT_REG_PROTO_MAX, reg(port_word)},
        {NFTNL_EXPR_NAT_FLAGS, std::uint32_t{NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED}}}});
  say(to.is_v4() ? fmt::format("dnat ip to {}:{}", to, port) : fmt::format("dnat ip6 to [{}]:{}", to, port));
  return *this;
}

RuleBuilder& RuleBuilder::redirect() {
  add({"redir", {}});
  say("redirect");
  return *this;
}

RuleBuilder& RuleBuilder::snat(const IpAddr& to) {
  need_family(to.family());
  add({"immediate", {{NFTNL_EXPR_IMM_DREG, reg(0)}, {NFTNL_EXPR_IMM_DATA, Bytes::ip(to)}}});
  add({"nat",
       {{NFTNL_EXPR_NAT_TYPE, std::uint32_t{NFT_NAT_SNAT}},
        {NFTNL_EXPR_NAT_FAMILY, std::uint32_t{to.is_v4() ? NFPROTO_IPV4 : NFPROTO_IPV6}},
        {NFTNL_EXPR_NAT_REG_ADDR_MIN, reg(0)},
        {NFTNL_EXPR_NAT_REG_ADDR_MAX, reg(0)},
        {NFTNL_EXPR_NAT_FLAGS, std::uint32_t{NF_NAT_RANGE_MAP_IPS}}}});
  say(fmt::format("snat {} to {}", ip_word(to.family()), to));
  return *this;
}

RuleBuilder& RuleBuilder::masquerade(bool fully_random) {
  Expr e{"masq", {}};
  if (fully_random) e.attrs.emplace_back(NFTNL_EXPR_MASQ_FLAGS, std::uint32_t{NF_NAT_RANGE_PROTO_RANDOM_FULLY});
  add(std::move(e));
  say(fully_random ? "masquerade fully-random" : "masquerade");
  return *this;
}

RuleBuilder& RuleBuilder::reject_tcp_reset() {
  load(meta_l4proto(), 0);
  cmp(0, Op::kEq, Bytes::u8(IPPROTO_TCP));
  add({"reject",
       {{NFTNL_EXPR_REJECT_TYPE, std::uint32_t{NFT_REJECT_TCP_RST}}, {NFTNL_EXPR_REJECT_CODE, std::uint8_t{0}}}});
  say("meta l4proto tcp reject with tcp reset");
  return *this;
}

RuleBuilder& RuleBuilder::reject_port_unreachable() {
  // The inet form; in an inet table nft prints it without its default code.
  add({"reject",
       {{NFTNL_EXPR_REJECT_TYPE, std::uint32_t{NFT_REJECT_ICMPX_UNREACH}},
        {NFTNL_EXPR_REJECT_CODE, std::uint8_t{NFT_REJECT_ICMPX_PORT_UNREACH}}}});
  say("reject");
  return *this;
}

RuleBuilder& RuleBuilder::comment(std::string text) {
  rule_.comment = std::move(text);
  return *this;
}

}  // namespace hawser::nft
