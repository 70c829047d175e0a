// SPDX-License-Identifier: Apache-2.0
#include "proxyd/inspect/compare.h"

#include <algorithm>
#include <set>
#include <variant>

#include <sys/socket.h>

#include "lib/nft/text.h"

namespace hawser::proxy {
namespace {

using Texts = std::vector<std::string>;

void add_verdict(const std::string& set, const SideId& id, const std::optional<nft::Verdict>& v, Texts& out) {
  if (v) out.push_back(element_words(set, {.key = key_of(id), .data = *v}));
}

Texts elements_of(const SideId& id, const Side& side, Part part) {
  Texts out;
  switch (part) {
    case Part::kFrontend:
      add_verdict(verdict_map(id), id, side.verdict, out);
      break;
    case Part::kSources:
      if (side.limited) out.push_back(element_words(set_name(SetRole::kLimited, id.family()), {.key = key_of(id)}));
      for (const Cidr& c : side.sources)
        out.push_back(element_words(set_name(SetRole::kSources, id.family()), source_element(id, c)));
      break;
    case Part::kAffinity:
      add_verdict(remember_map(id), id, side.remember, out);
      break;
    case Part::kEndpoints:
      for (std::size_t i = 0; i < side.slots.size(); ++i) {
        if (!side.slots[i].addr) continue;
        out.push_back(element_words(
            slot_map(id), {.key = slot_key(id, static_cast<std::uint32_t>(i)), .data = bytes_of(side.slots[i])}));
      }
      break;
  }
  std::ranges::sort(out);
  return out;
}

struct DriftLines {
  const std::set<std::string>& unused;
  std::vector<std::string>& out;
  void operator()(const nft::AddTable&) { out.emplace_back("the table is missing, or made anew"); }
  void operator()(const nft::DeleteTable&) { out.emplace_back("the table has chains or sets of another kind"); }
  void operator()(const nft::AddChain& c) { out.push_back("lacks chain " + c.chain.name); }
  void operator()(const nft::DeleteChain&) {}
  void operator()(const nft::AddRule& c) {
    out.push_back("lacks rule " + c.rule.chain + ": " + nft::rule_text(c.rule));
  }
  void operator()(const nft::DeleteRule& c) { out.push_back(fmt::format("also has a rule in {}", c.chain)); }
  void operator()(const nft::FlushChain& c) {
    if (!unused.contains(c.name)) out.push_back("other rules in chain " + c.name);
  }
  void operator()(const nft::AddSet& c) { out.push_back("lacks set " + c.set.name); }
  void operator()(const nft::DeleteSet& c) { out.push_back("also has set " + c.name); }
  void operator()(const nft::FlushSet& c) { out.push_back("other elements in set " + c.name); }
  void operator()(const nft::AddElements& c) {
    for (const auto& e : c.elements) out.push_back("lacks " + element_words(c.set, e));
  }
  void operator()(const nft::DeleteElements& c) {
    for (const auto& e : c.elements) out.push_back("also has " + element_words(c.set, e));
  }
};

std::string service_words(const netlink::IpvsKey& key, std::string_view scheduler, std::uint32_t persistence) {
  const std::string text = fmt::format("ipvs {} {}", key.text(), scheduler);
  return persistence == 0 ? text : fmt::format("{} persistent {}", text, persistence);
}

std::string destination_words(const netlink::IpvsKey& key, const Target& t, std::uint32_t weight) {
  return fmt::format("ipvs {} -> {} weight {}", key.text(), netlink::IpvsDestination{t.addr, t.port, weight}.text(),
                     weight);
}

// Lines of `v`. Of weight 0 only what `other` has too: it waits for its connections to end, or has none to wait for.
Texts lines_of(const netlink::IpvsKey& key, const VirtualService* v, const VirtualService* other) {
  Texts out;
  if (v == nullptr) return out;
  out.push_back(service_words(key, v->scheduler, v->persistence_seconds));
  for (const auto& [t, weight] : v->weights) {
    if (weight > 0 || (other != nullptr && other->weights.contains(t)))
      out.push_back(destination_words(key, t, weight));
  }
  return out;
}

void ipvs_drift(const IpvsFacts& f, Texts& out) {
  const IpvsPlan p = plan_ipvs(f.found, f.wanted, f.exclude);
  const auto verb = [](netlink::IpvsVerb v) {
    return v == netlink::IpvsVerb::kAdd   ? "lacks "
           : v == netlink::IpvsVerb::kSet ? "has another kind of "
                                          : "also has ";
  };
  for (const auto& c : p.services)
    out.push_back(verb(c.verb) + service_words(c.service.key, c.service.scheduler, c.service.persistence_seconds));
  for (const auto* changes : {&p.serve, &p.retire}) {
    for (const auto& c : *changes) {
      const Target t{c.destination.address, c.destination.port};
      out.push_back(verb(c.verb) + destination_words(c.service, t, c.destination.weight));
    }
  }
  for (const auto& key : p.gone) out.push_back("also has ipvs " + key.text());
  for (const IpAddr& a : f.wanted_addresses)
    if (!std::ranges::binary_search(f.addresses, a)) out.push_back(fmt::format("lacks {} on {}", a, kIpvsDevice));
  for (const IpAddr& a : f.addresses)
    if (!std::ranges::binary_search(f.wanted_addresses, a))
      out.push_back(fmt::format("also has {} on {}", a, kIpvsDevice));
}

constexpr Part kParts[] = {Part::kFrontend, Part::kSources, Part::kAffinity, Part::kEndpoints};

}  // namespace

std::string element_words(const std::string& set, const nft::Element& e) {
  for (const int family : {AF_INET, AF_INET6}) {
    for (const SetRole role : all_roles()) {
      if (set_name(role, family) == set)
        return fmt::format("{} {{ {} }}", set, nft::element_text(set_spec(role, family), e));
    }
  }
  return fmt::format("{} {{ {} }}", set, nft::raw_element_text(e));
}

void append(Elements&& more, Elements& to) {
  to.wanted.insert(to.wanted.end(), more.wanted.begin(), more.wanted.end());
  to.found.insert(to.found.end(), more.found.begin(), more.found.end());
}

Elements compare(const SideId& id, const WantedSide* side, const TableImage& image, Part part) {
  Elements r;
  const auto there = image.sides.find(id);
  const Side have = there == image.sides.end() ? Side{} : there->second;
  r.found = elements_of(id, have, part);
  if (side == nullptr) return r;
  Side want = side->side;
  want.slots = assign_slots(have.slots, want.slots);
  r.wanted = elements_of(id, want, part);
  return r;
}

Elements compare(const Frontend& f, const TableImage& image) {
  Elements r;
  const auto sides = sides_of(f);
  for (const auto& [id, side] : sides) {
    for (const Part part : kParts) append(compare(id, &side, image, part), r);
  }
  if (sides.size() == 1) {
    // The other look-up's maps must not have this key.
    SideId local = sides[0].first;
    local.local = true;
    for (const Part part : kParts) {
      if (part == Part::kFrontend || part == Part::kEndpoints) append(compare(local, nullptr, image, part), r);
    }
  }
  return r;
}

Elements compare(const netlink::IpvsKey& key, const IpvsFacts& f) {
  const auto in = [&](const VirtualServices& all) {
    const auto at = all.find(key);
    return at == all.end() ? nullptr : &at->second;
  };
  const VirtualService *want = in(f.wanted), *found = in(f.found);
  return {lines_of(key, want, found), lines_of(key, found, want)};
}

std::vector<std::string> drift(const Facts& f) {
  Found found = f.kernel.found;
  const Steps steps = plan_full(found, all_wants(f.model.rules_state()), f.model.options);
  // Unused chains wait for the next Service with so many endpoints; a repair empties and then deletes them.
  std::set<std::string> unused;
  std::vector<nft::Change> changes;
  for (const auto* t : {&steps.prepare, &steps.main}) {
    for (const nft::Change& c : t->ops()) {
      if (const auto* gone = std::get_if<nft::DeleteChain>(&c)) unused.insert(gone->name);
      changes.push_back(c);
    }
  }
  std::vector<std::string> r;
  for (const nft::Change& c : changes) std::visit(DriftLines{unused, r}, c);
  if (f.ipvs) ipvs_drift(*f.ipvs, r);
  return r;
}

}  // namespace hawser::proxy
