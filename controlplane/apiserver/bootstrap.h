// SPDX-License-Identifier: Apache-2.0
// Bootstrap: the objects that every cluster has, put right at start and from then on: the system namespaces, and
// Service default/kubernetes with the Endpoints and EndpointSlice that lead to this API server.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::apiserver {

struct BootstrapOptions {
  std::string service_ip;         // 10.96.0.1
  std::string advertise_address;  // where the Service leads
  std::uint16_t advertise_port = 6443;
};

// One pass; says what could not be done.
Result<> ensure_bootstrap_objects(kube::Client& client, const BootstrapOptions& o);

// Repeats the pass every ten seconds until stopped.
class BootstrapKeeper {
 public:
  BootstrapKeeper(kube::Client& client, BootstrapOptions o, Clock& clock);
  ~BootstrapKeeper();
  BootstrapKeeper(const BootstrapKeeper&) = delete;
  BootstrapKeeper& operator=(const BootstrapKeeper&) = delete;

 private:
  kube::Client& client_;
  const BootstrapOptions options_;
  Clock& clock_;
  std::mutex mu_;
  std::condition_variable cv_;
  bool stopping_ = false;  // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::apiserver
