// SPDX-License-Identifier: Apache-2.0
// Health endpoints (/healthz, /livez, /readyz) over one table of named checks. Any thread. Source: "Kubernetes API
// health endpoints".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/http/message.h"

namespace hawser::apiserver {

class Health {
 public:
  struct Check {
    std::string name;
    std::function<bool()> good;  // must not block
    bool only_ready = false;     // counts for /readyz alone: not ready yet is no reason to be killed
  };
  explicit Health(std::vector<Check> checks) : checks_(std::move(checks)) {}
  // `endpoint`: "healthz", "livez" or "readyz"; `check`: one of them, or empty for all.
  [[nodiscard]] http::Response answer(const http::Request& r, const std::string& endpoint,
                                      const std::string& check) const;

 private:
  const std::vector<Check> checks_;
};

}  // namespace hawser::apiserver
