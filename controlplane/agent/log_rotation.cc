// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/log_rotation.h"

#include <algorithm>

#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/agent/cri_log.h"
#include "lib/base/time_text.h"

namespace hawser::agent {

Result<bool> rotate_log(const std::string& path, const std::string& container_id, CriImages& runtime,
                        const LogLimits& limits, WallTime now) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return false;
    return fail_errno(errno, "stat {}", path);
  }
  if (static_cast<std::uint64_t>(st.st_size) < limits.max_bytes) return false;
  // 2026-01-01T00:00:00.000000Z -> 20260101-000000.000000, which sorts by age.
  std::string stamp = rfc3339_micro(now);
  std::erase_if(stamp, [](char c) { return c == '-' || c == ':' || c == 'Z'; });
  std::ranges::replace(stamp, 'T', '-');
  const std::string piece = path + "." + stamp;
  if (::rename(path.c_str(), piece.c_str()) != 0) return fail_errno(errno, "rename {}", path);
  if (auto r = runtime.reopen_log(container_id); !r) {
    // Without a new file the runtime goes on writing into the renamed one: give it its name back.
    ::rename(piece.c_str(), path.c_str());
    return propagate(r, "reopen log {}", path);
  }
  auto pieces = log_pieces(path);
  for (std::size_t i = 0; i + static_cast<std::size_t>(limits.max_files) < pieces.size(); ++i)
    ::unlink(pieces[i].c_str());
  return true;
}

}  // namespace hawser::agent
