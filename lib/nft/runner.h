// SPDX-License-Identifier: Apache-2.0
// NftRunner: the kernel boundary of nftables. Implementations: KernelNft (kernel_nft.h) and FakeNft (fake_nft.h), a
// working model. One thread at a time. Nothing is remembered between calls: what is read comes from the kernel.
#pragma once

#include <functional>
#include <string_view>

#include "lib/base/result.h"
#include "lib/nft/object.h"
#include "lib/nft/transaction.h"

namespace hawser::nft {

class NftRunner {
 public:
  virtual ~NftRunner() = default;

  // All of `t` or nothing. An empty transaction succeeds and changes nothing.
  virtual Result<> apply(const Transaction& t) = 0;
  // Table, chains, rules and sets; exists is false when there is no such table.
  virtual Result<TableState> read_table(Family family, std::string_view table) = 0;
  // Calls `each` for every element of a set. A read that a change disturbs is begun again: `restart` is called then,
  // and what `each` was given before no longer counts.
  virtual Result<> read_elements(Family family, std::string_view table, const Set& set,
                                 const std::function<void(const Element&)>& each,
                                 const std::function<void()>& restart) = 0;
  // The ruleset's generation: changes with every transaction of anybody in this network namespace.
  virtual Result<std::uint32_t> generation() = 0;
};

}  // namespace hawser::nft
