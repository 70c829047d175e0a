// SPDX-License-Identifier: Apache-2.0
// Whole files: read one, replace one so that a reader or a crash sees the old or the new content and nothing between,
// and lock one against other processes. Blocking; any thread.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace hawser {

struct WriteFileOptions {
  unsigned mode = 0644;
  bool durable = false;  // fsync file and folder: the new content survives a power cut
};

// Writes a temporary file in the same folder and renames it over `path`.
Result<> write_file(const std::string& path, std::string_view data, const WriteFileOptions& o = {});
// Replaces only if the content differs; true when it wrote.
Result<bool> write_file_if_changed(const std::string& path, std::string_view data, const WriteFileOptions& o = {});

inline constexpr std::size_t kMaxFileBytes = 64u << 20;
// Works for /proc files too. A file longer than max_bytes is an error (EFBIG).
Result<std::string> read_file(const std::string& path, std::size_t max_bytes = kMaxFileBytes);

// mkdir -p; existing folders are success.
Result<> make_folders(const std::string& path, unsigned mode = 0755);

// flock(2) on a file of its own, made if missing. Held until destroyed, or until the process dies.
class FileLock {
 public:
  // Waits for the lock.
  static Result<FileLock> acquire(const std::string& path);
  // Fails with EWOULDBLOCK at once if another holder has it.
  static Result<FileLock> try_acquire(const std::string& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  static Result<FileLock> take(const std::string& path, int operation);
  UniqueFd fd_;
};

}  // namespace hawser
