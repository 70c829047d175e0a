// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/masquerade.h"

#include <algorithm>

#include <sys/socket.h>

#include "lib/nft/rule.h"

namespace hawser::overlay {
namespace {

constexpr const char* kChain = "postrouting";
constexpr std::int32_t kSourceNatPriority = 100;  // NF_IP_PRI_NAT_SRC

nft::Chain base_chain() {
  return {
      .name = kChain,
      .base = nft::BaseHook{.type = "nat", .hook = nft::BaseHook::Hook::kPostrouting, .priority = kSourceNatPriority}};
}

Cidr multicast(int family) {
  return family == AF_INET ? *Cidr::parse("224.0.0.0/4") : *Cidr::parse("ff00::/8");
}

class Builder {
 public:
  Builder(const MasqueradeSpec& spec, int family) : spec_(spec), family_(family) {}

  std::vector<nft::Rule> build() {
    each(spec_.own_pods, [&](const Cidr& own) {
      add(rule().match_cidr(nft::ip_daddr(family_), nft::Op::kEq, own).verdict(kReturn), "to our own pods");
    });
    each(spec_.cluster, [&](const Cidr& from) {
      each(spec_.cluster, [&](const Cidr& to) { keep(from, to, "pod to pod"); });
      each(spec_.not_masqueraded, [&](const Cidr& to) { keep(from, to, "--non-masquerade-cidr"); });
      keep(from, multicast(family_), "multicast");
    });
    each(spec_.cluster, [&](const Cidr& from) {
      add(rule().match_cidr(nft::ip_saddr(family_), nft::Op::kEq, from).masquerade(spec_.fully_random),
          "pod to outside");
    });
    // By here the source is outside the cluster.
    each(spec_.cluster, [&](const Cidr& to) {
      add(rule().match_cidr(nft::ip_daddr(family_), nft::Op::kEq, to).masquerade(spec_.fully_random),
          "node to remote pod");
    });
    return std::move(rules_);
  }

 private:
  static inline const nft::Verdict kReturn{nft::Verdict::Kind::kReturn, {}};

  static nft::RuleBuilder rule() { return nft::RuleBuilder(kChain, nft::Family::kInet); }
  template <class Fn>
  void each(const std::vector<Cidr>& cidrs, Fn fn) {
    for (const auto& c : cidrs) {
      if (c.family() == family_) fn(c);
    }
  }
  void keep(const Cidr& from, const Cidr& to, const char* why) {
    add(rule()
            .match_cidr(nft::ip_saddr(family_), nft::Op::kEq, from)
            .match_cidr(nft::ip_daddr(family_), nft::Op::kEq, to)
            .verdict(kReturn),
        why);
  }
  void add(nft::RuleBuilder& b, const char* why) { rules_.push_back(b.comment(why).build()); }

  const MasqueradeSpec& spec_;
  int family_;
  std::vector<nft::Rule> rules_;
};

}  // namespace

std::vector<nft::Rule> masquerade_rules(const MasqueradeSpec& spec) {
  std::vector<nft::Rule> all;
  for (int family : {AF_INET, AF_INET6}) {
    for (auto& r : Builder(spec, family).build()) all.push_back(std::move(r));
  }
  return all;
}

std::optional<nft::Transaction> masquerade_plan(const MasqueradeSpec& spec, const nft::TableState& have) {
  const auto rules = masquerade_rules(spec);
  auto chain = have.chains.find(kChain);
  bool right = have.exists && have.chains.size() == 1 && chain != have.chains.end() &&
               chain->second.spec == base_chain() &&
               std::ranges::equal(chain->second.rules, rules, {}, &nft::RuleState::fingerprint, nft::fingerprint);
  if (right) return std::nullopt;
  nft::Transaction t(nft::Family::kInet, kMasqueradeTable);
  t.add_table("pod traffic that leaves the cluster");
  if (have.exists) {
    // One transaction: no packet sees the table half made.
    t.delete_table();
    t.add_table("pod traffic that leaves the cluster");
  }
  t.add(base_chain());
  for (const auto& r : rules) t.add(r);
  return t;
}

Result<bool> ensure_masquerade(nft::NftRunner& nft, const MasqueradeSpec& spec) {
  auto have = nft.read_table(nft::Family::kInet, kMasqueradeTable);
  if (!have) return propagate(have, "masquerade");
  auto t = masquerade_plan(spec, *have);
  if (!t) return false;
  if (auto r = nft.apply(*t); !r) return propagate(r, "masquerade");
  return true;
}

Result<bool> remove_masquerade(nft::NftRunner& nft) {
  auto have = nft.read_table(nft::Family::kInet, kMasqueradeTable);
  if (!have) return propagate(have, "masquerade");
  if (!have->exists) return false;
  nft::Transaction t(nft::Family::kInet, kMasqueradeTable);
  t.add_table();
  t.delete_table();
  if (auto r = nft.apply(t); !r) return propagate(r, "masquerade");
  return true;
}

}  // namespace hawser::overlay
