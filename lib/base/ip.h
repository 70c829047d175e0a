// SPDX-License-Identifier: Apache-2.0
// Addresses as values: IpAddr (both families), Cidr, MacAddr. Bytes are kept in network order; numbers handed out are
// in host order. Pure, any thread. Text forms: RFC 5952 for IPv6, dotted quad for IPv4.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser {

class IpAddr {
 public:
  IpAddr() = default;  // the invalid address: family() == 0
  static Result<IpAddr> parse(std::string_view text);
  static IpAddr v4(std::uint32_t host_order);
  static IpAddr v6(std::span<const std::uint8_t, 16> bytes);
  // 4 or 16 bytes in network order.
  static Result<IpAddr> from_bytes(std::span<const std::uint8_t> bytes);

  [[nodiscard]] int family() const { return family_; }  // AF_INET, AF_INET6 or 0
  [[nodiscard]] bool is_v4() const;
  [[nodiscard]] bool is_v6() const;
  explicit operator bool() const { return family_ != 0; }
  [[nodiscard]] int bits() const { return is_v4() ? 32 : 128; }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const { return {bytes_.data(), is_v4() ? 4u : 16u}; }
  [[nodiscard]] std::uint32_t v4_host_order() const;  // only if is_v4()
  // The address `n` further on; wraps within the family.
  [[nodiscard]] IpAddr plus(std::uint64_t n) const;
  [[nodiscard]] std::string text() const;
  auto operator<=>(const IpAddr&) const = default;

 private:
  std::uint8_t family_ = 0;
  std::array<std::uint8_t, 16> bytes_{};
};

class Cidr {
 public:
  Cidr() = default;
  Cidr(const IpAddr& addr, int prefix) : addr_(addr), prefix_(prefix) {}
  static Result<Cidr> parse(std::string_view text);  // "10.0.0.1/24"; host bits are kept

  [[nodiscard]] const IpAddr& addr() const { return addr_; }
  [[nodiscard]] int prefix() const { return prefix_; }
  [[nodiscard]] int family() const { return addr_.family(); }
  [[nodiscard]] Cidr network() const;  // host bits cleared
  [[nodiscard]] IpAddr last() const;   // highest address
  [[nodiscard]] bool contains(const IpAddr& a) const;
  [[nodiscard]] bool contains(const Cidr& c) const;
  [[nodiscard]] bool overlaps(const Cidr& c) const;
  // Number of addresses, capped at 2^63.
  [[nodiscard]] std::uint64_t size() const;
  [[nodiscard]] std::string text() const;
  explicit operator bool() const { return static_cast<bool>(addr_); }
  auto operator<=>(const Cidr&) const = default;

 private:
  IpAddr addr_;
  int prefix_ = 0;
};

struct MacAddr {
  std::array<std::uint8_t, 6> bytes{};
  static Result<MacAddr> parse(std::string_view text);  // "02:00:5e:10:00:01"
  [[nodiscard]] std::string text() const;
  auto operator<=>(const MacAddr&) const = default;
};

}  // namespace hawser

template <>
struct fmt::formatter<hawser::IpAddr> : fmt::formatter<std::string> {
  auto format(const hawser::IpAddr& a, format_context& ctx) const {
    return formatter<std::string>::format(a.text(), ctx);
  }
};
template <>
struct fmt::formatter<hawser::Cidr> : fmt::formatter<std::string> {
  auto format(const hawser::Cidr& a, format_context& ctx) const {
    return formatter<std::string>::format(a.text(), ctx);
  }
};
template <>
struct fmt::formatter<hawser::MacAddr> : fmt::formatter<std::string> {
  auto format(const hawser::MacAddr& a, format_context& ctx) const {
    return formatter<std::string>::format(a.text(), ctx);
  }
};
