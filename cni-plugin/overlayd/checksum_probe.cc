// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/checksum_probe.h"

#include <array>
#include <cstring>

#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <sys/uio.h>

#include "cni-plugin/overlayd/socket_address.h"
#include "lib/base/log.h"

namespace hawser::overlay {
namespace {

constexpr std::uint16_t kDiscardPort = 9;  // where somebody listens after all, it is to throw away what comes

// Kind and sequence number.
using Payload = std::array<std::uint8_t, 4>;
constexpr std::uint8_t kOffloaded = 1, kComputed = 2;

// The error of an earlier datagram, which the next call would report as its own.
void clear_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

// A datagram that is given to the kernel in two pieces gets its checksum from the kernel, not from the device.
bool send_payload(int fd, const Payload& payload, const SocketAddress& to) {
  const auto send = [&](const std::uint8_t* data, std::size_t size, int flags) {
    return sendto(fd, data, size, flags, reinterpret_cast<const sockaddr*>(&to.storage), to.length) >= 0;
  };
  if (payload[0] == kOffloaded) return send(payload.data(), payload.size(), 0);
  return send(payload.data(), 2, MSG_MORE) && send(payload.data() + 2, payload.size() - 2, 0);
}

// "Nobody listens on that port", told by the host that was asked.
bool is_refusal(const sock_extended_err& e, const IpAddr& asked) {
  sockaddr_storage teller{};
  const auto* offender = SO_EE_OFFENDER(&e);
  const bool v4 = e.ee_origin == SO_EE_ORIGIN_ICMP;
  if (v4 ? e.ee_type != ICMP_DEST_UNREACH || e.ee_code != ICMP_PORT_UNREACH
         : e.ee_origin != SO_EE_ORIGIN_ICMP6 || e.ee_type != ICMP6_DST_UNREACH || e.ee_code != ICMP6_DST_UNREACH_NOPORT)
    return false;
  std::memcpy(&teller, offender, v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  return address_of(teller) == asked;
}

}  // namespace

Result<ChecksumProbe> ChecksumProbe::open(int family) {
  UniqueFd fd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "checksum probe");
  const int on = 1;
  const bool v4 = family == AF_INET;
  if (setsockopt(fd.get(), v4 ? static_cast<int>(IPPROTO_IP) : static_cast<int>(IPPROTO_IPV6),
                 v4 ? IP_RECVERR : IPV6_RECVERR, &on, sizeof on) != 0)
    return fail_errno(errno, "checksum probe");
  return ChecksumProbe(std::move(fd));
}

void ChecksumProbe::send(const IpAddr& to, std::uint16_t sequence) const {
  if (!fd_) return;
  const auto address = socket_address(to, kDiscardPort);
  for (auto kind : {kOffloaded, kComputed}) {
    const Payload payload{kind, 0, static_cast<std::uint8_t>(sequence >> 8), static_cast<std::uint8_t>(sequence)};
    // Answers to what went to other peers come in between.
    for (int tries = 0; tries < 3 && !send_payload(fd_.get(), payload, address); tries++) {
      log::debug("checksum probe of {}: {}", to, strerror(errno));
      clear_error(fd_.get());
    }
  }
}

std::optional<ChecksumProbe::Answer> ChecksumProbe::next_answer() const {
  if (!fd_) return std::nullopt;
  for (;;) {
    Payload payload{};
    sockaddr_storage asked{};
    alignas(cmsghdr) std::array<char, 256> control{};
    iovec data{payload.data(), payload.size()};
    msghdr m{};
    m.msg_name = &asked, m.msg_namelen = sizeof asked;
    m.msg_iov = &data, m.msg_iovlen = 1;
    m.msg_control = control.data(), m.msg_controllen = control.size();
    const auto n = recvmsg(fd_.get(), &m, MSG_ERRQUEUE);
    if (n < 0) {
      clear_error(fd_.get());  // else poll() returns at once for ever
      return std::nullopt;
    }
    const Answer answer{.from = address_of(asked),
                        .sequence = static_cast<std::uint16_t>(payload[2] << 8 | payload[3]),
                        .offloaded = payload[0] == kOffloaded};
    for (auto* c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
      const bool error = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                         (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR);
      if (!error || static_cast<std::size_t>(n) < payload.size()) continue;
      if (is_refusal(*reinterpret_cast<const sock_extended_err*>(CMSG_DATA(c)), answer.from)) return answer;
    }
  }
}

}  // namespace hawser::overlay
