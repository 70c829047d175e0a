// SPDX-License-Identifier: Apache-2.0
// be16, be32, be64: integers whose bytes are in network order, as types. Construction from a host number and reading
// back are explicit, so mixing the two orders does not compile. Trivially copyable with the integer's layout: fit for
// wire structs.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>

namespace hawser {

template <std::unsigned_integral T>
class BigEndian {
 public:
  BigEndian() = default;
  constexpr explicit BigEndian(T host) : raw_(swap(host)) {}
  // From a field that already holds network order (a sockaddr, a netlink attribute).
  static constexpr BigEndian from_network(T raw) {
    BigEndian b;
    b.raw_ = raw;
    return b;
  }

  [[nodiscard]] constexpr T host() const { return swap(raw_); }
  [[nodiscard]] constexpr T network() const { return raw_; }
  constexpr bool operator==(const BigEndian&) const = default;

 private:
  static constexpr T swap(T v) {
    if constexpr (std::endian::native == std::endian::big) return v;
    return std::byteswap(v);
  }
  T raw_;
};

using be16 = BigEndian<std::uint16_t>;  // NOLINT(readability-identifier-naming): named like the integers they are
using be32 = BigEndian<std::uint32_t>;  // NOLINT(readability-identifier-naming)
using be64 = BigEndian<std::uint64_t>;  // NOLINT(readability-identifier-naming)

static_assert(sizeof(be16) == 2 && sizeof(be32) == 4 && sizeof(be64) == 8);

}  // namespace hawser
