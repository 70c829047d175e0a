// SPDX-License-Identifier: Apache-2.0
// Transaction: an ordered list of changes to one nftables table that the kernel makes all together or not at all.
// Filled by one thread, then given to NftRunner::apply(). The first mistake in filling (a name too long, an element
// that does not fit its set) is latched and returned by apply(); later calls are ignored, so that callers build without
// checking each step.
//
// Order matters as in the kernel: an object is added before it is named, and no longer named before it is deleted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/base/result.h"
#include "lib/nft/object.h"

namespace hawser::nft {

struct AddTable {
  std::string comment;
};
struct DeleteTable {};
struct AddChain {
  Chain chain;
};
struct DeleteChain {
  std::string name;  // must be empty and unused
};
struct AddRule {
  Rule rule;  // appended to its chain
};
struct DeleteRule {
  std::string chain;
  std::uint64_t handle = 0;
};
struct FlushChain {
  std::string name;
};
struct AddSet {
  Set set;
};
struct DeleteSet {
  std::string name;
};
struct FlushSet {
  std::string name;
};
struct AddElements {
  std::string set;
  bool is_map = false;
  std::vector<Element> elements;
};
struct DeleteElements {
  std::string set;
  std::vector<Element> elements;  // data ignored, but not a RangeEnd
};
using Change = std::variant<AddTable, DeleteTable, AddChain, DeleteChain, AddRule, DeleteRule, FlushChain, AddSet,
                            DeleteSet, FlushSet, AddElements, DeleteElements>;

class Transaction {
 public:
  Transaction(Family family, std::string table);

  void add_table(std::string comment = {});
  void
  delete_table();  // with everything in it; an error if it does not exist (add_table() first makes sure that it does)
  void add(Chain c);
  void add(Rule r);
  void add(Set s);
  void add_element(std::string_view set, Element e);  // runs of calls for one set share messages
  void delete_element(std::string_view set, const Bytes& key, bool interval_end = false);
  void delete_element(std::string_view set, Element e);
  void delete_chain(std::string_view name);
  void delete_rule(std::string_view chain, std::uint64_t handle);
  void delete_set(std::string_view name);
  void flush_chain(std::string_view name);  // all its rules
  void flush_set(std::string_view name);    // all its elements

  [[nodiscard]] bool empty() const { return ops_.empty() && !error_; }
  [[nodiscard]] std::size_t size() const { return count_; }  // objects and elements touched
  [[nodiscard]] Family family() const { return family_; }
  [[nodiscard]] const std::string& table() const { return table_; }
  [[nodiscard]] const std::vector<Change>& ops() const { return ops_; }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

  // The same changes, in order, as transactions that touch about `most` objects and elements each: for a table that
  // nothing looks at yet. The kernel makes a notice of some KiB of each element and keeps all until the transaction is
  // over.
  [[nodiscard]] std::vector<Transaction> parts(std::size_t most) &&;

  // One line an operation, in nft's words: for logs and tests.
  [[nodiscard]] std::string text() const;

 private:
  void put(Change c, std::size_t touched);
  bool name_ok(std::string_view what, std::string_view name);
  void latch(Error e);

  Family family_;
  std::string table_;
  std::vector<Change> ops_;
  std::size_t count_ = 0;
  std::optional<Error> error_;
};

}  // namespace hawser::nft
