// SPDX-License-Identifier: Apache-2.0
// NodeReporter: registers this node and keeps its Node status and its Lease up to date, on a thread of its own. Until
// the node is Ready it looks five times a second, then every 10 s; an unchanged status is written again only every 5
// minutes, the Lease every 10 s.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "controlplane/agent/node_status.h"
#include "lib/kube/client.h"

namespace hawser::agent {

class NodeReporter {
 public:
  NodeReporter(kube::Client& client, CriRuntime& runtime, CriImages& images, const NodeSettings& node, Clock& clock);
  ~NodeReporter();

  void start();
  void stop();
  [[nodiscard]] bool ready() const;
  // One round, for start() and tests: returns how long to wait for the next.
  Nanos round();

 private:
  void loop();
  NodeInputs look();
  Result<> ensure_registered();
  Result<bool> still_reported();
  Result<> report(const NodeInputs& in);
  Result<> renew_lease();

  kube::Client& client_;
  CriRuntime& runtime_;
  CriImages& images_;
  const NodeSettings& node_;
  Clock& clock_;
  // Loop thread only.
  MachineFacts machine_;
  bool registered_ = false;
  std::string node_uid_;
  kube::Object reported_;    // the status without times, as last written
  kube::Object api_status_;  // as the API has it
  MonoTime reported_at_{};
  MonoTime compare_due_{};
  MonoTime lease_due_{};
  kube::ObjectPtr lease_;
  int api_failures_ = 0;

  mutable std::mutex mu_;
  std::condition_variable cv_;
  bool ready_ = false;     // guarded by mu_
  bool stopping_ = false;  // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::agent
