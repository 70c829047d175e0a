// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/collect/netns_names.h"

#include <algorithm>
#include <filesystem>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"

namespace hawser::cni {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWord = "/netns-folder";  // in the run folder: the mount namespace's inode, the folder
constexpr std::string_view kPrefix = "cni-";
constexpr std::string_view kForm = "00000000-0000-0000-0000-000000000000";

Result<std::string> mount_namespace() {
  struct stat st {};
  // The calling thread's: the process may have threads elsewhere.
  if (stat("/proc/thread-self/ns/mnt", &st) != 0) return fail_errno(errno, "read the mount namespace");
  return fmt::format("{}", st.st_ino);
}

// The folder whose names may be judged here; empty: none.
Result<std::string> folder_here(const std::string& run_dir) {
  auto word = read_file(run_dir + kWord, 4096);
  if (!word && is_not_found(word.error())) return std::string();
  if (!word) return propagate(word);
  auto here = mount_namespace();
  if (!here) return propagate(here);
  const auto space = word->find(' ');
  if (space == word->npos || word->substr(0, space) != *here) return std::string();
  return word->substr(space + 1);
}

// An empty plain file that nothing is mounted on, last touched before `before`.
bool leads_nowhere(const std::string& path, WallTime before) {
  auto fd = UniqueFd::open(path.c_str(), O_PATH | O_NOFOLLOW);
  struct statfs in {};
  struct stat st {};
  if (!fd || fstatfs(fd->get(), &in) != 0 || fstat(fd->get(), &st) != 0) return false;
  if (in.f_type == NSFS_MAGIC || !S_ISREG(st.st_mode) || st.st_size != 0) return false;
  const auto touched = WallTime(std::chrono::seconds(st.st_mtim.tv_sec) + Nanos(st.st_mtim.tv_nsec));
  return touched < before;
}

}  // namespace

bool is_runtime_netns_name(std::string_view name) {
  if (!name.starts_with(kPrefix)) return false;
  return std::ranges::equal(name.substr(kPrefix.size()), kForm, [](char c, char form) {
    return form == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

Result<> note_netns_folder(const std::string& run_dir, const std::string& netns) {
  const fs::path path(netns);
  if (!path.is_absolute() || !is_runtime_netns_name(path.filename().native())) return {};
  auto here = mount_namespace();
  if (!here) return propagate(here);
  auto wrote = write_file_if_changed(run_dir + kWord, *here + " " + path.parent_path().native(), {.mode = 0600});
  if (!wrote) return propagate(wrote);
  return {};
}

void sweep_netns_names(const std::string& run_dir, Nanos grace, Sweep& sweep, Clock& clock) {
  auto folder = folder_here(run_dir);
  std::error_code ec;
  if (folder && !folder->empty()) {
    for (const auto& entry : fs::directory_iterator(*folder, ec)) {
      const auto& path = entry.path().native();
      if (!is_runtime_netns_name(entry.path().filename().native()) || !leads_nowhere(path, clock.wall() - grace))
        continue;
      // EBUSY: mounted a moment ago.
      if (unlink(path.c_str()) == 0)
        sweep.removed.push_back(
            {Leak::Kind::kNetnsName, "", fmt::format("empty name {} of a network namespace", path)});
      else if (errno != ENOENT && errno != EBUSY && sweep.error)
        sweep.error = fail_errno(errno, "remove {}", path);
    }
  }
  if (!sweep.error) return;
  if (!folder) sweep.error = propagate(folder);
  if (ec && ec.value() != ENOENT) sweep.error = fail(ec.value(), "list {}: {}", *folder, ec.message());
}

}  // namespace hawser::cni
