// SPDX-License-Identifier: Apache-2.0
#include "lib/netlink/socket.h"

#include <linux/netlink.h>
#include <sys/socket.h>

#include "lib/base/netns.h"

namespace hawser::netlink {
namespace {

void set_option(int fd, int level, int option, int value) {
  // Best effort: an older kernel without the option gives plainer errors or unfiltered dumps, both of which are
  // handled.
  (void)setsockopt(fd, level, option, &value, sizeof value);
}

Result<UniqueFd> open_fd(int protocol, int netns_fd) {
  if (netns_fd < 0) {
    UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    if (!fd) return fail_errno(errno, "open a netlink socket of protocol {}", protocol);
    return fd;
  }
  // A socket stays in the namespace it was made in, so the thread needs to be there only for this call.
  auto guard = NetNsGuard::enter(netns_fd);
  if (!guard) return propagate(guard);
  return open_fd(protocol, -1);
}

// The message of the extended ack that follows an error or done header, or "".
std::string_view extended_ack(const nlmsghdr* h, std::size_t fixed_bytes) {
  if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || h->nlmsg_len < NLMSG_HDRLEN + fixed_bytes) return {};
  Attrs attrs(h, fixed_bytes);
  return attrs.str(NLMSGERR_ATTR_MSG);
}

}  // namespace

Error answer_error(const nlmsghdr* h) {
  int err = 0;
  std::size_t fixed = sizeof(int);
  if (mnl_nlmsg_get_payload_len(h) >= sizeof(int)) std::memcpy(&err, mnl_nlmsg_get_payload(h), sizeof err);
  if (h->nlmsg_type == NLMSG_ERROR) {
    if (mnl_nlmsg_get_payload_len(h) < sizeof(nlmsgerr)) return {EBADMSG, "a truncated netlink error message", {}};
    const auto* e = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(h));
    fixed = sizeof(nlmsgerr);
    // Without the cap the request's payload is echoed between the header and the explanation.
    if (!(h->nlmsg_flags & NLM_F_CAPPED)) fixed += MNL_ALIGN(e->msg.nlmsg_len) - NLMSG_HDRLEN;
  }
  if (err >= 0) return {};
  auto why = extended_ack(h, fixed);
  std::string text = why.empty() ? std::string(strerror(-err)) : fmt::format("{} ({})", why, strerror(-err));
  return {-err, std::move(text), {}};
}

Result<Socket> Socket::open(int protocol, const SocketOptions& o) {
  auto fd = open_fd(protocol, o.netns_fd);
  if (!fd) return propagate(fd);
  set_option(fd->get(), SOL_NETLINK, NETLINK_EXT_ACK, 1);
  set_option(fd->get(), SOL_NETLINK, NETLINK_CAP_ACK, 1);
  set_option(fd->get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  if (o.send_buffer_bytes > 0) set_option(fd->get(), SOL_SOCKET, SO_SNDBUFFORCE, o.send_buffer_bytes);
  if (o.receive_buffer_bytes > 0) set_option(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, o.receive_buffer_bytes);
  sockaddr_nl local{};
  local.nl_family = AF_NETLINK;
  if (bind(fd->get(), reinterpret_cast<sockaddr*>(&local), sizeof local) != 0)
    return fail_errno(errno, "bind a netlink socket");
  for (unsigned group : o.groups) {
    if (setsockopt(fd->get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
      return fail_errno(errno, "join netlink group {}", group);
  }
  return Socket(std::move(*fd));
}

Result<> Socket::send(std::span<const std::uint8_t> bytes) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  ssize_t n = 0;
  do {
    n = sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return fail_errno(errno, "send {} bytes of netlink", bytes.size());
  return {};
}

Result<> Socket::send_request(Message& m) {
  if (m.full()) return fail(EMSGSIZE, "a netlink request does not fit in its buffer");
  m.header()->nlmsg_seq = next_seq();
  return send({reinterpret_cast<const std::uint8_t*>(m.header()), m.header()->nlmsg_len});
}

Result<std::span<const std::uint8_t>> Socket::receive(int flags) {
  for (;;) {
    sockaddr_nl from{};
    socklen_t from_len = sizeof from;
    ssize_t n = recvfrom(fd_.get(), buf_->data(), buf_->size(), flags | MSG_TRUNC, reinterpret_cast<sockaddr*>(&from),
                         &from_len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "receive netlink");
    if (from.nl_pid != 0) continue;  // only the kernel is believed; another process may send to our port
    if (static_cast<std::size_t>(n) > buf_->size()) return fail(EMSGSIZE, "a netlink answer of {} bytes", n);
    return std::span<const std::uint8_t>(buf_->data(), static_cast<std::size_t>(n));
  }
}

Result<> Socket::execute(Message& m) {
  return execute(m, [](const nlmsghdr*) {});
}

Result<> Socket::execute(Message& m, const OnMessage& on_answer) {
  m.header()->nlmsg_flags |= NLM_F_ACK;
  if (auto r = send_request(m); !r) return r;
  for (;;) {
    auto got = receive(0);
    if (!got) return propagate(got);
    int left = static_cast<int>(got->size());
    for (const auto* h = reinterpret_cast<const nlmsghdr*>(got->data()); mnl_nlmsg_ok(h, left);
         h = mnl_nlmsg_next(h, &left)) {
      if (h->nlmsg_seq != seq_) continue;
      if (h->nlmsg_type != NLMSG_ERROR) {
        on_answer(h);
        continue;
      }
      Error e = answer_error(h);
      if (e.code != 0) return std::unexpected(std::move(e));
      return {};
    }
  }
}

Result<bool> Socket::dump_once(const OnMessage& on_message) {
  bool torn = false;
  for (;;) {
    auto got = receive(0);
    if (!got) return propagate(got);
    int left = static_cast<int>(got->size());
    for (const auto* h = reinterpret_cast<const nlmsghdr*>(got->data()); mnl_nlmsg_ok(h, left);
         h = mnl_nlmsg_next(h, &left)) {
      if (h->nlmsg_seq != seq_) continue;
      torn |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
        Error e = answer_error(h);
        if (e.code != 0) return std::unexpected(std::move(e));
        return torn;
      }
      on_message(h);
    }
  }
}

Result<> Socket::dump_raw(Message& m, const std::function<void()>& on_restart, const OnMessage& on_message) {
  m.header()->nlmsg_flags |= NLM_F_DUMP;
  for (int i = 0; i < kDumpTries; i++) {
    on_restart();
    if (auto r = send_request(m); !r) return r;
    auto torn = dump_once(on_message);
    if (!torn) return propagate(torn);
    if (!*torn) return {};
  }
  return fail(EAGAIN, "the table kept changing during {} dumps", kDumpTries);
}

Result<Socket::Drained> Socket::drain(const OnMessage& on_message) {
  bool lost = false;
  for (;;) {
    auto got = receive(MSG_DONTWAIT);
    if (!got && got.error().code == EAGAIN) return lost ? Drained::kLost : Drained::kEmpty;
    if (!got && got.error().code == ENOBUFS) {
      lost = true;
      continue;
    }
    if (!got) return propagate(got);
    int left = static_cast<int>(got->size());
    for (const auto* h = reinterpret_cast<const nlmsghdr*>(got->data()); mnl_nlmsg_ok(h, left);
         h = mnl_nlmsg_next(h, &left))
      on_message(h);
  }
}

}  // namespace hawser::netlink
