// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/host_ports/plan.h"

#include <algorithm>
#include <array>
#include <set>

#include <sys/socket.h>

#include "lib/nft/rule.h"

namespace hawser::cni {
namespace {

using nft::Bytes;
using nft::DataType;
using nft::Element;
using Hook = nft::BaseHook::Hook;

// Before proxyd's nat chains, which are at the usual -100: a host port is the narrower rule.
constexpr std::int32_t kBeforeDnat = -105;
constexpr std::int32_t kBeforeSnat = 95;
constexpr std::array<int, 2> kFamilies = {AF_INET, AF_INET6};

std::string named(const char* what, int family) {
  return fmt::format("{}{}", what, family == AF_INET ? 4 : 6);
}
DataType address_type(int family) {
  return family == AF_INET ? DataType::kIpv4Addr : DataType::kIpv6Addr;
}

Element mapping_element(const PortMapping& m, const IpAddr& to) {
  Element e;
  if (m.host_ip) e.key.field(Bytes::ip(m.host_ip));
  e.key.field(Bytes::u8(m.protocol)).field(Bytes::be16(m.host_port));
  Bytes target;
  target.field(Bytes::ip(to)).field(Bytes::be16(m.container_port));
  e.data = target;
  return e;
}

void add_translation(std::vector<nft::Rule>& rules, const char* chain, int family) {
  const std::vector<nft::Field> service{nft::meta_l4proto(), nft::th_dport()};
  auto with_address = service;
  with_address.insert(with_address.begin(), nft::ip_daddr(family));
  rules.push_back(nft::RuleBuilder(chain).dnat_map(family, with_address, named("at", family)).build());
  rules.push_back(
      nft::RuleBuilder(chain).match_fib_daddr_local().dnat_map(family, service, named("any", family)).build());
}

void add_masquerade(std::vector<nft::Rule>& rules, int family) {
  constexpr const char* kChain = "postrouting";
  const auto source = nft::ip_saddr(family);
  const auto destination = nft::ip_daddr(family);
  if (family == AF_INET) {
    rules.push_back(nft::RuleBuilder(kChain)
                        .match_ct_status_dnat()
                        .match_oifname("lo", nft::Op::kNeq)
                        .match_cidr(source, nft::Op::kEq, Cidr(IpAddr::v4(0x7f000000), 8))
                        .masquerade(false)
                        .build());
  }
  rules.push_back(nft::RuleBuilder(kChain)
                      .match_ct_status_dnat()
                      .match_set({source, destination}, named("hairpin", family))
                      .masquerade(false)
                      .build());
  rules.push_back(nft::RuleBuilder(kChain)
                      .match_ct_status_dnat()
                      .match_set({source}, named("bridged", family))
                      .match_set({destination}, named("bridged", family))
                      .masquerade(false)
                      .build());
}

void add_record(const HostPortRecord& r, int family, Elements& out) {
  auto to = std::ranges::find(r.addresses, family, &IpAddr::family);
  if (to == r.addresses.end()) return;
  for (const auto& m : r.ports) {
    if (m.host_ip && m.host_ip.family() != family) continue;
    out[named(m.host_ip ? "at" : "any", family)].push_back(mapping_element(m, *to));
  }
  Element self;
  self.key.field(Bytes::ip(*to)).field(Bytes::ip(*to));
  out[named("hairpin", family)].push_back(self);
}

// Overlapping ranges cannot be elements of one set.
std::vector<Element> subnet_elements(const std::vector<HostPortRecord>& records, int family) {
  std::vector<Cidr> all;
  for (const auto& r : records) {
    for (const auto& c : r.bridged) {
      if (c.family() == family) all.push_back(c.network());
    }
  }
  std::ranges::sort(all, {}, &Cidr::prefix);
  std::vector<Cidr> kept;
  std::vector<Element> out;
  for (const auto& c : all) {
    if (std::ranges::any_of(kept, [&](const Cidr& k) { return k.overlaps(c); })) continue;
    kept.push_back(c);
    for (auto& e : nft::interval_elements(c)) out.push_back(std::move(e));
  }
  return out;
}

auto key_of(const Element& e) {
  return std::pair(e.key, e.interval_end);
}
bool before(const Element& a, const Element& b) {
  return key_of(a) < key_of(b);
}

void build_table(nft::Transaction& t) {
  t.add_table("ports of this node that lead to containers");
  for (const auto& c : host_port_chains()) t.add(c);
  for (const auto& s : host_port_sets()) t.add(s);
  for (const auto& r : host_port_rules()) t.add(r);
}

void change_set(nft::Transaction& t, const std::string& set, const std::vector<Element>& have,
                const std::vector<Element>& want) {
  auto in = [](const std::vector<Element>& list, const Element& e) { return std::ranges::find(list, e) != list.end(); };
  for (const auto& e : have) {
    if (!in(want, e)) t.delete_element(set, e.key, e.interval_end);
  }
  for (const auto& e : want) {
    if (!in(have, e)) t.add_element(set, e);
  }
}

}  // namespace

std::vector<nft::Chain> host_port_chains() {
  auto chain = [](const char* name, Hook hook, std::int32_t priority) {
    return nft::Chain{name, nft::BaseHook{"nat", hook, priority}};
  };
  return {chain("prerouting", Hook::kPrerouting, kBeforeDnat), chain("output", Hook::kOutput, kBeforeDnat),
          chain("postrouting", Hook::kPostrouting, kBeforeSnat)};
}

std::vector<nft::Set> host_port_sets() {
  std::vector<nft::Set> out;
  for (int family : kFamilies) {
    const auto address = address_type(family);
    const std::vector<DataType> service{DataType::kInetProto, DataType::kInetService};
    const std::vector<DataType> target{address, DataType::kInetService};
    out.push_back(
        {.name = named("at", family), .key = {address, DataType::kInetProto, DataType::kInetService}, .data = target});
    out.push_back({.name = named("any", family), .key = service, .data = target});
    out.push_back({.name = named("hairpin", family), .key = {address, address}});
    out.push_back({.name = named("bridged", family), .key = {address}, .interval = true});
  }
  return out;
}

std::vector<nft::Rule> host_port_rules() {
  std::vector<nft::Rule> rules;
  for (const char* chain : {"prerouting", "output"}) {
    for (int family : kFamilies) add_translation(rules, chain, family);
  }
  for (int family : kFamilies) add_masquerade(rules, family);
  return rules;
}

Elements host_port_elements(const std::vector<HostPortRecord>& records) {
  Elements out;
  for (int family : kFamilies) {
    for (const auto& r : records) add_record(r, family, out);
    auto subnets = subnet_elements(records, family);
    if (!subnets.empty()) out[named("bridged", family)] = std::move(subnets);
  }
  for (auto& [set, elements] : out) {
    std::ranges::stable_sort(elements, before);
    auto twice = std::ranges::unique(elements, {}, key_of);
    elements.erase(twice.begin(), twice.end());
  }
  return out;
}

bool host_port_table_right(const nft::TableState& have) {
  const auto chains = host_port_chains();
  const auto sets = host_port_sets();
  const auto rules = host_port_rules();
  if (!have.exists || have.chains.size() != chains.size() || have.sets.size() != sets.size()) return false;
  for (const auto& s : sets) {
    auto it = have.sets.find(s.name);
    if (it == have.sets.end() || !it->second.spec.compatible(s)) return false;
  }
  return std::ranges::all_of(chains, [&](const nft::Chain& c) {
    std::vector<std::string> want;
    for (const auto& r : rules) {
      if (r.chain == c.name) want.push_back(nft::fingerprint(r));
    }
    auto it = have.chains.find(c.name);
    return it != have.chains.end() && it->second.spec == c &&
           std::ranges::equal(it->second.rules, want, {}, &nft::RuleState::fingerprint);
  });
}

nft::Transaction host_port_plan(const nft::TableState& have, const Elements& have_elements, const Elements& want) {
  nft::Transaction t(nft::Family::kInet, kHostPortTable);
  if (want.empty()) {
    if (have.exists) t.delete_table();
    return t;
  }
  const bool right = host_port_table_right(have);
  if (!right) {
    if (have.exists) t.delete_table();
    build_table(t);
  }
  static const std::vector<Element> kNone;
  for (const auto& s : host_port_sets()) {
    auto stands = have_elements.find(s.name);
    auto wanted = want.find(s.name);
    change_set(t, s.name, !right || stands == have_elements.end() ? kNone : stands->second,
               wanted == want.end() ? kNone : wanted->second);
  }
  return t;
}

std::string host_port_conflict(const HostPortRecord& wanted, const std::vector<HostPortRecord>& others) {
  for (const auto& m : wanted.ports) {
    for (const auto& o : others) {
      // The kernel knows an element by its key; one host IP and "every address" are different keys, which is what
      // Kubernetes asks for too (FEATURES C75): the narrower one wins.
      auto same = [&](const PortMapping& p) {
        return p.host_port == m.host_port && p.protocol == m.protocol && p.host_ip == m.host_ip;
      };
      if (o.owner != wanted.owner && std::ranges::any_of(o.ports, same))
        return fmt::format("host port {} is held by container {}", text_of(m), o.owner.container);
    }
  }
  return {};
}

}  // namespace hawser::cni
