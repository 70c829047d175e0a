// SPDX-License-Identifier: Apache-2.0
// FakeNft: NftRunner over a model in memory that keeps the kernel's rules: all or nothing, ENOENT for what is not
// there, EEXIST for an element with other data, EBUSY for a chain or set that is still named. For tests; one thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "lib/nft/runner.h"

namespace hawser::nft {

class FakeNft final : public NftRunner {
 public:
  Result<> apply(const Transaction& t) override;
  Result<TableState> read_table(Family family, std::string_view table) override;
  Result<> read_elements(Family family, std::string_view table, const Set& set,
                         const std::function<void(const Element&)>& each,
                         const std::function<void()>& restart) override;
  Result<std::uint32_t> generation() override { return generation_; }

  // The next apply() fails with `e` and changes nothing.
  void fail_next(Error e) { fail_next_ = std::move(e); }
  // The n-th apply() from now that is not empty fails with EIO and changes nothing, and so do those after it: as if the
  // process were killed there. 0: none fails.
  void fail_after(int n) { fail_after_ = n; }
  // Transactions that were applied and not empty.
  [[nodiscard]] int applied() const { return applied_; }
  // The table as `nft -s list table` prints it, elements and objects sorted: the golden form. "" if there is none.
  [[nodiscard]] std::string list(Family family, std::string_view table) const;

  struct RuleModel {
    Rule rule;
    std::uint64_t handle = 0;
  };
  struct ChainModel {
    Chain spec;
    std::uint64_t handle = 0;
    std::vector<RuleModel> rules;
  };
  struct SetModel {
    Set spec;
    std::uint64_t handle = 0;
    std::map<std::pair<Bytes, bool>, Element> elements;
  };
  struct TableModel {
    std::uint64_t handle = 0;
    std::string comment;
    std::map<std::string, ChainModel> chains;
    std::map<std::string, SetModel> sets;
  };
  using Tables = std::map<std::pair<Family, std::string>, TableModel>;
  [[nodiscard]] const Tables& tables() const { return tables_; }

 private:
  Tables tables_;
  std::uint64_t next_handle_ = 1;
  std::uint32_t generation_ = 1;
  int applied_ = 0;
  int fail_after_ = 0;
  std::optional<Error> fail_next_;
};

}  // namespace hawser::nft
