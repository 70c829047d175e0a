// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/tracer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include "lib/nft/text.h"

namespace hawser::proxy {
namespace {

using nft::Bytes;
using nft::Expr;
using nft::Verdict;
using Hook = nft::BaseHook::Hook;
using End = Trace::End;

constexpr int kMaxDepth = 16;  // NFT_JUMP_STACK_SIZE

std::uint32_t number(const Expr& e, std::uint16_t attr) {
  for (const auto& [id, value] : e.attrs) {
    if (id != attr) continue;
    if (const auto* v = std::get_if<std::uint32_t>(&value)) return *v;
    if (const auto* v = std::get_if<std::uint8_t>(&value)) return *v;
  }
  return 0;
}

template <class T>
const T* value(const Expr& e, std::uint16_t attr) {
  for (const auto& [id, v] : e.attrs) {
    if (id == attr) return std::get_if<T>(&v);
  }
  return nullptr;
}

std::size_t offset_of(std::uint32_t reg) {
  return reg >= NFT_REG32_00 ? (reg - NFT_REG32_00) * 4 : (reg - NFT_REG_1) * 16;
}

// One packet's way through the chains.
class Run {
 public:
  Run(const TraceInput& in, const Packet& p) : in_(in), p_(p) {}

  Trace run() {
    hook(p_.interface.empty() ? Hook::kOutput : Hook::kPrerouting);
    if (ended()) return std::move(t_);
    const bool here = in_.is_local(p_.destination);
    if (here) hook(Hook::kInput);
    if (!here && !p_.interface.empty() && !ended()) hook(Hook::kForward);
    if (!here && !ended()) hook(Hook::kPostrouting);
    t_.mark = mark_;
    return std::move(t_);
  }

 private:
  enum class Flow : std::uint8_t { kNext, kBreak, kReturn, kStop };

  [[nodiscard]] bool ended() const { return t_.end == End::kDrop || t_.end == End::kReset || t_.end == End::kReject; }

  void hook(Hook h) {
    std::vector<const nft::FakeNft::ChainModel*> chains;
    for (const auto& [name, c] : in_.table.chains) {
      if (c.spec.base && c.spec.base->hook == h) chains.push_back(&c);
    }
    std::ranges::sort(chains, {}, [](const auto* c) { return c->spec.base->priority; });
    for (const auto* c : chains) {
      if (!ended()) (void)chain(*c, 0);
    }
  }

  Flow chain(const nft::FakeNft::ChainModel& c, int depth) {
    if (depth > kMaxDepth) {
      t_.steps.push_back("too deep");
      t_.end = End::kDrop;
      return Flow::kStop;
    }
    for (const auto& r : c.rules) {
      Flow f = Flow::kNext;
      for (const Expr& e : r.rule.exprs) {
        f = expression(e, depth);
        if (f != Flow::kNext) break;
      }
      if (f != Flow::kBreak) t_.steps.push_back(c.spec.name + ": " + r.rule.text);
      if (f == Flow::kStop) return f;
      if (f == Flow::kReturn) return Flow::kNext;
    }
    return Flow::kNext;
  }

  Flow verdict(std::int32_t code, const std::string& to, int depth) {
    if (code == NF_DROP) t_.end = End::kDrop;
    if (code == NF_DROP || code == NF_ACCEPT) return Flow::kStop;
    if (code == NFT_RETURN) return Flow::kReturn;
    const auto c = in_.table.chains.find(to);
    // After a goto the calling chain does not go on; it is as if that chain returned.
    const Flow f = c == in_.table.chains.end() ? Flow::kNext : chain(c->second, depth + 1);
    return f == Flow::kNext && code == NFT_GOTO ? Flow::kReturn : f;
  }

  Flow expression(const Expr& e, int depth) {
    if (e.name == "meta") return meta(e);
    if (e.name == "payload") return payload(e);
    if (e.name == "cmp") return cmp(e);
    if (e.name == "bitwise") return bitwise(e);
    if (e.name == "lookup") return lookup(e, depth);
    if (e.name == "immediate") return immediate(e, depth);
    if (e.name == "fib") return fib(e);
    if (e.name == "ct") return ct(e);
    if (e.name == "nat") return nat(e);
    if (e.name == "numgen") {
      store(number(e, NFTNL_EXPR_NG_DREG), Bytes::host32(in_.random % number(e, NFTNL_EXPR_NG_MODULUS)).view());
      return Flow::kNext;
    }
    if (e.name == "reject") {
      t_.end = number(e, NFTNL_EXPR_REJECT_TYPE) == NFT_REJECT_TCP_RST ? End::kReset : End::kReject;
      return Flow::kStop;
    }
    if (e.name == "redir") {
      t_.end = End::kRedirected;
      p_.destination = *IpAddr::parse(p_.destination.is_v4() ? "127.0.0.1" : "::1");
      return Flow::kStop;
    }
    if (e.name == "masq") {
      t_.masquerade = true;
      return Flow::kStop;
    }
    return Flow::kNext;  // counter, limit; dynset: nobody is remembered
  }

  void store(std::uint32_t reg, std::span<const std::uint8_t> b) {
    const std::size_t at = offset_of(reg);
    std::memset(regs_.data() + at, 0, (b.size() + 3) & ~std::size_t{3});
    std::memcpy(regs_.data() + at, b.data(), b.size());
  }
  [[nodiscard]] Bytes load(std::uint32_t reg, std::size_t n) const { return Bytes({regs_.data() + offset_of(reg), n}); }
  Flow put(const Expr& e, std::uint16_t dreg, const Bytes& b) {
    store(number(e, dreg), b.view());
    return Flow::kNext;
  }

  Flow meta(const Expr& e) {
    const std::uint32_t key = number(e, NFTNL_EXPR_META_KEY);
    if (value<std::uint32_t>(e, NFTNL_EXPR_META_SREG) != nullptr) {
      const Bytes b = load(number(e, NFTNL_EXPR_META_SREG), 4);
      std::memcpy(&mark_, b.view().data(), 4);
      return Flow::kNext;
    }
    switch (key) {
      case NFT_META_L4PROTO:
        return put(e, NFTNL_EXPR_META_DREG, Bytes::u8(p_.protocol));
      case NFT_META_NFPROTO:
        return put(e, NFTNL_EXPR_META_DREG, Bytes::u8(p_.destination.is_v4() ? NFPROTO_IPV4 : NFPROTO_IPV6));
      case NFT_META_MARK:
        return put(e, NFTNL_EXPR_META_DREG, Bytes::host32(mark_));
      case NFT_META_IIFNAME: {
        std::array<std::uint8_t, IFNAMSIZ> name{};
        std::memcpy(name.data(), p_.interface.data(), std::min<std::size_t>(p_.interface.size(), IFNAMSIZ - 1));
        return put(e, NFTNL_EXPR_META_DREG, Bytes(name));
      }
      default:
        return Flow::kBreak;
    }
  }

  Flow payload(const Expr& e) {
    const std::uint32_t offset = number(e, NFTNL_EXPR_PAYLOAD_OFFSET);
    const bool v4 = p_.destination.is_v4();
    Bytes b;
    if (number(e, NFTNL_EXPR_PAYLOAD_BASE) == NFT_PAYLOAD_NETWORK_HEADER) {
      b = Bytes::ip(offset == (v4 ? 12u : 8u) ? p_.source : p_.destination);
    } else {
      const bool icmp = p_.protocol == IPPROTO_ICMP || p_.protocol == IPPROTO_ICMPV6;
      b = offset == 0 && icmp ? Bytes::u8(static_cast<std::uint8_t>(p_.destination_port))
                              : Bytes::be16(icmp ? 0 : p_.destination_port);
    }
    return put(e, NFTNL_EXPR_PAYLOAD_DREG, b);
  }

  Flow cmp(const Expr& e) {
    const Bytes& want = *value<Bytes>(e, NFTNL_EXPR_CMP_DATA);
    const bool same = load(number(e, NFTNL_EXPR_CMP_SREG), want.size()) == want;
    return same == (number(e, NFTNL_EXPR_CMP_OP) == NFT_CMP_EQ) ? Flow::kNext : Flow::kBreak;
  }

  Flow bitwise(const Expr& e) {
    const Bytes& mask = *value<Bytes>(e, NFTNL_EXPR_BITWISE_MASK);
    const Bytes& bits = *value<Bytes>(e, NFTNL_EXPR_BITWISE_XOR);
    const Bytes from = load(number(e, NFTNL_EXPR_BITWISE_SREG), mask.size());
    std::array<std::uint8_t, 16> out{};
    for (std::size_t i = 0; i < mask.size(); ++i)
      out[i] = static_cast<std::uint8_t>((from.view()[i] & mask.view()[i]) ^ bits.view()[i]);
    store(number(e, NFTNL_EXPR_BITWISE_DREG), {out.data(), mask.size()});
    return Flow::kNext;
  }

  static const nft::Element* find(const nft::FakeNft::SetModel& s, const Bytes& key) {
    const auto exact = s.elements.find({key, false});
    if (exact != s.elements.end()) return &exact->second;
    if (!s.spec.interval) return nullptr;
    auto next = s.elements.upper_bound({key, true});
    if (next == s.elements.begin()) return nullptr;
    const nft::Element& e = std::prev(next)->second;
    const auto* end = std::get_if<nft::RangeEnd>(&e.data);
    if (s.spec.has_range_ends()) return end != nullptr && key <= end->key ? &e : nullptr;
    return e.interval_end ? nullptr : &e;
  }

  Flow lookup(const Expr& e, int depth) {
    const auto s = in_.table.sets.find(*value<std::string>(e, NFTNL_EXPR_LOOKUP_SET));
    if (s == in_.table.sets.end()) return Flow::kBreak;
    std::size_t n = 0;
    for (const nft::DataType t : s->second.spec.key) n += (nft::type_bytes(t) + 3) & ~std::size_t{3};
    const nft::Element* found = find(s->second, load(number(e, NFTNL_EXPR_LOOKUP_SREG), n));
    const bool inverted = (number(e, NFTNL_EXPR_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV) != 0;
    if ((found != nullptr) == inverted) return Flow::kBreak;
    const auto* dreg = value<std::uint32_t>(e, NFTNL_EXPR_LOOKUP_DREG);
    if (dreg == nullptr) return Flow::kNext;
    if (const auto* v = std::get_if<Verdict>(&found->data)) return verdict(nft::verdict_code(v->kind), v->chain, depth);
    store(*dreg, std::get<Bytes>(found->data).view());
    return Flow::kNext;
  }

  Flow immediate(const Expr& e, int depth) {
    if (const auto* b = value<Bytes>(e, NFTNL_EXPR_IMM_DATA)) return put(e, NFTNL_EXPR_IMM_DREG, *b);
    const auto* to = value<std::string>(e, NFTNL_EXPR_IMM_CHAIN);
    return verdict(static_cast<std::int32_t>(number(e, NFTNL_EXPR_IMM_VERDICT)), to != nullptr ? *to : "", depth);
  }

  Flow fib(const Expr& e) {
    const bool daddr = (number(e, NFTNL_EXPR_FIB_FLAGS) & NFTA_FIB_F_DADDR) != 0;
    const bool local = in_.is_local(daddr ? p_.destination : p_.source);
    return put(e, NFTNL_EXPR_FIB_DREG, Bytes::host32(local ? RTN_LOCAL : RTN_UNICAST));
  }

  // A new connection, translated or not yet.
  Flow ct(const Expr& e) {
    constexpr std::uint32_t kNew = 8, kDnat = 1u << 5;
    switch (number(e, NFTNL_EXPR_CT_KEY)) {
      case NFT_CT_STATE:
        return put(e, NFTNL_EXPR_CT_DREG, Bytes::host32(kNew));
      case NFT_CT_STATUS:
        return put(e, NFTNL_EXPR_CT_DREG, Bytes::host32(t_.end == End::kTranslated ? kDnat : 0));
      case NFT_CT_DST_IP:
      case NFT_CT_DST_IP6:
        return put(e, NFTNL_EXPR_CT_DREG, Bytes::ip(original_.destination));
      case NFT_CT_PROTO_DST:
        return put(e, NFTNL_EXPR_CT_DREG, Bytes::be16(original_.destination_port));
      default:
        return Flow::kBreak;
    }
  }

  Flow nat(const Expr& e) {
    const std::size_t n = p_.destination.is_v4() ? 4 : 16;
    const Bytes addr = load(number(e, NFTNL_EXPR_NAT_REG_ADDR_MIN), n);
    const Bytes port = load(number(e, NFTNL_EXPR_NAT_REG_PROTO_MIN), 2);
    t_.target =
        Target{*IpAddr::from_bytes(addr.view()), static_cast<std::uint16_t>(port.view()[0] << 8 | port.view()[1])};
    t_.end = End::kTranslated;
    p_.destination = t_.target->addr;
    p_.destination_port = t_.target->port;
    return Flow::kStop;
  }

  const TraceInput& in_;
  Packet p_;
  const Packet original_ = p_;
  std::array<std::uint8_t, 64> regs_{};
  std::uint32_t mark_ = 0;
  Trace t_;
};

}  // namespace

Trace trace(const TraceInput& in, const Packet& p) {
  return Run(in, p).run();
}

}  // namespace hawser::proxy
