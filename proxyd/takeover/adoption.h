// SPDX-License-Identifier: Apache-2.0
// Adoption: takes a node over from kube-proxy (--adopt). Ours serve beside its rules, which decide about new
// connections as long as they are there: their chains are older than ours at the same priority. Once ours are in place,
// and nobody keeps up kube-proxy's any more, they are removed.
//
// kube-proxy itself is stopped by whoever runs it. While it runs nothing is removed; when its rules come back after
// they were, somebody runs it unseen, and they are left alone. Both are said, once. One thread.
#pragma once

#include <functional>
#include <string>

#include "lib/base/clock.h"
#include "proxyd/takeover/kube_proxy.h"

namespace hawser::proxy {

class Adoption {
 public:
  using Tell = std::function<void(const char* reason, const std::string& message, bool warning)>;
  Adoption(KubeProxyLeftovers kernel, Tell tell, Clock& clock = system_clock())
      : kernel_(std::move(kernel)), tell_(std::move(tell)), clock_(clock) {}

  // Called every few seconds. `runs`: why kube-proxy is believed to run, "" if it is not. `serving`: our rules are as
  // wanted and new connections may come to them; `device`: kube-proxy's device is not needed for connections any more.
  void step(const std::string& runs, bool serving, bool device);

 private:
  enum class Phase { kWaiting, kWatching, kLeftAlone };
  void say(const std::string& problem);

  KubeProxyLeftovers kernel_;
  const Tell tell_;
  Clock& clock_;
  Phase phase_ = Phase::kWaiting;
  bool device_gone_ = false;
  MonoTime next_look_{};
  std::string said_;
};

}  // namespace hawser::proxy
