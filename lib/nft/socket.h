// SPDX-License-Identifier: Apache-2.0
// A nfnetlink socket owned by scope, shared by KernelNft and NftMonitor. It belongs to the network namespace of the
// thread that opened it, whichever thread uses it later; one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "lib/base/result.h"

struct mnl_socket;
struct nlmsghdr;

namespace hawser::nft {

class NfSocket {
 public:
  static Result<NfSocket> open();
  ~NfSocket() = default;
  NfSocket(NfSocket&&) noexcept = default;
  NfSocket& operator=(NfSocket&&) noexcept = default;

  // Lets one sendmsg carry `bytes`. Needs CAP_NET_ADMIN beyond net.core.wmem_max.
  void reserve_send(std::size_t bytes);
  void reserve_receive(std::size_t bytes);
  Result<> send(std::span<const std::uint8_t> bytes);
  // The next datagram into `buf`: its length; 0 when nothing is there (only with wait == false).
  Result<std::size_t> receive(std::span<std::uint8_t> buf, bool wait);
  Result<> join(int group);
  // Has the kernel leave out, for this socket, notifications of changes made by port `id`.
  Result<> ignore_changes_of(std::uint32_t id);
  [[nodiscard]] std::uint32_t port_id() const;
  [[nodiscard]] int fd() const;
  std::uint32_t next_seq(std::uint32_t count = 1);

  // Sends a dump request and calls `each` for every message. EINTR: something changed meanwhile, ask again.
  Result<> dump(nlmsghdr* request, const std::function<void(const nlmsghdr*)>& each);

 private:
  NfSocket() = default;
  struct Deleter {
    void operator()(mnl_socket* s) const;
  };
  std::unique_ptr<mnl_socket, Deleter> s_;
  std::size_t send_reserved_ = 0;
  std::uint32_t seq_ = 1;
};

// The error a NLMSG_ERROR message carries: errno (0 for an acknowledgement) and the kernel's extended text.
struct Answer {
  std::uint32_t seq = 0;
  int err = 0;
  std::string text;
};
[[nodiscard]] Answer decode_answer(const nlmsghdr* h);

}  // namespace hawser::nft
