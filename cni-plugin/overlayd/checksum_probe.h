// SPDX-License-Identifier: Apache-2.0
// ChecksumProbe: are packets lost whose checksum is left to the network device? Two equal datagrams go to a UDP port of
// the peer's that nobody listens on: the checksum of one is left to the device, as that of what pods send is, the
// other's is written by the kernel. A peer refuses either with an ICMP error, whoever it is, and drops what has a wrong
// checksum in silence. Refused: the datagram was right. One refused and not the other tells a faulty offload from a
// filter (FEATURES X05).
//
// The first goes first: where the peer answers only so many a second, it is the other's answer that is missing, which
// proves nothing. One thread; opened in the network namespace that is probed.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/ip.h"
#include "lib/base/unique_fd.h"

namespace hawser::overlay {

class ChecksumProbe {
 public:
  // EAFNOSUPPORT: no such family here.
  static Result<ChecksumProbe> open(int family);
  ChecksumProbe() = default;  // not open: sends nothing

  // What polls with POLLERR when there are answers; -1: not open.
  [[nodiscard]] int fd() const { return fd_.get(); }
  // What cannot be sent is not answered.
  void send(const IpAddr& to, std::uint16_t sequence) const;

  struct Answer {
    IpAddr from;
    std::uint16_t sequence = 0;
    bool offloaded = false;
  };
  // The next answer that is there.
  [[nodiscard]] std::optional<Answer> next_answer() const;

 private:
  explicit ChecksumProbe(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace hawser::overlay
