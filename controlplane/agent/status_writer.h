// SPDX-License-Identifier: Apache-2.0
// StatusWriter: writes pod statuses and the end of pods to the API, on threads of its own, so that a slow or absent API
// server never holds up a container. Of several statuses of one pod the newest is written; failures are tried again
// with back-off.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/agent/pod_worker.h"
#include "lib/kube/client.h"

namespace hawser::agent {

class StatusWriter final : public StatusSink {
 public:
  StatusWriter(kube::Client& client, Clock& clock, int threads = 2);
  ~StatusWriter() override;

  void publish(const PodSpecPtr& spec, kube::Object status, bool urgent) override;
  void finish(const PodSpecPtr& spec) override;
  // Waits until nothing is pending, at most `timeout`.
  bool drain(Nanos timeout);
  void stop();

 private:
  struct Pending {
    PodSpecPtr spec;
    std::optional<kube::Object> status;
    bool finish = false;
    bool in_flight = false;
    MonoTime due{};
    int failures = 0;
  };
  void loop();
  // True: done. False: try again.
  bool write(const Pending& p);

  kube::Client& client_;
  Clock& clock_;
  std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Pending> pending_;  // guarded by mu_; by pod uid
  std::uint64_t changes_ = 0;               // guarded by mu_
  bool stopping_ = false;                   // guarded by mu_
  std::vector<std::thread> threads_;
};

}  // namespace hawser::agent
