// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/cidr_pool.h"

#include <algorithm>
#include <array>

namespace hawser::controllers {
namespace {

constexpr int kMaxBlockBits = 16;

}  // namespace

Result<CidrPool> CidrPool::make(const Cidr& range, int mask) {
  if (!range) return fail(EINVAL, "cluster CIDR: missing");
  const int bits = range.addr().bits();
  if (mask < range.prefix() || mask > bits)
    return fail(EINVAL, "node CIDR mask {}: must be between {} (the prefix of {}) and {}", mask, range.prefix(), range,
                bits);
  if (mask - range.prefix() > kMaxBlockBits)
    return fail(EINVAL, "node CIDR mask {}: more than {} bits longer than the prefix of {}", mask, kMaxBlockBits,
                range);
  return CidrPool(range.network(), mask, std::size_t{1} << (mask - range.prefix()));
}

Cidr CidrPool::block(std::size_t i) const {
  const IpAddr& base = range_.addr();
  // The index goes between the two prefixes; in IPv6 that is beyond what a 64-bit addition reaches, so it is put into
  // the bytes.
  std::array<std::uint8_t, 16> bytes{};
  std::ranges::copy(base.bytes(), bytes.begin());
  for (int bit = mask_ - 1; i != 0; --bit, i >>= 1)
    if (i & 1) bytes[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(0x80 >> (bit % 8));
  auto addr = IpAddr::from_bytes(std::span<const std::uint8_t>(bytes.data(), base.bytes().size()));
  return {*addr, mask_};
}

std::size_t CidrPool::index_of(const IpAddr& a) const {
  std::size_t i = 0;
  for (int bit = range_.prefix(); bit < mask_; ++bit)
    i = i << 1 | ((a.bytes()[static_cast<std::size_t>(bit / 8)] >> (7 - bit % 8)) & 1u);
  return i;
}

Result<> CidrPool::adopt(const std::string& node, const Cidr& block) {
  if (block.family() != range_.family() || !range_.overlaps(block)) return {};
  std::size_t first = 0, last = count_ - 1;
  if (range_.contains(block)) {
    first = index_of(block.network().addr());
    last = index_of(block.last());
  }
  for (auto it = owner_.lower_bound(first); it != owner_.end() && it->first <= last; ++it)
    if (it->second != node)
      return fail(EEXIST, "node {}: its pod CIDR {} overlaps the one of node {}", node, block, it->second);
  for (std::size_t i = first; i <= last; ++i) owner_[i] = node;
  return {};
}

std::optional<Cidr> CidrPool::allocate(const std::string& node) {
  for (const auto& [i, owner] : owner_)
    if (owner == node) return block(i);
  for (std::size_t tried = 0; tried < count_; ++tried) {
    const std::size_t i = (next_ + tried) % count_;
    if (owner_.contains(i)) continue;
    owner_[i] = node;
    next_ = (i + 1) % count_;
    return block(i);
  }
  return std::nullopt;
}

void CidrPool::release(const std::string& node) {
  std::erase_if(owner_, [&](const auto& e) { return e.second == node; });
}

}  // namespace hawser::controllers
