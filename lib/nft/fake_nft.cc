// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/fake_nft.h"

#include <algorithm>

#include "lib/nft/rule.h"
#include "lib/nft/text.h"

namespace hawser::nft {
namespace {

bool names_chain(const Element& e, std::string_view chain) {
  const auto* v = std::get_if<Verdict>(&e.data);
  return v != nullptr && v->chain == chain;
}

bool names(const Rule& r, std::string_view object) {
  for (const Expr& e : r.exprs) {
    for (const auto& [id, value] : e.attrs) {
      const auto* s = std::get_if<std::string>(&value);
      if (s != nullptr && *s == object) return true;
    }
  }
  return false;
}

bool chain_named(const FakeNft::TableModel& t, std::string_view chain) {
  for (const auto& [name, c] : t.chains) {
    if (std::ranges::any_of(c.rules, [&](const auto& r) { return names(r.rule, chain); })) return true;
  }
  for (const auto& [name, s] : t.sets) {
    if (std::ranges::any_of(s.elements, [&](const auto& e) { return names_chain(e.second, chain); })) return true;
  }
  return false;
}

// One change on a copy of the tables.
class Applier {
 public:
  Applier(FakeNft::Tables& tables, std::uint64_t& handle, const Transaction& t)
      : tables_(tables), handle_(handle), key_(t.family(), t.table()) {}

  Result<> operator()(const AddTable& o) {
    auto [it, added] = tables_.try_emplace(key_);
    if (added) it->second = {.handle = handle_++, .comment = o.comment};
    return {};
  }
  Result<> operator()(const DeleteTable&) {
    if (tables_.erase(key_) == 0) return fail_errno(ENOENT, "nft: delete table");
    return {};
  }
  Result<> operator()(const AddChain& o) {
    auto* t = table();
    if (t == nullptr) return fail_errno(ENOENT, "nft: add chain {}", o.chain.name);
    auto [it, added] = t->chains.try_emplace(o.chain.name);
    if (!added && !(it->second.spec == o.chain)) return fail_errno(EEXIST, "nft: add chain {}", o.chain.name);
    if (added) it->second = {.spec = o.chain, .handle = handle_++};
    return {};
  }
  Result<> operator()(const DeleteChain& o) {
    auto c = chain(o.name);
    if (!c) return propagate(c);
    if (!(*c)->rules.empty() || chain_named(*table(), o.name)) return fail_errno(EBUSY, "nft: delete chain {}", o.name);
    table()->chains.erase(o.name);
    return {};
  }
  Result<> operator()(const AddRule& o) {
    auto c = chain(o.rule.chain);
    if (!c) return propagate(c);
    (*c)->rules.push_back({o.rule, handle_++});
    return {};
  }
  Result<> operator()(const DeleteRule& o) {
    auto c = chain(o.chain);
    if (!c) return propagate(c);
    if (std::erase_if((*c)->rules, [&](const auto& r) { return r.handle == o.handle; }) == 0) {
      return fail_errno(ENOENT, "nft: delete rule {} of {}", o.handle, o.chain);
    }
    return {};
  }
  Result<> operator()(const FlushChain& o) {
    auto c = chain(o.name);
    if (!c) return propagate(c);
    (*c)->rules.clear();
    return {};
  }
  Result<> operator()(const AddSet& o) {
    auto* t = table();
    if (t == nullptr) return fail_errno(ENOENT, "nft: add set {}", o.set.name);
    auto [it, added] = t->sets.try_emplace(o.set.name);
    if (!added && !it->second.spec.compatible(o.set)) return fail_errno(EEXIST, "nft: add set {}", o.set.name);
    if (added) it->second = {.spec = o.set, .handle = handle_++, .elements = {}};
    return {};
  }
  Result<> operator()(const DeleteSet& o) {
    auto s = set(o.name);
    if (!s) return propagate(s);
    for (const auto& [name, c] : table()->chains) {
      if (std::ranges::any_of(c.rules, [&](const auto& r) { return names(r.rule, o.name); })) {
        return fail_errno(EBUSY, "nft: delete set {}", o.name);
      }
    }
    table()->sets.erase(o.name);
    return {};
  }
  Result<> operator()(const FlushSet& o) {
    auto s = set(o.name);
    if (!s) return propagate(s);
    (*s)->elements.clear();
    return {};
  }
  Result<> operator()(const AddElements& o) {
    auto s = set(o.set);
    if (!s) return propagate(s);
    for (const Element& e : o.elements) {
      const auto* v = std::get_if<Verdict>(&e.data);
      if (v != nullptr && !v->chain.empty() && !table()->chains.contains(v->chain)) {
        return fail_errno(ENOENT, "nft: add elements to {}: chain {}", o.set, v->chain);
      }
      const bool has_data = std::holds_alternative<Bytes>(e.data) || v != nullptr;
      const bool has_end = std::holds_alternative<RangeEnd>(e.data);
      if (((*s)->spec.is_map() != has_data && !e.interval_end) || (*s)->spec.has_range_ends() != has_end) {
        return fail_errno(EINVAL, "nft: add elements to {}", o.set);
      }
      auto [it, added] = (*s)->elements.try_emplace({e.key, e.interval_end}, e);
      if (!added && it->second.data != e.data) return fail_errno(EEXIST, "nft: add elements to {}", o.set);
    }
    return {};
  }
  Result<> operator()(const DeleteElements& o) {
    auto s = set(o.set);
    if (!s) return propagate(s);
    for (const Element& e : o.elements) {
      const auto it = (*s)->elements.find({e.key, e.interval_end});
      const auto* end = std::get_if<RangeEnd>(&e.data);
      if (it == (*s)->elements.end() || (end != nullptr && it->second.data != e.data))
        return fail_errno(ENOENT, "nft: delete elements from {}", o.set);
      (*s)->elements.erase(it);
    }
    return {};
  }

 private:
  FakeNft::TableModel* table() {
    auto it = tables_.find(key_);
    return it == tables_.end() ? nullptr : &it->second;
  }
  Result<FakeNft::ChainModel*> chain(const std::string& name) {
    auto* t = table();
    if (t == nullptr || !t->chains.contains(name)) return fail_errno(ENOENT, "nft: chain {}", name);
    return &t->chains[name];
  }
  Result<FakeNft::SetModel*> set(const std::string& name) {
    auto* t = table();
    if (t == nullptr || !t->sets.contains(name)) return fail_errno(ENOENT, "nft: set {}", name);
    return &t->sets[name];
  }

  FakeNft::Tables& tables_;
  std::uint64_t& handle_;
  std::pair<Family, std::string> key_;
};

}  // namespace

Result<> FakeNft::apply(const Transaction& t) {
  if (t.error()) return std::unexpected(*t.error());
  if (t.empty()) return {};
  if (fail_next_) return std::unexpected(*std::exchange(fail_next_, std::nullopt));
  if (fail_after_ == 1) return fail(EIO, "made to fail");
  if (fail_after_ > 1) --fail_after_;
  Tables next = tables_;
  Applier apply(next, next_handle_, t);
  for (const Change& c : t.ops()) {
    if (auto r = std::visit(apply, c); !r) return r;
  }
  tables_ = std::move(next);
  ++generation_;
  ++applied_;
  return {};
}

Result<TableState> FakeNft::read_table(Family family, std::string_view table) {
  TableState s;
  const auto it = tables_.find({family, std::string(table)});
  if (it == tables_.end()) return s;
  s.exists = true;
  s.handle = it->second.handle;
  for (const auto& [name, c] : it->second.chains) {
    ChainState& out = s.chains[name];
    out.spec = c.spec;
    out.handle = c.handle;
    for (const RuleModel& r : c.rules) out.rules.push_back({r.handle, fingerprint(r.rule), r.rule.comment});
  }
  for (const auto& [name, x] : it->second.sets) s.sets[name] = {.spec = x.spec, .handle = x.handle};
  return s;
}

Result<> FakeNft::read_elements(Family family, std::string_view table, const Set& set,
                                const std::function<void(const Element&)>& each, const std::function<void()>&) {
  const auto it = tables_.find({family, std::string(table)});
  if (it == tables_.end()) return fail_errno(ENOENT, "read nft set {}", set.name);
  const auto s = it->second.sets.find(set.name);
  if (s == it->second.sets.end()) return fail_errno(ENOENT, "read nft set {}", set.name);
  for (const auto& [key, e] : s->second.elements) each(e);
  return {};
}

std::string FakeNft::list(Family family, std::string_view table) const {
  const auto it = tables_.find({family, std::string(table)});
  if (it == tables_.end()) return {};
  std::string out = fmt::format("table {} {} {{\n", family_text(family), table);
  if (!it->second.comment.empty()) out += fmt::format("\tcomment \"{}\"\n", it->second.comment);
  for (const auto& [name, s] : it->second.sets) {
    out += fmt::format("\t{} {} {{\n\t\ttype {}\n", s.spec.is_map() ? "map" : "set", name, set_type_text(s.spec));
    for (const auto& [key, e] : s.elements) out += fmt::format("\t\telement {}\n", element_text(s.spec, e));
    out += "\t}\n";
  }
  for (const auto& [name, c] : it->second.chains) {
    out += fmt::format("\tchain {} {{\n", name);
    if (c.spec.base) out += fmt::format("\t\t{}\n", chain_text(c.spec).substr(name.size() + 1));
    for (const RuleModel& r : c.rules) out += fmt::format("\t\t{}\n", rule_text(r.rule));
    out += "\t}\n";
  }
  return out + "}\n";
}

}  // namespace hawser::nft
