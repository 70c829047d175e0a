// SPDX-License-Identifier: Apache-2.0
// lib/base/log.h without the logging framework: loading it would cost the plugin, started once per pod, more than
// attaching one. Linked into the plugin in place of lib/base/log.cc; only errors are of interest to a runtime's log.
#include <string>

#include <unistd.h>

#include "lib/base/log.h"

namespace hawser::log {

void init(std::string_view, Level) {}
bool enabled(Level level) {
  return level >= Level::kWarn;
}
void write(Level, std::string_view text) {
  std::string line = fmt::format("hawser: {}\n", text);
  // Nobody is left to tell if standard error is closed.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

}  // namespace hawser::log
