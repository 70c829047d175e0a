// SPDX-License-Identifier: Apache-2.0
#include "lib/nft/monitor.h"

#include <thread>
#include <vector>

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "lib/base/log.h"
#include "lib/base/unique_fd.h"
#include "lib/nft/message.h"
#include "lib/nft/socket.h"

namespace hawser::nft {
namespace {

constexpr std::size_t kReceiveBytes = 64 * 1024;
constexpr std::size_t kQueueBytes = 1024 * 1024;

}  // namespace

struct NftMonitor::Impl {
  NfSocket socket;
  UniqueFd stop;
  std::string table;
  std::function<void()> on_change;
  std::thread thread;

  // Reads all that waits; whether any of it is about our table.
  bool drain(std::vector<std::uint8_t>& buf) {
    bool changed = false;
    for (;;) {
      auto n = socket.receive(buf, false);
      if (!n && n.error().code == ENOBUFS) {
        changed = true;
        continue;
      }
      if (!n) {
        log::warn("nft monitor: {}", n.error().text);
        return true;
      }
      if (*n == 0) return changed;
      int left = static_cast<int>(*n);
      for (auto* h = reinterpret_cast<const nlmsghdr*>(buf.data()); mnl_nlmsg_ok(h, left);
           h = mnl_nlmsg_next(h, &left)) {
        if ((h->nlmsg_type >> 8) == NFNL_SUBSYS_NFTABLES && table_of(h) == table) changed = true;
      }
    }
  }

  void run() {
    std::vector<std::uint8_t> buf(kReceiveBytes);
    for (;;) {
      pollfd fds[] = {{socket.fd(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0) continue;  // EINTR
      if (fds[1].revents != 0) return;
      if (drain(buf)) on_change();
    }
  }
};

NftMonitor::NftMonitor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->thread = std::thread([i = impl_.get()] { i->run(); });
}

NftMonitor::~NftMonitor() {
  eventfd_write(impl_->stop.get(), 1);
  impl_->thread.join();
}

Result<std::unique_ptr<NftMonitor>> NftMonitor::start(std::string table, std::uint32_t own_port,
                                                      std::function<void()> on_foreign_change) {
  auto s = NfSocket::open();
  if (!s) return propagate(s, "nft monitor");
  s->reserve_receive(kQueueBytes);
  if (auto r = s->ignore_changes_of(own_port); !r) return propagate(r, "nft monitor");
  if (auto r = s->join(NFNLGRP_NFTABLES); !r) return propagate(r, "nft monitor");
  UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  if (!stop) return fail_errno(errno, "nft monitor: eventfd");
  auto impl = std::make_unique<Impl>(std::move(*s), std::move(stop), std::move(table), std::move(on_foreign_change));
  return std::unique_ptr<NftMonitor>(new NftMonitor(std::move(impl)));
}

}  // namespace hawser::nft
