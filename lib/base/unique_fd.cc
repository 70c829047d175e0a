// SPDX-License-Identifier: Apache-2.0
#include "lib/base/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

namespace hawser {

Result<UniqueFd> UniqueFd::open(const char* path, int flags, unsigned mode) {
  int fd;
  do fd = ::open(path, flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno(errno, "open {}", path);
  return UniqueFd(fd);
}

void UniqueFd::reset(int fd) {
  // Linux frees the descriptor even when close() reports EINTR, so it is never retried (close(2), NOTES).
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

}  // namespace hawser
