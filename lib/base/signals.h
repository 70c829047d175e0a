// SPDX-License-Identifier: Apache-2.0
// Termination signals as something to wait for. block() in main() before any other thread starts: every later thread
// inherits the mask, so SIGTERM and SIGINT reach only wait(). SIGPIPE is ignored from then on (writes report EPIPE
// instead).
#pragma once

#include <optional>

#include "lib/base/clock.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace hawser {

class TerminationSignals {
 public:
  // `hangup`: SIGHUP too, for programs that read their configuration again upon it.
  static Result<TerminationSignals> block(bool hangup = false);

  // Readable when a signal waits; for a poll loop of the caller's.
  [[nodiscard]] int fd() const { return fd_.get(); }
  // Blocks until one of them came; returns its number.
  Result<int> wait();
  // The same, but empty when `timeout` passes first.
  Result<std::optional<int>> wait_for(std::chrono::milliseconds timeout);

 private:
  explicit TerminationSignals(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<std::optional<int>> wait_ms(int timeout_ms);
  UniqueFd fd_;
};

}  // namespace hawser
