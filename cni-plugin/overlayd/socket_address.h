// SPDX-License-Identifier: Apache-2.0
// IpAddr to and from the kernel's socket addresses, of either family. Pure.
#pragma once

#include <cstdint>
#include <cstring>

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/endian.h"
#include "lib/base/ip.h"

namespace hawser::overlay {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

inline SocketAddress socket_address(const IpAddr& a, std::uint16_t port = 0) {
  SocketAddress s;
  s.storage.ss_family = static_cast<sa_family_t>(a.family());
  if (a.is_v4()) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&s.storage);
    std::memcpy(&v4->sin_addr, a.bytes().data(), 4);
    v4->sin_port = be16(port).network();
    s.length = sizeof(sockaddr_in);
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&s.storage);
    std::memcpy(&v6->sin6_addr, a.bytes().data(), 16);
    v6->sin6_port = be16(port).network();
    s.length = sizeof(sockaddr_in6);
  }
  return s;
}

inline IpAddr address_of(const sockaddr_storage& s) {
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&s);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&s);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(
      s.ss_family == AF_INET ? static_cast<const void*>(&v4->sin_addr) : &v6->sin6_addr);
  return IpAddr::from_bytes({bytes, s.ss_family == AF_INET ? 4u : 16u}).value_or(IpAddr());
}

}  // namespace hawser::overlay
