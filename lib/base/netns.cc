// SPDX-License-Identifier: Apache-2.0
#include "lib/base/netns.h"

#include <thread>

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "lib/base/log.h"

namespace hawser {

Result<NetNs> NetNs::open(const std::string& path) {
  auto fd = UniqueFd::open(path.c_str(), O_RDONLY);
  if (!fd) return propagate(fd, "network namespace");
  struct statfs fs {};
  // A name under /run/netns whose bind mount is gone is an ordinary empty file; setns on it would only say EINVAL.
  if (::fstatfs(fd->get(), &fs) < 0) return fail_errno(errno, "network namespace {}", path);
  if (fs.f_type != NSFS_MAGIC && fs.f_type != PROC_SUPER_MAGIC)
    return fail(EINVAL, "network namespace {}: not a namespace file", path);
  return NetNs(std::move(*fd));
}
Result<NetNs> NetNs::of_pid(pid_t pid) {
  return open(fmt::format("/proc/{}/ns/net", pid));
}
Result<NetNs> NetNs::current() {
  return open("/proc/thread-self/ns/net");
}

Result<NetNs> NetNs::create() {
  Result<NetNs> made = fail(EAGAIN, "network namespace: not made");
  // unshare() moves the thread that calls it; a helper thread takes that move and ends.
  std::thread([&made] {
    if (::unshare(CLONE_NEWNET) < 0)
      made = fail_errno(errno, "unshare network namespace");
    else
      made = current();
  }).join();
  return made;
}

Result<std::uint64_t> NetNs::inode() const {
  struct stat st {};
  if (::fstat(fd_.get(), &st) < 0) return fail_errno(errno, "stat network namespace");
  return static_cast<std::uint64_t>(st.st_ino);
}

Result<NetNsGuard> NetNsGuard::enter(int fd) {
  auto back = NetNs::current();
  if (!back) return propagate(back, "remember the current");
  if (::setns(fd, CLONE_NEWNET) < 0) return fail_errno(errno, "enter network namespace");
  return NetNsGuard(std::move(*back));
}

NetNsGuard::~NetNsGuard() {
  if (!back_) return;
  // Can fail only if the thread gave up CAP_SYS_ADMIN inside the scope.
  if (::setns(back_->fd(), CLONE_NEWNET) < 0)
    log::error("thread stays in a foreign network namespace: {}", fail_errno(errno, "setns").error().text);
}

}  // namespace hawser
