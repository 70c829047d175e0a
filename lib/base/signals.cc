// SPDX-License-Identifier: Apache-2.0
#include "lib/base/signals.h"

#include <csignal>

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace hawser {

Result<TerminationSignals> TerminationSignals::block(bool hangup) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (hangup) sigaddset(&set, SIGHUP);
  if (int err = pthread_sigmask(SIG_BLOCK, &set, nullptr)) return fail_errno(err, "block termination signals");
  std::signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "signalfd");
  return TerminationSignals(std::move(fd));
}

Result<std::optional<int>> TerminationSignals::wait_ms(int timeout_ms) {
  for (;;) {
    pollfd p{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    int n = ::poll(&p, 1, timeout_ms);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "poll signals");
    if (n == 0) return std::nullopt;
    signalfd_siginfo info;
    if (::read(fd_.get(), &info, sizeof info) == sizeof info) return static_cast<int>(info.ssi_signo);
    if (errno != EAGAIN && errno != EINTR) return fail_errno(errno, "read signals");
  }
}

Result<int> TerminationSignals::wait() {
  auto got = wait_ms(-1);
  if (!got) return propagate(got);
  return got->value_or(0);
}
Result<std::optional<int>> TerminationSignals::wait_for(std::chrono::milliseconds timeout) {
  return wait_ms(static_cast<int>(timeout.count()));
}

}  // namespace hawser
