// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/plan.h"

#include <algorithm>
#include <set>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

constexpr int kFamilies[] = {AF_INET, AF_INET6};
constexpr std::uint32_t kMaxSlots =
    1u << 16;  // more in one frontend than any cluster has; bounds what a strange element can cost

// Element changes by set, deletions first: messages carry many elements of one set.
class ElementChanges {
 public:
  void remove(const std::string& set, const nft::Bytes& key) { remove(set, nft::Element{.key = key}); }
  void remove(const std::string& set, nft::Element e) { sets_[set].first.push_back(std::move(e)); }
  void add(const std::string& set, nft::Element e) { sets_[set].second.push_back(std::move(e)); }
  void put_into(nft::Transaction& t) {
    for (auto& [set, changes] : sets_) {
      for (auto& e : changes.first) t.delete_element(set, std::move(e));
      for (auto& e : changes.second) t.add_element(set, std::move(e));
    }
  }

 private:
  std::map<std::string, std::pair<std::vector<nft::Element>, std::vector<nft::Element>>> sets_;
};

void change_verdict(const std::string& map, const nft::Bytes& key, const std::optional<nft::Verdict>& have,
                    const std::optional<nft::Verdict>& want, ElementChanges& out) {
  if (have == want) return;
  if (have) out.remove(map, key);
  if (want) out.add(map, {.key = key, .data = *want});
}

void change_side(const SideId& id, const Side& have, const Side& want, ElementChanges& out) {
  const nft::Bytes key = key_of(id);
  change_verdict(verdict_map(id), key, have.verdict, want.verdict, out);
  change_verdict(remember_map(id), key, have.remember, want.remember, out);
  const std::string slots = slot_map(id);
  for (std::size_t i = 0; i < std::max(have.slots.size(), want.slots.size()); ++i) {
    const Target none;
    const Target& h = i < have.slots.size() ? have.slots[i] : none;
    const Target& w = i < want.slots.size() ? want.slots[i] : none;
    if (h == w) continue;
    const nft::Bytes k = slot_key(id, static_cast<std::uint32_t>(i));
    if (h.addr) out.remove(slots, k);
    if (w.addr) out.add(slots, {.key = k, .data = bytes_of(w)});
  }
}

// Into `early` what limits more, or otherwise; into `late` what no longer does.
void change_sources(const SideId& id, const Side& have, const Side& want, ElementChanges& early, ElementChanges& late) {
  if (have.limited == want.limited && have.sources == want.sources) return;
  ElementChanges& out = want.limited ? early : late;
  const std::string limited = set_name(SetRole::kLimited, id.family());
  const std::string sources = set_name(SetRole::kSources, id.family());
  for (const Cidr& c : have.sources) {
    if (!std::ranges::binary_search(want.sources, c)) out.remove(sources, source_element(id, c));
  }
  for (const Cidr& c : want.sources) {
    if (!std::ranges::binary_search(have.sources, c)) out.add(sources, source_element(id, c));
  }
  if (have.limited && !want.limited) out.remove(limited, key_of(id));
  if (!have.limited && want.limited) out.add(limited, {.key = key_of(id)});
}

// The chains a side names, less the fixed ones.
std::vector<std::string> chains_of(const Side& s) {
  std::vector<std::string> r;
  for (const auto* v : {&s.verdict, &s.remember}) {
    if (*v && !(*v)->chain.empty() && (*v)->chain != kRejectChain) r.push_back((*v)->chain);
  }
  return r;
}

void add_chain(const std::string& name, std::vector<nft::Rule> rules, nft::Transaction& t) {
  t.add(nft::Chain{name, {}});
  for (auto& r : rules) t.add(std::move(r));
}

void add_missing_chains(const WantedSide& w, const TableImage& image, const LayoutOptions& o,
                        std::set<std::string>& added, nft::Transaction& t) {
  const auto missing = [&](const std::string& name) {
    return !image.chains.contains(name) && added.insert(name).second;
  };
  if (w.pick) {
    if (const auto name = chain_name(*w.pick); missing(name)) add_chain(name, pick_rules(*w.pick, o), t);
  }
  if (w.remember) {
    if (const auto name = chain_name(*w.remember); missing(name)) add_chain(name, remember_rules(*w.remember), t);
  }
}

nft::Element address_element(SetRole role, const IpAddr& a) {
  return role == SetRole::kHairpin ? hairpin_element(a) : nft::Element{.key = nft::Bytes::ip(a)};
}

// Addresses that are in a set as long as a Service has them.
void change_addresses(SetRole role, const std::map<IpAddr, std::int64_t>& differences,
                      std::map<IpAddr, std::uint32_t>& image, ElementChanges& out) {
  for (const auto& [a, difference] : differences) {
    const auto it = image.find(a);
    const bool had = it != image.end();
    const std::int64_t now = (had ? std::int64_t{it->second} : 0) + difference;
    if (now > 0 && !had) out.add(set_name(role, a.family()), address_element(role, a));
    if (now <= 0 && had) out.remove(set_name(role, a.family()), address_element(role, a));
    if (now > 0) image[a] = static_cast<std::uint32_t>(now);
    if (now <= 0 && had) image.erase(it);
  }
}

void delete_unused_chains(TableImage& image, std::size_t keep, nft::Transaction& t) {
  std::vector<std::string> unused;
  for (const auto& [name, uses] : image.chains) {
    if (uses == 0) unused.push_back(name);
  }
  if (unused.size() <= keep) return;
  for (const auto& name : unused) t.flush_chain(name);  // all first: strange ones may name each other
  for (const auto& name : unused) {
    t.delete_chain(name);
    image.chains.erase(name);
  }
}

bool same_rules(const std::vector<nft::RuleState>& have, const std::vector<nft::Rule>& want) {
  return std::ranges::equal(have, want, [](const nft::RuleState& h, const nft::Rule& w) {
    return h.fingerprint == nft::fingerprint(w) && h.comment == w.comment;
  });
}

void repair_rules(const std::string& chain, const std::vector<nft::RuleState>& have, const std::vector<nft::Rule>& want,
                  nft::Transaction& t) {
  if (same_rules(have, want)) return;
  if (!have.empty()) t.flush_chain(chain);
  for (const auto& r : want) t.add(r);
}

std::vector<nft::Element> range_elements(SetRole role, int family, const LayoutOptions& o) {
  std::vector<nft::Element> r;
  for (const Cidr& c : fixed_ranges(role, family, o)) {
    for (auto& e : nft::interval_elements(c)) r.push_back(std::move(e));
  }
  return r;
}

bool same_elements(std::vector<nft::Element> a, std::vector<nft::Element> b) {
  const auto order = [](const nft::Element& x, const nft::Element& y) {
    return std::tie(x.key, x.interval_end) < std::tie(y.key, y.interval_end);
  };
  std::ranges::sort(a, order);
  std::ranges::sort(b, order);
  return std::ranges::equal(
      a, b, [](const auto& x, const auto& y) { return x.key == y.key && x.interval_end == y.interval_end; });
}

bool is_fixed_range(SetRole role) {
  return role == SetRole::kPods || role == SetRole::kNodePortAddresses || role == SetRole::kServiceRanges;
}

void put_ranges(const Found& f, const LayoutOptions& o, nft::Transaction& t) {
  for (const int family : kFamilies) {
    for (const SetRole role : all_roles()) {
      if (!is_fixed_range(role)) continue;
      const std::string set = set_name(role, family);
      const auto want = range_elements(role, family, o);
      const auto have = f.ranges.find(set);
      if (have != f.ranges.end() ? same_elements(have->second, want) : want.empty()) continue;
      if (have != f.ranges.end()) t.flush_set(set);
      for (const auto& e : want) t.add_element(set, e);
    }
  }
}

// Role's keys as SideIds have them.
struct RoleOfElements {
  bool slot = false, remember = false;
  SideId like;
};
std::optional<RoleOfElements> frontend_role(SetRole role, int family) {
  RoleOfElements r;
  r.like.v6 = family == AF_INET6;
  const bool node_port = role == SetRole::kNodePorts || role == SetRole::kLocalNodePorts ||
                         role == SetRole::kNodePortEndpoints || role == SetRole::kLocalNodePortEndpoints ||
                         role == SetRole::kAffinityNodePorts;
  if (!node_port) r.like.addr = family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(std::array<std::uint8_t, 16>{});
  r.like.local = role == SetRole::kLocalServices || role == SetRole::kLocalNodePorts ||
                 role == SetRole::kLocalEndpoints || role == SetRole::kLocalNodePortEndpoints;
  r.slot = role == SetRole::kEndpoints || role == SetRole::kLocalEndpoints || role == SetRole::kNodePortEndpoints ||
           role == SetRole::kLocalNodePortEndpoints;
  r.remember = role == SetRole::kAffinityServices || role == SetRole::kAffinityNodePorts;
  if (role == SetRole::kAffinity || role == SetRole::kNodePortAffinity || role == SetRole::kHairpin ||
      role == SetRole::kClusterIps || role == SetRole::kLeft || is_fixed_range(role)) {
    return std::nullopt;
  }
  return r;
}

bool note_address(SetRole role, int family, const nft::Element& e, TableImage& image) {
  const std::size_t n = family == AF_INET ? 4 : 16;
  if (e.key.size() < n) return false;
  auto a = IpAddr::from_bytes(e.key.sub(0, n));
  if (!a || address_element(role, *a).key != e.key) return false;
  (role == SetRole::kHairpin ? image.hairpin : image.cluster_ips)[*a] = 1;
  return true;
}

bool note_source(const SideId& id, const nft::Element& e, TableImage& image) {
  const auto range = source_of(e, id);
  if (!range) return false;
  auto& sources = image.sides[id].sources;
  sources.insert(std::ranges::lower_bound(sources, *range), *range);
  return true;
}

bool note_slot(const KeyParts& k, const nft::Bytes& data, TableImage& image) {
  const auto t = target_of(data, k.id.family());
  if (!t || bytes_of(*t) != data || k.slot >= kMaxSlots) return false;
  auto& slots = image.sides[k.id].slots;
  if (slots.size() <= k.slot) slots.resize(k.slot + 1);
  slots[k.slot] = *t;
  return true;
}

void plan_sides(const Wants& w, TableImage& image, ElementChanges& early, ElementChanges& out) {
  static const Side kNothing;
  for (const auto& [id, wanted] : w.sides) {
    const auto it = image.sides.find(id);
    const Side& have = it == image.sides.end() ? kNothing : it->second;
    Side want = wanted ? wanted->side : Side{};
    want.slots = assign_slots(have.slots, want.slots);
    if (have == want) continue;
    change_side(id, have, want, out);
    change_sources(id, have, want, early, out);
    for (const auto& c : chains_of(want)) ++image.chains[c];
    for (const auto& c : chains_of(have)) {
      if (auto n = image.chains.find(c); n != image.chains.end() && n->second > 0) --n->second;
    }
    if (wanted) {
      image.sides[id] = std::move(want);
      continue;
    }
    image.sides.erase(id);
    if (flows_are_removed(id.protocol) && !id.local) {
      out.add(set_name(SetRole::kLeft, id.family()), left_element(id));
      image.left.insert(id);
    }
  }
}

}  // namespace

Wants all_wants(const DesiredState& s) {
  Wants w;
  for (const auto& service : s.services) {
    for (const Frontend& f : service->frontends) {
      if (w.sides.contains(main_side(f))) {
        w.contested.push_back(main_side(f));
        continue;
      }
      for (auto& [id, side] : sides_of(f)) w.sides.emplace(id, std::move(side));
    }
    for (const IpAddr& a : service->local_addrs) ++w.hairpin[a];
    for (const IpAddr& a : service->cluster_ips) ++w.cluster_ips[a];
  }
  return w;
}

std::vector<Wants> parts(Wants w, std::size_t most) {
  std::vector<Wants> r;
  while (w.sides.size() > most) {
    Wants& part = r.emplace_back();
    while (part.sides.size() < most) part.sides.insert(w.sides.extract(w.sides.begin()));
  }
  r.push_back(std::move(w));
  return r;
}

bool changed_wants(const DesiredState& from, const DesiredState& to, const TableImage& image,
                   const std::vector<SideId>& contested, Wants& out) {
  std::vector<const ServiceState*> gone, come;
  ServiceList::compare(
      from.services, to.services, [&](const ServiceState& s) { gone.push_back(&s); },
      [&](const ServiceState& s) { come.push_back(&s); });
  const auto is_contested = [&](const SideId& id) { return std::ranges::find(contested, id) != contested.end(); };
  for (const ServiceState* s : gone) {
    for (const Frontend& f : s->frontends) {
      if (!contested.empty() && is_contested(main_side(f))) return false;
      for (const auto& [id, side] : sides_of(f)) out.sides[id] = std::nullopt;
    }
    for (const IpAddr& addr : s->local_addrs) --out.hairpin[addr];
    for (const IpAddr& addr : s->cluster_ips) --out.cluster_ips[addr];
  }
  for (const ServiceState* s : come) {
    for (const Frontend& f : s->frontends) {
      const auto id = main_side(f);
      const auto mine = out.sides.find(id);
      const bool taken = mine != out.sides.end() ? mine->second.has_value() : image.sides.contains(id);
      if (taken) return false;
      for (auto& [side_id, side] : sides_of(f)) out.sides[side_id] = std::move(side);
    }
    for (const IpAddr& addr : s->local_addrs) ++out.hairpin[addr];
    for (const IpAddr& addr : s->cluster_ips) ++out.cluster_ips[addr];
  }
  return true;
}

void plan_changes(const Wants& w, TableImage& image, const LayoutOptions& o, std::size_t keep_unused, Steps& steps) {
  std::set<std::string> added;
  for (const auto& [id, wanted] : w.sides) {
    if (wanted) add_missing_chains(*wanted, image, o, added, steps.chains());
  }
  ElementChanges early, out;
  plan_sides(w, image, early, out);
  change_addresses(SetRole::kHairpin, w.hairpin, image.hairpin, out);
  change_addresses(SetRole::kClusterIps, w.cluster_ips, image.cluster_ips, out);
  early.put_into(steps.chains());
  out.put_into(steps.elements());
  delete_unused_chains(image, keep_unused, steps.main);
}

void note_element(SetRole role, int family, const nft::Element& e, Found& f) {
  const std::string set = set_name(role, family);
  if (is_fixed_range(role)) {
    f.ranges[set].push_back(e);
    return;
  }
  bool known = false;
  if (role == SetRole::kHairpin || role == SetRole::kClusterIps) {
    known = note_address(role, family, e, f.image);
  } else if (role == SetRole::kLeft) {
    if (const auto id = left_of(e, family)) known = f.image.left.insert(*id).second;
  } else if (role == SetRole::kLimited || role == SetRole::kSources) {
    const auto k = parts_of(e.key, frontend_role(role, family)->like, KeyTail::kNone);
    if (k && role == SetRole::kSources) known = note_source(k->id, e, f.image);
    if (k && role == SetRole::kLimited && key_of(k->id) == e.key) known = f.image.sides[k->id].limited = true;
  } else if (const auto r = frontend_role(role, family)) {
    const auto k = parts_of(e.key, r->like, r->slot ? KeyTail::kSlot : KeyTail::kNone);
    const auto* data = std::get_if<nft::Bytes>(&e.data);
    const auto* verdict = std::get_if<nft::Verdict>(&e.data);
    if (k && r->slot && data != nullptr && slot_key(k->id, k->slot) == e.key) known = note_slot(*k, *data, f.image);
    if (k && !r->slot && verdict != nullptr && key_of(k->id) == e.key) {
      Side& side = f.image.sides[k->id];
      (r->remember ? side.remember : side.verdict) = *verdict;
      known = true;
    }
  }
  if (!known) f.strange[set].push_back(e);
}

bool must_rebuild(const nft::TableState& table) {
  if (!table.exists) return true;
  for (const auto& c : fixed_chains()) {
    const auto it = table.chains.find(c.name);
    if (it != table.chains.end() && it->second.spec != c) return true;
  }
  for (const int family : kFamilies) {
    for (const SetRole role : all_roles()) {
      const auto it = table.sets.find(set_name(role, family));
      if (it != table.sets.end() && !it->second.spec.compatible(set_spec(role, family))) return true;
    }
  }
  return false;
}

namespace {

void plan_fixed(const Found& f, const LayoutOptions& o, Steps& steps) {
  nft::Transaction& t = steps.elements();
  for (const auto& c : fixed_chains()) {
    if (!f.table.chains.contains(c.name)) t.add(c);
  }
  std::set<std::string> known;
  for (const int family : kFamilies) {
    for (const SetRole role : all_roles()) {
      const nft::Set s = set_spec(role, family);
      known.insert(s.name);
      if (!f.table.sets.contains(s.name)) t.add(s);
    }
  }
  std::map<std::string, std::vector<nft::Rule>> rules;
  for (auto& r : fixed_rules(o)) rules[r.chain].push_back(std::move(r));
  static const nft::ChainState kEmpty;
  for (const auto& c : fixed_chains()) {
    const auto it = f.table.chains.find(c.name);
    const auto& have = it == f.table.chains.end() ? kEmpty.rules : it->second.rules;
    repair_rules(c.name, have, rules[c.name], c.base ? steps.main : t);
  }
  put_ranges(f, o, t);
  for (const auto& [set, elements] : f.strange) {
    for (const auto& e : elements) t.delete_element(set, e);
  }
}

// Rules of pick and remember chains that are there already.
void plan_chain_rules(const Found& f, const Wants& w, const LayoutOptions& o, nft::Transaction& t) {
  std::set<std::string> done;
  const auto repair = [&](const std::string& name, const auto& rules_of) {
    const auto it = f.table.chains.find(name);
    if (it != f.table.chains.end() && done.insert(name).second) repair_rules(name, it->second.rules, rules_of(), t);
  };
  for (const auto& [id, side] : w.sides) {
    if (side && side->pick) repair(chain_name(*side->pick), [&] { return pick_rules(*side->pick, o); });
    if (side && side->remember) repair(chain_name(*side->remember), [&] { return remember_rules(*side->remember); });
  }
}

void count_chain_uses(Found& f) {
  for (const auto& [name, c] : f.table.chains) {
    if (std::ranges::none_of(fixed_chains(), [&](const auto& x) { return x.name == name; })) f.image.chains[name] = 0;
  }
  for (const auto& [id, side] : f.image.sides) {
    for (const auto& c : chains_of(side)) {
      if (auto it = f.image.chains.find(c); it != f.image.chains.end()) ++it->second;
    }
  }
}

}  // namespace

Steps plan_full(Found& f, const Wants& all, const LayoutOptions& o) {
  Steps steps;
  nft::Transaction& t = steps.main;
  steps.unseen = std::ranges::none_of(
      f.table.chains, [](const auto& c) { return c.second.spec.base.has_value() && !c.second.rules.empty(); });
  if (must_rebuild(f.table)) {
    steps.together = !steps.unseen;
    nft::Transaction& first = steps.chains();
    first.add_table("Services, by hawser-proxyd");
    if (f.table.exists) {
      // In one transaction: no packet finds the table missing.
      first.delete_table();
      first.add_table("Services, by hawser-proxyd");
    }
    f = {};
  }
  plan_fixed(f, o, steps);
  count_chain_uses(f);
  Wants w = all;
  for (const auto& [id, side] : f.image.sides) w.sides.try_emplace(id, std::nullopt);
  for (const auto& [a, n] : f.image.hairpin) w.hairpin[a] -= n;
  for (const auto& [a, n] : f.image.cluster_ips) w.cluster_ips[a] -= n;
  plan_chain_rules(f, w, o, steps.elements());
  plan_changes(w, f.image, o, 0, steps);
  for (const auto& [name, set] : f.table.sets) {
    bool ours = false;
    for (const int family : kFamilies) {
      ours = ours || std::ranges::any_of(all_roles(), [&](SetRole r) { return set_name(r, family) == name; });
    }
    if (!ours) t.delete_set(name);
  }
  return steps;
}

}  // namespace hawser::proxy
