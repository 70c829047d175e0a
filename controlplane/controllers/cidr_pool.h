// SPDX-License-Identifier: Apache-2.0
// CidrPool: which part of the cluster's range each node has. A range is cut into equal blocks; a block belongs to at
// most one node. Values only, no API; the node IPAM controller holds it on one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/ip.h"

namespace hawser::controllers {

class CidrPool {
 public:
  // Blocks of /`mask` out of `range`. At most 65,536 blocks, as in Kubernetes.
  static Result<CidrPool> make(const Cidr& range, int mask);

  // Marks every block that `block` touches as `node`'s. Blocks outside the range are nobody's business and succeed.
  // Fails if another node has one of them; nothing is changed then.
  Result<> adopt(const std::string& node, const Cidr& block);
  // A free block for `node`; the one it has if it has one. Round robin: a freed block rests as long as possible.
  // Nothing when full.
  std::optional<Cidr> allocate(const std::string& node);
  void release(const std::string& node);

  [[nodiscard]] std::size_t capacity() const { return count_; }
  [[nodiscard]] std::size_t used() const { return owner_.size(); }
  [[nodiscard]] const Cidr& range() const { return range_; }

 private:
  CidrPool(const Cidr& range, int mask, std::size_t count) : range_(range), mask_(mask), count_(count) {}
  [[nodiscard]] Cidr block(std::size_t i) const;
  // The index of the block that holds `a`; only for addresses in the range.
  [[nodiscard]] std::size_t index_of(const IpAddr& a) const;

  Cidr range_;
  int mask_ = 0;
  std::size_t count_ = 0;
  std::size_t next_ = 0;
  std::map<std::size_t, std::string> owner_;  // by block
};

}  // namespace hawser::controllers
