// SPDX-License-Identifier: Apache-2.0
// Socket: the one netlink socket of the tree, any protocol (rtnetlink, nfnetlink, genetlink).
//
// Requests: execute() for a write, dump() for a table. Errors carry the kernel's own explanation (extended ack) in
// their text. Sequence numbers grow per socket; an answer to an older request is dropped. EINTR is handled inside.
// Dumps: the kernel may say that the table changed under the dump (NLM_F_DUMP_INTR); it is then read again, at most
// kDumpTries times, and after that reported as EAGAIN: torn data is never returned. Monitors: a socket opened with
// groups; drain() gives what is queued and says when events were lost (ENOBUFS), upon which the reader must read the
// whole table again. Batches (nfnetlink): build with next_seq(), send() the bytes, drain() the answers, which the
// kernel queues before send() returns.
//
// Threading: one thread at a time. The receive buffer belongs to the socket (32 KiB).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lib/base/unique_fd.h"
#include "lib/netlink/message.h"

namespace hawser::netlink {

struct SocketOptions {
  int netns_fd = -1;             // open it in this namespace; -1: the caller's own
  std::vector<unsigned> groups;  // multicast groups, RTNLGRP_LINK ...
  int send_buffer_bytes = 0;     // 0: the system's default
  int receive_buffer_bytes = 0;
};

// The kernel's error answer: 0 for an ack. The text has the extended ack message, if the kernel gave one.
Error answer_error(const nlmsghdr* h);

class Socket {
 public:
  static constexpr int kDumpTries = 8;
  using OnMessage = std::function<void(const nlmsghdr*)>;

  static Result<Socket> open(int protocol, const SocketOptions& options = {});
  Socket(Socket&&) = default;
  Socket& operator=(Socket&&) = default;

  // Sends one request and waits for its ack.
  Result<> execute(Message& m);
  // The same, giving the answers that come before the ack.
  Result<> execute(Message& m, const OnMessage& on_answer);
  // Reads a whole table. `parse` turns one message into an optional<T>; nullopt leaves it out.
  template <class T>
  Result<std::vector<T>> dump(Message& m, const std::function<std::optional<T>(const nlmsghdr*)>& parse) {
    std::vector<T> out;
    auto r = dump_raw(
        m, [&] { out.clear(); },
        [&](const nlmsghdr* h) {
          if (auto v = parse(h)) out.push_back(std::move(*v));
        });
    if (!r) return propagate(r);
    return out;
  }

  [[nodiscard]] std::uint32_t next_seq() { return ++seq_; }
  Result<> send(std::span<const std::uint8_t> bytes);
  enum class Drained { kEmpty, kLost };
  // Handles everything that is queued, without waiting. kLost: events were dropped, read the tables again.
  Result<Drained> drain(const OnMessage& on_message);
  [[nodiscard]] int fd() const { return fd_.get(); }  // for poll()

 private:
  Socket(UniqueFd fd) : fd_(std::move(fd)), buf_(std::make_unique<std::array<std::uint8_t, kBufferBytes>>()) {}
  static constexpr std::size_t kBufferBytes = 32768;  // what the kernel allocates at most for one dump part
  Result<> send_request(Message& m);
  Result<std::span<const std::uint8_t>> receive(int flags);
  Result<> dump_raw(Message& m, const std::function<void()>& on_restart, const OnMessage& on_message);
  // One pass; true: the table changed under it.
  Result<bool> dump_once(const OnMessage& on_message);

  UniqueFd fd_;
  std::uint32_t seq_ = 0;
  std::unique_ptr<std::array<std::uint8_t, kBufferBytes>> buf_;
};

}  // namespace hawser::netlink
