// SPDX-License-Identifier: Apache-2.0
// Performs one probe or lifecycle hook: exec in the container, HTTP GET, TCP connect. Blocks up to the timeout. Any
// thread.
#pragma once

#include <chrono>
#include <string>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/pod_spec.h"

namespace hawser::agent {

struct CheckTarget {
  std::string container_id;
  std::string ip;  // the pod's
};

class CheckRunner {
 public:
  virtual ~CheckRunner() = default;
  // Success, or an error whose text is what the event shows: "HTTP probe failed with statuscode: 503".
  virtual Result<> run(const Check& check, const CheckTarget& target, std::chrono::seconds timeout) = 0;
};

class NetworkCheckRunner final : public CheckRunner {
 public:
  explicit NetworkCheckRunner(CriRuntime& runtime) : runtime_(runtime) {}
  Result<> run(const Check& check, const CheckTarget& target, std::chrono::seconds timeout) override;

 private:
  Result<> http_get(const Check& check, const std::string& host, std::chrono::seconds timeout);
  CriRuntime& runtime_;
};

}  // namespace hawser::agent
