// SPDX-License-Identifier: Apache-2.0
#include "lib/base/sysctl.h"

#include <algorithm>

#include <fcntl.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/unique_fd.h"

namespace hawser::sysctl {
namespace {

Result<std::string> path_of(std::string_view key) {
  std::string path(key);
  if (!key.contains('/')) std::ranges::replace(path, '.', '/');
  // Keys carry interface names, which come from outside.
  if (key.empty() || path.starts_with('/') || path.contains("..")) return fail(EINVAL, "sysctl key \"{}\"", key);
  return "/proc/sys/" + path;
}

}  // namespace

Result<std::string> read(std::string_view key) {
  auto path = path_of(key);
  if (!path) return propagate(path);
  auto text = read_file(*path);
  if (!text) return propagate(text, "sysctl {}", key);
  while (text->ends_with('\n')) text->pop_back();
  return text;
}

Result<> write(std::string_view key, std::string_view value) {
  auto path = path_of(key);
  if (!path) return propagate(path);
  auto fd = UniqueFd::open(path->c_str(), O_WRONLY);
  if (!fd) return propagate(fd, "sysctl {}", key);
  if (::write(fd->get(), value.data(), value.size()) < 0) return fail_errno(errno, "sysctl {}={}", key, value);
  return {};
}

Result<bool> ensure(std::string_view key, std::string_view value) {
  auto now = read(key);
  if (!now) return propagate(now);
  if (*now == value) return false;
  if (auto r = write(key, value); !r) return propagate(r);
  return true;
}

}  // namespace hawser::sysctl
