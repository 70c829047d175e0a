// SPDX-License-Identifier: Apache-2.0
// UniqueFd: sole owner of a file descriptor. Move-only; the destructor closes. The only close() of the tree is here.
// Descriptors are opened O_CLOEXEC by whoever makes them. Not shared between threads without a lock of the caller's.
#pragma once

#include <utility>

#include "lib/base/result.h"

namespace hawser {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& o) noexcept {
    if (this != &o) reset(std::exchange(o.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  // open(2) with O_CLOEXEC added.
  static Result<UniqueFd> open(const char* path, int flags, unsigned mode = 0);

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace hawser
