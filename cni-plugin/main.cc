// SPDX-License-Identifier: Apache-2.0
// The CNI plugin's process: environment, standard input and output around run_plugin().
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#include <unistd.h>

#include "cni-plugin/verbs.h"

namespace {

constexpr std::size_t kMaxInputBytes = 4u << 20;

std::string variable(const char* name) {
  const char* v = std::getenv(name);
  return v ? v : "";
}

std::string read_all(int fd) {
  std::string s;
  std::array<char, 16384> buf;
  while (s.size() < kMaxInputBytes) {
    auto n = read(fd, buf.data(), buf.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    s.append(buf.data(), static_cast<std::size_t>(n));
  }
  return s;
}

bool write_all(int fd, std::string_view s) {
  while (!s.empty()) {
    auto n = write(fd, s.data(), s.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    s.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--version")
    return write_all(STDOUT_FILENO, "hawser " HAWSER_VERSION "\n") ? 0 : 1;
  hawser::cni::Invocation in{.get_env = variable};
  // Without a verb there may be a terminal on standard input, which would never end.
  if (!variable("CNI_COMMAND").empty()) in.input = read_all(STDIN_FILENO);
  auto answer = hawser::cni::run_plugin(in);
  bool written = write_all(STDERR_FILENO, answer.err) && write_all(STDOUT_FILENO, answer.out);
  return written ? answer.exit_status : 1;
}
