// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/transaction.h"

#include <algorithm>
#include <iterator>
#include <type_traits>

#include "lib/nft/text.h"

namespace hawser::nft {
namespace {

constexpr std::size_t kMaxName = 255;     // NFT_NAME_MAXLEN less the terminating zero
constexpr std::size_t kMaxComment = 128;  // NFTNL_UDATA_COMMENT_MAXLEN
constexpr std::size_t kMaxKeyBytes = Bytes::kMax;

}  // namespace

Transaction::Transaction(Family family, std::string table) : family_(family), table_(std::move(table)) {
  name_ok("table", table_);
}

void Transaction::latch(Error e) {
  if (!error_) error_ = std::move(e);
}

bool Transaction::name_ok(std::string_view what, std::string_view name) {
  if (name.empty() || name.size() > kMaxName) {
    latch({EINVAL, fmt::format("{} name \"{}\": must have 1 to {} characters", what, name, kMaxName), {}});
  }
  return !error_;
}

void Transaction::put(Change c, std::size_t touched) {
  ops_.push_back(std::move(c));
  count_ += touched;
}

std::vector<Transaction> Transaction::parts(std::size_t most) && {
  std::vector<Transaction> r;
  if (error_ || count_ <= most) {
    r.push_back(std::move(*this));
    return r;
  }
  const auto last = [&]() -> Transaction& {
    if (r.empty() || r.back().count_ >= most) r.emplace_back(family_, table_);
    return r.back();
  };
  const auto split = [&](auto& op) {
    for (std::size_t at = 0; at < op.elements.size();) {
      Transaction& t = last();
      const std::size_t n = std::min(op.elements.size() - at, most - t.count_);
      std::remove_cvref_t<decltype(op)> some;
      some.set = op.set;
      if constexpr (requires { op.is_map; }) some.is_map = op.is_map;
      const auto from = std::make_move_iterator(op.elements.begin() + static_cast<std::ptrdiff_t>(at));
      some.elements.assign(from, from + static_cast<std::ptrdiff_t>(n));
      t.put(std::move(some), n);
      at += n;
    }
  };
  for (Change& c : ops_) {
    if (auto* add = std::get_if<AddElements>(&c))
      split(*add);
    else if (auto* remove = std::get_if<DeleteElements>(&c))
      split(*remove);
    else
      last().put(std::move(c), 1);
  }
  return r;
}

void Transaction::add_table(std::string comment) {
  if (error_) return;
  ops_.emplace_back(AddTable{std::move(comment)});
  ++count_;
}

void Transaction::delete_table() {
  if (error_) return;
  ops_.emplace_back(DeleteTable{});
  ++count_;
}

void Transaction::add(Chain c) {
  if (error_ || !name_ok("chain", c.name)) return;
  ops_.emplace_back(AddChain{std::move(c)});
  ++count_;
}

void Transaction::add(Rule r) {
  if (error_ || !name_ok("chain", r.chain)) return;
  if (r.comment.size() > kMaxComment) {
    return latch(
        {EINVAL, fmt::format("comment of a rule in chain {}: longer than {} characters", r.chain, kMaxComment), {}});
  }
  ops_.emplace_back(AddRule{std::move(r)});
  ++count_;
}

void Transaction::add(Set s) {
  if (error_ || !name_ok("set", s.name)) return;
  if (s.key.empty()) return latch({EINVAL, fmt::format("set {}: no key type", s.name), {}});
  if (s.dynamic && s.size == 0) return latch({EINVAL, fmt::format("set {}: dynamic needs a size", s.name), {}});
  ops_.emplace_back(AddSet{std::move(s)});
  ++count_;
}

void Transaction::add_element(std::string_view set, Element e) {
  if (error_) return;
  if (e.key.empty() || e.key.size() > kMaxKeyBytes)
    return latch({EINVAL, fmt::format("set {}: an element without a key", set), {}});
  const bool is_map = std::holds_alternative<Bytes>(e.data) || std::holds_alternative<Verdict>(e.data);
  auto* last = ops_.empty() ? nullptr : std::get_if<AddElements>(&ops_.back());
  if (last == nullptr || last->set != set || last->is_map != is_map) {
    if (!name_ok("set", set)) return;
    last = &std::get<AddElements>(ops_.emplace_back(AddElements{std::string(set), is_map, {}}));
  }
  last->elements.push_back(std::move(e));
  ++count_;
}

void Transaction::delete_element(std::string_view set, const Bytes& key, bool interval_end) {
  delete_element(set, Element{.key = key, .interval_end = interval_end});
}

void Transaction::delete_element(std::string_view set, Element e) {
  if (error_) return;
  if (e.key.empty()) return latch({EINVAL, fmt::format("set {}: an element without a key", set), {}});
  auto* last = ops_.empty() ? nullptr : std::get_if<DeleteElements>(&ops_.back());
  if (last == nullptr || last->set != set) {
    if (!name_ok("set", set)) return;
    last = &std::get<DeleteElements>(ops_.emplace_back(DeleteElements{std::string(set), {}}));
  }
  last->elements.push_back(std::move(e));
  ++count_;
}

void Transaction::delete_chain(std::string_view name) {
  if (error_ || !name_ok("chain", name)) return;
  ops_.emplace_back(DeleteChain{std::string(name)});
  ++count_;
}

void Transaction::delete_rule(std::string_view chain, std::uint64_t handle) {
  if (error_ || !name_ok("chain", chain)) return;
  ops_.emplace_back(DeleteRule{std::string(chain), handle});
  ++count_;
}

void Transaction::delete_set(std::string_view name) {
  if (error_ || !name_ok("set", name)) return;
  ops_.emplace_back(DeleteSet{std::string(name)});
  ++count_;
}

void Transaction::flush_chain(std::string_view name) {
  if (error_ || !name_ok("chain", name)) return;
  ops_.emplace_back(FlushChain{std::string(name)});
  ++count_;
}

void Transaction::flush_set(std::string_view name) {
  if (error_ || !name_ok("set", name)) return;
  ops_.emplace_back(FlushSet{std::string(name)});
  ++count_;
}

std::string Transaction::text() const {
  struct Print {
    std::string& out;
    void operator()(const AddTable&) { out += "add table\n"; }
    void operator()(const DeleteTable&) { out += "delete table\n"; }
    void operator()(const AddChain& o) { out += fmt::format("add chain {}\n", chain_text(o.chain)); }
    void operator()(const DeleteChain& o) { out += fmt::format("delete chain {}\n", o.name); }
    void operator()(const AddRule& o) { out += fmt::format("add rule {} {}\n", o.rule.chain, rule_text(o.rule)); }
    void operator()(const DeleteRule& o) { out += fmt::format("delete rule {} handle {}\n", o.chain, o.handle); }
    void operator()(const FlushChain& o) { out += fmt::format("flush chain {}\n", o.name); }
    void operator()(const AddSet& o) { out += fmt::format("add {} {}\n", o.set.is_map() ? "map" : "set", o.set.name); }
    void operator()(const DeleteSet& o) { out += fmt::format("delete set {}\n", o.name); }
    void operator()(const FlushSet& o) { out += fmt::format("flush set {}\n", o.name); }
    void operator()(const AddElements& o) {
      for (const Element& e : o.elements) out += fmt::format("add element {} {}\n", o.set, raw_element_text(e));
    }
    void operator()(const DeleteElements& o) {
      for (const Element& e : o.elements) out += fmt::format("delete element {} {}\n", o.set, raw_element_text(e));
    }
  };
  std::string out;
  for (const Change& op : ops_) std::visit(Print{out}, op);
  return out;
}

}  // namespace hawser::nft
