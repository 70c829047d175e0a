// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/link_removal.h"

#include <array>
#include <csignal>
#include <cstring>
#include <set>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/endian.h"
#include "lib/base/unique_fd.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

using netlink::KernelRtnl;

// How long an announcement is waited for before the kernel is asked instead.
constexpr int kAskAgainMs = 500;

// Deletes one after the other; the last errno, 0 for success.
int delete_all(KernelRtnl& rtnl, const std::vector<int>& indexes) {
  int err = 0;
  for (int i : indexes) {
    auto r = rtnl.delete_link(i);
    if (!r && !is_not_found(r.error())) err = r.error().code;
  }
  return err;
}

// The child's whole life. It must not keep the runtime waiting for the end of our output.
[[noreturn]] void be_the_child(KernelRtnl& rtnl, const std::vector<int>& indexes, const UniqueFd& report) {
  if (auto null = UniqueFd::open("/dev/null", O_RDWR)) {
    for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null->get(), fd);
  }
  const auto err = static_cast<std::uint8_t>(delete_all(rtnl, indexes));
  // The parent may be gone, having seen the announcement.
  signal(SIGPIPE, SIG_IGN);
  auto ignored = write(report.get(), &err, 1);
  (void)ignored;
  _exit(0);
}

// Those of `left` that the kernel no longer has are dropped from it.
Result<> ask(std::set<int>& left) {
  auto rtnl = KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto links = rtnl->list_links();
  if (!links) return propagate(links);
  std::set<int> there;
  for (const auto& l : *links) {
    if (left.contains(l.index)) there.insert(l.index);
  }
  left = std::move(there);
  return {};
}

Result<> await(netlink::Socket& events, const UniqueFd& report, std::set<int> left) {
  while (!left.empty()) {
    std::array<pollfd, 2> p{pollfd{events.fd(), POLLIN, 0}, pollfd{report.get(), POLLIN, 0}};
    int n = poll(p.data(), p.size(), kAskAgainMs);
    if (n < 0 && errno != EINTR) return fail_errno(errno, "poll");
    bool unsure = n == 0;
    if (p[0].revents != 0) {
      auto drained = events.drain([&](const nlmsghdr* h) {
        auto link = h->nlmsg_type == RTM_DELLINK ? netlink::parse_link(h) : std::nullopt;
        if (link) left.erase(link->index);
      });
      if (!drained) return propagate(drained);
      unsure |= *drained == netlink::Socket::Drained::kLost;
    }
    if (p[1].revents != 0) {
      std::uint8_t err = 0;
      const bool told = ::read(report.get(), &err, 1) == 1;
      if (told && err == 0) return {};
      return fail(told ? err : ECHILD, "delete the link: {}", told ? strerror(err) : "the child ended early");
    }
    if (unsure) {
      if (auto r = ask(left); !r) return r;
    }
  }
  return {};
}

// Lets nothing through but the announcements of these links' end: with many DELs at once each would else be woken by
// every change of every other's link. What came before the filter is read and passed over.
Result<> hear_only_the_end_of(const netlink::Socket& events, const std::vector<int>& indexes) {
  // The kernel's loads turn what they read to big endian; the message has the host's order.
  const auto type = be16(RTM_DELLINK).network();
  std::vector<sock_filter> code{
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, type, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(nlmsghdr) + offsetof(ifinfomsg, ifi_index)),
  };
  for (int i : indexes) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, be32(static_cast<std::uint32_t>(i)).network(), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, 0xffffffff));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (setsockopt(events.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
    return fail_errno(errno, "filter link events");
  return {};
}

}  // namespace

Result<> remove_links(const std::vector<int>& indexes) {
  if (indexes.empty()) return {};
  // Both before the child: what it does must not be missed, and it should find everything ready.
  auto events = netlink::Socket::open(NETLINK_ROUTE, {.groups = {RTNLGRP_LINK}});
  auto rtnl = KernelRtnl::open();
  std::array<int, 2> ends{};
  if (!events) return propagate(events);
  if (!rtnl) return propagate(rtnl);
  if (auto r = hear_only_the_end_of(*events, indexes); !r) return r;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) be_the_child(*rtnl, indexes, write_end);
  write_end.reset();
  auto r = await(*events, read_end, {indexes.begin(), indexes.end()});
  // Collects it if it has ended; else whoever adopts orphans will.
  waitpid(pid, nullptr, WNOHANG);
  return r;
}

}  // namespace hawser::cni
