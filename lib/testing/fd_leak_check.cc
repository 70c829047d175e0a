// SPDX-License-Identifier: Apache-2.0
#include "lib/testing/fd_leak_check.h"

#include <filesystem>

#include <gtest/gtest.h>

namespace hawser::testing {
namespace {

std::map<int, std::string> open_fds() {
  std::map<int, std::string> out;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ec)) {
    auto target = std::filesystem::read_symlink(entry.path(), ec);
    // The listing's own descriptor is gone when the loop ends.
    if (ec || target.string().ends_with("/fd")) continue;
    out[std::stoi(entry.path().filename().string())] = target.string();
  }
  return out;
}

}  // namespace

FdLeakCheck::FdLeakCheck() : before_(open_fds()) {}
FdLeakCheck::~FdLeakCheck() {
  for (const auto& [fd, target] : open_fds())
    if (!before_.contains(fd)) ADD_FAILURE() << "descriptor " << fd << " leaked: " << target;
}

}  // namespace hawser::testing
