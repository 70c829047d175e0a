// SPDX-License-Identifier: Apache-2.0
#include "lib/base/listen_fds.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace hawser {
namespace {

constexpr int kFirstFd = 3;  // SD_LISTEN_FDS_START

long number_of(const char* name) {
  const char* text = ::getenv(name);
  if (!text) return -1;
  std::string_view s = text;
  long n = -1;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), n);
  return ec == std::errc() && end == s.data() + s.size() ? n : -1;
}

std::string nth_name(std::string_view names, int n) {
  for (; n > 0; n--) {
    auto colon = names.find(':');
    if (colon == names.npos) return {};
    names.remove_prefix(colon + 1);
  }
  return std::string(names.substr(0, names.find(':')));
}

}  // namespace

std::vector<PassedFd> take_listen_fds() {
  std::vector<PassedFd> out;
  long count = number_of("LISTEN_PID") == ::getpid() ? number_of("LISTEN_FDS") : 0;
  const char* names = ::getenv("LISTEN_FDNAMES");
  for (int i = 0; i < count; i++) {
    int fd = kFirstFd + i;
    // A count larger than what was passed must not make us own somebody else's number later.
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) break;
    out.push_back({UniqueFd(fd), names ? nth_name(names, i) : std::string()});
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  return out;
}

}  // namespace hawser
