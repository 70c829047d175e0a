// SPDX-License-Identifier: Apache-2.0
// Message: builds one netlink message in a bounded buffer of its own; running out of room is latched and reported when
// it is sent. Attrs: checked reading of the attributes of a received message; a missing or wrongly sized attribute
// reads as nullopt. Pure, single owner. Nests are closed by the Nest object's destructor.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include <libmnl/libmnl.h>

#include "lib/base/ip.h"

namespace hawser::netlink {

class Message {
 public:
  Message(std::uint16_t type, std::uint16_t flags) {
    auto* h = mnl_nlmsg_put_header(buf_.data());
    h->nlmsg_type = type;
    h->nlmsg_flags = flags | NLM_F_REQUEST;
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  // The family's fixed header, zeroed (ifinfomsg, rtmsg, ...). Call once, before any attribute.
  template <class T>
  T& fixed() {
    return *static_cast<T*>(mnl_nlmsg_put_extra_header(header(), sizeof(T)));
  }
  // A fixed header inside a nest (VETH_INFO_PEER).
  template <class T>
  T* inner() {
    if (header()->nlmsg_len + MNL_ALIGN(sizeof(T)) > buf_.size()) {
      full_ = true;
      return nullptr;
    }
    return static_cast<T*>(mnl_nlmsg_put_extra_header(header(), sizeof(T)));
  }
  void bytes(std::uint16_t type, const void* data, std::size_t len) {
    if (!mnl_attr_put_check(header(), buf_.size(), type, len, data)) {
      full_ = true;
      return;
    }
    // libmnl leaves the bytes up to the next attribute as they were.
    std::memset(buf_.data() + header()->nlmsg_len - (MNL_ALIGN(len) - len), 0, MNL_ALIGN(len) - len);
  }
  void u8(std::uint16_t type, std::uint8_t v) { bytes(type, &v, sizeof v); }
  void u16(std::uint16_t type, std::uint16_t v) { bytes(type, &v, sizeof v); }
  void u32(std::uint16_t type, std::uint32_t v) { bytes(type, &v, sizeof v); }
  void be16(std::uint16_t type, std::uint16_t host) {
    std::array<std::uint8_t, 2> b{static_cast<std::uint8_t>(host >> 8), static_cast<std::uint8_t>(host)};
    bytes(type, b.data(), b.size());
  }
  void addr(std::uint16_t type, const IpAddr& a) { bytes(type, a.bytes().data(), a.bytes().size()); }
  void mac(std::uint16_t type, const MacAddr& m) { bytes(type, m.bytes.data(), m.bytes.size()); }
  void strz(std::uint16_t type, std::string_view s) {
    std::array<char, 256> z{};
    if (s.size() >= z.size()) {
      full_ = true;
      return;
    }
    std::memcpy(z.data(), s.data(), s.size());
    bytes(type, z.data(), s.size() + 1);
  }

  class Nest {
   public:
    Nest(Message& m, std::uint16_t type) : m_(m), start_(mnl_attr_nest_start_check(m.header(), m.buf_.size(), type)) {
      m_.full_ |= start_ == nullptr;
    }
    ~Nest() {
      if (start_) mnl_attr_nest_end(m_.header(), start_);
    }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    Message& m_;
    nlattr* start_;
  };

  [[nodiscard]] bool full() const { return full_; }
  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(buf_.data()); }

 private:
  alignas(8) std::array<std::uint8_t, 2048> buf_;
  bool full_ = false;
};

class Attrs {
 public:
  // Attributes after a fixed header of `fixed_bytes`.
  Attrs(const nlmsghdr* h, std::size_t fixed_bytes) {
    const auto* payload = static_cast<const std::uint8_t*>(mnl_nlmsg_get_payload(h));
    auto skip = static_cast<std::size_t>(MNL_ALIGN(fixed_bytes));
    std::size_t len = mnl_nlmsg_get_payload_len(h);
    if (len > skip) read({payload + skip, len - skip});
  }
  explicit Attrs(const nlattr* nest)
      : Attrs(std::span(static_cast<const std::uint8_t*>(mnl_attr_get_payload(nest)), mnl_attr_get_payload_len(nest))) {
  }
  explicit Attrs(std::span<const std::uint8_t> attributes) { read(attributes); }
  [[nodiscard]] bool has(std::size_t type) const { return at(type) != nullptr; }
  [[nodiscard]] std::optional<std::uint8_t> u8(std::size_t t) const { return number<std::uint8_t>(t); }
  [[nodiscard]] std::optional<std::uint16_t> u16(std::size_t t) const { return number<std::uint16_t>(t); }
  [[nodiscard]] std::optional<std::uint32_t> u32(std::size_t t) const { return number<std::uint32_t>(t); }
  [[nodiscard]] std::optional<std::uint64_t> u64(std::size_t t) const { return number<std::uint64_t>(t); }
  [[nodiscard]] std::optional<std::uint16_t> be16(std::size_t t) const {
    auto b = bytes(t);
    if (b.size() != 2) return std::nullopt;
    return static_cast<std::uint16_t>(b[0] << 8 | b[1]);
  }
  [[nodiscard]] std::span<const std::uint8_t> bytes(std::size_t t) const {
    const auto* a = at(t);
    if (!a) return {};
    return {static_cast<const std::uint8_t*>(mnl_attr_get_payload(a)), mnl_attr_get_payload_len(a)};
  }
  [[nodiscard]] IpAddr addr(std::size_t t) const { return IpAddr::from_bytes(bytes(t)).value_or(IpAddr()); }
  [[nodiscard]] std::optional<MacAddr> mac(std::size_t t) const {
    auto b = bytes(t);
    MacAddr m;
    if (b.size() != m.bytes.size()) return std::nullopt;
    std::memcpy(m.bytes.data(), b.data(), b.size());
    return m;
  }
  [[nodiscard]] std::string_view str(std::size_t t) const {
    auto b = bytes(t);
    std::string_view s(reinterpret_cast<const char*>(b.data()), b.size());
    return s.substr(0, s.find('\0'));
  }
  [[nodiscard]] std::optional<Attrs> nest(std::size_t t) const {
    if (const auto* a = at(t)) return Attrs(a);
    return std::nullopt;
  }
  // Calls f(Attrs) for each element of a list: nests whose own types mean nothing.
  template <class F>
  void each(std::size_t t, const F& f) const {
    walk(bytes(t), [&](const nlattr* a) { f(Attrs(a)); });
  }

 private:
  template <class F>
  static void walk(std::span<const std::uint8_t> b, const F& f) {
    for (;;) {
      const auto* a = reinterpret_cast<const nlattr*>(b.data());
      if (!mnl_attr_ok(a, static_cast<int>(b.size()))) return;
      f(a);
      std::size_t step = MNL_ALIGN(mnl_attr_get_len(a));
      if (step >= b.size()) return;
      b = b.subspan(step);
    }
  }
  void read(std::span<const std::uint8_t> b) {
    walk(b, [&](const nlattr* a) {
      if (mnl_attr_get_type(a) < by_type_.size()) by_type_[mnl_attr_get_type(a)] = a;
    });
  }
  [[nodiscard]] const nlattr* at(std::size_t t) const { return t < by_type_.size() ? by_type_[t] : nullptr; }
  template <class T>
  [[nodiscard]] std::optional<T> number(std::size_t t) const {
    auto b = bytes(t);
    T v;
    if (b.size() != sizeof v) return std::nullopt;
    std::memcpy(&v, b.data(), sizeof v);
    return v;
  }
  std::array<const nlattr*, 80> by_type_{};  // the largest family, IFLA_*, has fewer
};

}  // namespace hawser::netlink
