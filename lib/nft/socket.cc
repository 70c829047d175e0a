// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/socket.h"

#include <string>
#include <vector>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include "lib/nft/attr.h"

namespace hawser::nft {
namespace {

constexpr std::size_t kDumpBytes = 64 * 1024;  // the kernel fills at most 32 KiB a datagram

}  // namespace

void NfSocket::Deleter::operator()(mnl_socket* s) const {
  mnl_socket_close(s);
}

Result<NfSocket> NfSocket::open() {
  NfSocket r;
  r.s_.reset(mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC));
  if (!r.s_) return fail_errno(errno, "open nfnetlink socket");
  if (mnl_socket_bind(r.s_.get(), 0, MNL_SOCKET_AUTOPID) < 0) return fail_errno(errno, "bind nfnetlink socket");
  int on = 1;
  // An error answer repeats the whole request unless capped, and carries the kernel's sentence only if asked for.
  mnl_socket_setsockopt(r.s_.get(), NETLINK_CAP_ACK, &on, sizeof on);
  mnl_socket_setsockopt(r.s_.get(), NETLINK_EXT_ACK, &on, sizeof on);
  return r;
}

void NfSocket::reserve_send(std::size_t bytes) {
  if (bytes <= send_reserved_) return;
  const int n = static_cast<int>(bytes);
  if (setsockopt(fd(), SOL_SOCKET, SO_SNDBUFFORCE, &n, sizeof n) < 0)
    setsockopt(fd(), SOL_SOCKET, SO_SNDBUF, &n, sizeof n);
  send_reserved_ = bytes;
}

void NfSocket::reserve_receive(std::size_t bytes) {
  const int n = static_cast<int>(bytes);
  if (setsockopt(fd(), SOL_SOCKET, SO_RCVBUFFORCE, &n, sizeof n) < 0)
    setsockopt(fd(), SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
}

Result<> NfSocket::send(std::span<const std::uint8_t> bytes) {
  reserve_send(bytes.size());
  if (mnl_socket_sendto(s_.get(), bytes.data(), bytes.size()) < 0) return fail_errno(errno, "send to nfnetlink");
  return {};
}

Result<std::size_t> NfSocket::receive(std::span<std::uint8_t> buf, bool wait) {
  for (;;) {
    const ssize_t n = ::recv(fd(), buf.data(), buf.size(), wait ? 0 : MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return 0;
    return fail_errno(errno, "receive from nfnetlink");
  }
}

Result<> NfSocket::join(int group) {
  if (mnl_socket_setsockopt(s_.get(), NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
    return fail_errno(errno, "join nfnetlink group {}", group);
  }
  return {};
}

Result<> NfSocket::ignore_changes_of(std::uint32_t id) {
  // A notification's datagram starts with a nlmsghdr whose nlmsg_pid (offset 12, host order) is the port of who made
  // the change; one datagram never mixes two. A load of the filter machine is big endian.
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(id), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog prog{.len = std::size(code), .filter = code};
  if (setsockopt(fd(), SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) < 0)
    return fail_errno(errno, "filter nfnetlink socket");
  return {};
}

std::uint32_t NfSocket::port_id() const {
  return mnl_socket_get_portid(s_.get());
}
int NfSocket::fd() const {
  return mnl_socket_get_fd(s_.get());
}

std::uint32_t NfSocket::next_seq(std::uint32_t count) {
  const std::uint32_t r = seq_;
  seq_ += count;
  return r;
}

Result<> NfSocket::dump(nlmsghdr* request, const std::function<void(const nlmsghdr*)>& each) {
  request->nlmsg_seq = next_seq();
  request->nlmsg_flags |= NLM_F_REQUEST | NLM_F_DUMP;
  if (auto r = send({reinterpret_cast<const std::uint8_t*>(request), request->nlmsg_len}); !r) return r;
  std::vector<std::uint8_t> buf(kDumpBytes);
  bool interrupted = false;
  for (;;) {
    auto n = receive(buf, true);
    if (!n) return propagate(n);
    int left = static_cast<int>(*n);
    for (auto* h = reinterpret_cast<const nlmsghdr*>(buf.data()); mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
      if (h->nlmsg_seq != request->nlmsg_seq) continue;  // the rest of a dump that was given up
      if ((h->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (h->nlmsg_type == NLMSG_ERROR) {
        const Answer a = decode_answer(h);
        return fail_errno(a.err, "nfnetlink dump");
      }
      if (h->nlmsg_type == NLMSG_DONE) {
        if (interrupted) return fail(EINTR, "nfnetlink dump: changed while it was read");
        return {};
      }
      each(h);
    }
  }
}

Answer decode_answer(const nlmsghdr* h) {
  Answer a{.seq = h->nlmsg_seq};
  const auto* e = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(h));
  a.err = -e->error;
  if ((h->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return a;
  std::size_t offset = sizeof(nlmsgerr);
  if ((h->nlmsg_flags & NLM_F_CAPPED) == 0)
    offset += mnl_nlmsg_get_payload_len(h) > offset ? e->msg.nlmsg_len - MNL_NLMSG_HDRLEN : 0;
  for (const nlattr* attr : AttrRange(h, static_cast<unsigned>(offset))) {
    if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG) a.text = mnl_attr_get_str(attr);
  }
  return a;
}

}  // namespace hawser::nft
