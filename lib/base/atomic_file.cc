// SPDX-License-Identifier: Apache-2.0
#include "lib/base/atomic_file.h"

#include <cstdio>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/rollback.h"

namespace hawser {
namespace {

std::string folder_of(const std::string& path) {
  auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<> write_all(int fd, std::string_view data, const std::string& path) {
  while (!data.empty()) {
    ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write {}", path);
    data.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<> sync_folder(const std::string& path) {
  auto folder = UniqueFd::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY);
  if (!folder) return propagate(folder);
  if (::fsync(folder->get()) < 0) return fail_errno(errno, "fsync folder of {}", path);
  return {};
}

}  // namespace

Result<> write_file(const std::string& path, std::string_view data, const WriteFileOptions& o) {
  std::string temp = path + ".XXXXXX";
  UniqueFd fd(::mkostemp(temp.data(), O_CLOEXEC));
  if (!fd) return fail_errno(errno, "make a temporary file beside {}", path);
  Rollback undo;
  undo.push([&] { ::unlink(temp.c_str()); });
  if (::fchmod(fd.get(), o.mode) < 0) return fail_errno(errno, "chmod {}", temp);
  if (auto r = write_all(fd.get(), data, temp); !r) return r;
  if (o.durable && ::fsync(fd.get()) < 0) return fail_errno(errno, "fsync {}", temp);
  if (::rename(temp.c_str(), path.c_str()) < 0) return fail_errno(errno, "rename {} to {}", temp, path);
  undo.commit();
  // Without this the rename itself may be lost in a power cut, though the file's data is safe.
  if (o.durable) return sync_folder(path);
  return {};
}

Result<bool> write_file_if_changed(const std::string& path, std::string_view data, const WriteFileOptions& o) {
  if (auto old = read_file(path); old && *old == data) return false;
  if (auto r = write_file(path, data, o); !r) return propagate(r);
  return true;
}

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  auto fd = UniqueFd::open(path.c_str(), O_RDONLY);
  if (!fd) return propagate(fd);
  // Sizes of /proc files read as 0, so the end is found by reading.
  std::string out;
  char buf[16384];
  for (;;) {
    ssize_t n = ::read(fd->get(), buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read {}", path);
    if (n == 0) return out;
    out.append(buf, static_cast<std::size_t>(n));
    if (out.size() > max_bytes) return fail(EFBIG, "read {}: longer than {} bytes", path, max_bytes);
  }
}

Result<> make_folders(const std::string& path, unsigned mode) {
  for (std::size_t at = 1; at <= path.size(); at++) {
    if (at != path.size() && path[at] != '/') continue;
    std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), mode) == 0 || errno == EEXIST) continue;
    int err = errno;
    // An existing folder on a read-only file system answers EROFS rather than EEXIST.
    if (::access(part.c_str(), F_OK) == 0) continue;
    return fail_errno(err, "make folder {}", part);
  }
  struct stat st {};
  if (::stat(path.c_str(), &st) < 0) return fail_errno(errno, "make folder {}", path);
  if (!S_ISDIR(st.st_mode)) return fail_errno(ENOTDIR, "make folder {}", path);
  return {};
}

Result<FileLock> FileLock::take(const std::string& path, int operation) {
  auto fd = UniqueFd::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  if (!fd) return propagate(fd, "lock");
  while (::flock(fd->get(), operation) < 0)
    if (errno != EINTR) return fail_errno(errno, "lock {}", path);
  return FileLock(std::move(*fd));
}
Result<FileLock> FileLock::acquire(const std::string& path) {
  return take(path, LOCK_EX);
}
Result<FileLock> FileLock::try_acquire(const std::string& path) {
  return take(path, LOCK_EX | LOCK_NB);
}

}  // namespace hawser
