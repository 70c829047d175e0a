// SPDX-License-Identifier: Apache-2.0
#include "proxyd/takeover/adoption.h"

#include "lib/base/log.h"

namespace hawser::proxy {
namespace {

constexpr Nanos kLookInterval = std::chrono::seconds(30);  // reading all rules costs something

}  // namespace

void Adoption::say(const std::string& problem) {
  if (said_ == problem) return;
  said_ = problem;
  log::error("--adopt: {}", problem);
  tell_("KubeProxyNotAdopted", problem, true);
}

void Adoption::step(const std::string& runs, bool serving, bool device) {
  if (phase_ == Phase::kLeftAlone) return;
  if (!runs.empty()) {
    say(fmt::format("{}; stop it, and its rules are removed. Until then they decide about new connections", runs));
    return;
  }
  if (!serving) return;
  if (phase_ == Phase::kWaiting || (device && !device_gone_)) {
    auto did = take_over_kube_proxy(kernel_, device);
    if (!did) {
      say("kube-proxy's rules cannot be removed: " + did.error().text);
      return;
    }
    phase_ = Phase::kWatching;
    device_gone_ = device;
    said_.clear();
    next_look_ = clock_.now() + kLookInterval;
    for (const auto& part : *did) log::info("taken over from kube-proxy, removed {}", part);
    if (!did->empty())
      tell_("KubeProxyAdopted", fmt::format("removed of kube-proxy: {}", fmt::join(*did, ", ")), false);
    return;
  }
  if (clock_.now() < next_look_) return;
  next_look_ = clock_.now() + kLookInterval;
  auto again = has_kube_proxy_rules(kernel_);
  if (!again || !*again) return;
  phase_ = Phase::kLeftAlone;
  say("kube-proxy's rules have come back after they were removed: it runs somewhere. Stop it and restart proxyd; until "
      "then its rules stay");
}

}  // namespace hawser::proxy
