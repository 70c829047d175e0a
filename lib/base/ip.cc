// SPDX-License-Identifier: Apache-2.0
#include "lib/base/ip.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>

namespace hawser {

Result<IpAddr> IpAddr::parse(std::string_view text) {
  char buf[INET6_ADDRSTRLEN];
  // inet_pton would stop at a NUL and take what is in front of it.
  if (text.empty() || text.size() >= sizeof buf || text.contains('\0'))
    return fail(EINVAL, "\"{}\" is not an IP address", text.substr(0, 64));
  std::memcpy(buf, text.data(), text.size());
  buf[text.size()] = 0;
  IpAddr a;
  a.family_ = text.find(':') == text.npos ? AF_INET : AF_INET6;
  if (inet_pton(a.family_, buf, a.bytes_.data()) != 1) return fail(EINVAL, "\"{}\" is not an IP address", text);
  return a;
}
IpAddr IpAddr::v4(std::uint32_t h) {
  IpAddr a;
  a.family_ = AF_INET;
  for (int i = 0; i < 4; i++) a.bytes_[i] = static_cast<std::uint8_t>(h >> (24 - 8 * i));
  return a;
}
IpAddr IpAddr::v6(std::span<const std::uint8_t, 16> bytes) {
  IpAddr a;
  a.family_ = AF_INET6;
  std::ranges::copy(bytes, a.bytes_.begin());
  return a;
}
Result<IpAddr> IpAddr::from_bytes(std::span<const std::uint8_t> bytes) {
  if (bytes.size() != 4 && bytes.size() != 16) return fail(EINVAL, "an address of {} bytes", bytes.size());
  IpAddr a;
  a.family_ = bytes.size() == 4 ? AF_INET : AF_INET6;
  std::ranges::copy(bytes, a.bytes_.begin());
  return a;
}
bool IpAddr::is_v4() const {
  return family_ == AF_INET;
}
bool IpAddr::is_v6() const {
  return family_ == AF_INET6;
}
std::uint32_t IpAddr::v4_host_order() const {
  return std::uint32_t{bytes_[0]} << 24 | std::uint32_t{bytes_[1]} << 16 | std::uint32_t{bytes_[2]} << 8 | bytes_[3];
}
IpAddr IpAddr::plus(std::uint64_t n) const {
  IpAddr a = *this;
  for (int i = bits() / 8 - 1; i >= 0 && n; i--) {
    n += a.bytes_[i];
    a.bytes_[i] = static_cast<std::uint8_t>(n);
    n >>= 8;
  }
  return a;
}
std::string IpAddr::text() const {
  char buf[INET6_ADDRSTRLEN];
  if (!family_ || !inet_ntop(family_, bytes_.data(), buf, sizeof buf)) return "invalid";
  return buf;
}

namespace {
// Byte `i` of the netmask of `prefix` bits.
std::uint8_t mask_byte(int prefix, int i) {
  int ones = std::clamp(prefix - 8 * i, 0, 8);
  return static_cast<std::uint8_t>(0xff00 >> ones);
}
}  // namespace

Result<Cidr> Cidr::parse(std::string_view text) {
  auto slash = text.find('/');
  if (slash == text.npos) return fail(EINVAL, "\"{}\" is not a CIDR: it has no \"/\"", text.substr(0, 64));
  auto addr = IpAddr::parse(text.substr(0, slash));
  if (!addr) return propagate(addr, "CIDR");
  unsigned prefix = 0;  // unsigned: "-0" is no number then
  auto digits = text.substr(slash + 1);
  auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
  if (ec != std::errc() || end != digits.data() + digits.size() || prefix > unsigned(addr->bits()))
    return fail(EINVAL, "\"{}\" is not a CIDR: prefix length must be 0 to {}", text.substr(0, 64), addr->bits());
  return Cidr(*addr, static_cast<int>(prefix));
}
Cidr Cidr::network() const {
  std::array<std::uint8_t, 16> b{};
  auto in = addr_.bytes();
  for (size_t i = 0; i < in.size(); i++) b[i] = in[i] & mask_byte(prefix_, static_cast<int>(i));
  return {*IpAddr::from_bytes({b.data(), in.size()}), prefix_};
}
IpAddr Cidr::last() const {
  std::array<std::uint8_t, 16> b{};
  auto in = addr_.bytes();
  for (size_t i = 0; i < in.size(); i++)
    b[i] = in[i] | static_cast<std::uint8_t>(~mask_byte(prefix_, static_cast<int>(i)));
  return *IpAddr::from_bytes({b.data(), in.size()});
}
bool Cidr::contains(const IpAddr& a) const {
  if (a.family() != family()) return false;
  return Cidr(a, prefix_).network().addr_ == network().addr_;
}
bool Cidr::contains(const Cidr& c) const {
  return c.prefix_ >= prefix_ && contains(c.addr_);
}
bool Cidr::overlaps(const Cidr& c) const {
  return contains(c) || c.contains(*this);
}
std::uint64_t Cidr::size() const {
  int host = addr_.bits() - prefix_;
  return std::uint64_t{1} << std::min(host, 63);
}
std::string Cidr::text() const {
  return fmt::format("{}/{}", addr_.text(), prefix_);
}

Result<MacAddr> MacAddr::parse(std::string_view text) {
  MacAddr m;
  if (text.size() != 17) return fail(EINVAL, "\"{}\" is not a MAC address", text.substr(0, 64));
  for (size_t i = 0; i < 6; i++) {
    auto part = text.substr(3 * i, 2);
    auto [end, ec] = std::from_chars(part.data(), part.data() + 2, m.bytes[i], 16);
    if (ec != std::errc() || end != part.data() + 2 || (i < 5 && text[3 * i + 2] != ':'))
      return fail(EINVAL, "\"{}\" is not a MAC address", text);
  }
  return m;
}
std::string MacAddr::text() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

}  // namespace hawser
