// SPDX-License-Identifier: Apache-2.0
// Network namespaces: NetNs holds one open (and so alive); NetNsGuard moves the calling thread into one and back.
// Namespaces are a property of a thread, so a guard lives and dies on one thread and must not be moved to another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace hawser {

class NetNs {
 public:
  static Result<NetNs> open(const std::string& path);  // "/run/netns/blue", "/proc/17/ns/net"
  static Result<NetNs> of_pid(pid_t pid);
  static Result<NetNs> current();  // the calling thread's
  // A new, nameless one; it lives while a descriptor or a thread holds it. The calling thread stays where it is.
  static Result<NetNs> create();

  [[nodiscard]] int fd() const { return fd_.get(); }
  // Identity: two descriptors of one namespace have the same inode (all are on one nsfs).
  [[nodiscard]] Result<std::uint64_t> inode() const;

 private:
  explicit NetNs(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

class NetNsGuard {
 public:
  // Moves the calling thread into the namespace of `fd` until the guard is destroyed.
  static Result<NetNsGuard> enter(int fd);
  static Result<NetNsGuard> enter(const NetNs& ns) { return enter(ns.fd()); }
  NetNsGuard(NetNsGuard&& o) noexcept : back_(std::exchange(o.back_, std::nullopt)) {}
  NetNsGuard& operator=(NetNsGuard&&) = delete;
  ~NetNsGuard();

 private:
  explicit NetNsGuard(NetNs back) : back_(std::move(back)) {}
  std::optional<NetNs> back_;
};

}  // namespace hawser
