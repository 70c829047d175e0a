// SPDX-License-Identifier: Apache-2.0
// Rotation of container logs: a log over the limit is renamed with a time suffix, the runtime opens a new one, and only
// so many pieces are kept. Blocking file work; one caller at a time.
#pragma once

#include <string>

#include "controlplane/agent/cri.h"
#include "lib/base/clock.h"

namespace hawser::agent {

struct LogLimits {
  std::uint64_t max_bytes = 10u << 20;
  int max_files = 5;  // the current one included
};

// Rotates if the log at `path` is over the limit; true if it did.
Result<bool> rotate_log(const std::string& path, const std::string& container_id, CriImages& runtime,
                        const LogLimits& limits, WallTime now);

}  // namespace hawser::agent
