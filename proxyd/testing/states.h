// SPDX-License-Identifier: Apache-2.0
// Small states written by hand, for the back ends' tests: pods 10.244.1.x behind port 80.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>

#include "proxyd/model/desired_state.h"

namespace hawser::proxy::made {

inline IpAddr ip(std::string_view text) {
  return *IpAddr::parse(text);
}
inline Target pod(int n) {
  return {IpAddr::v4(0x0af40100u + static_cast<std::uint32_t>(n)), 8080};
}
inline std::vector<Target> pods(const std::vector<int>& numbers) {
  std::vector<Target> r;
  for (const int n : numbers) r.push_back(pod(n));
  return r;
}
inline Frontend vip(std::string_view addr, std::vector<Target> targets) {
  return {.addr = ip(addr),
          .family = ip(addr).family(),
          .protocol = IPPROTO_TCP,
          .port = 80,
          .targets = std::move(targets)};
}
// Each call is a later generation.
inline DesiredStatePtr state(std::vector<ServiceState> services) {
  static std::uint64_t generation = 0;
  auto d = std::make_shared<DesiredState>();
  d->generation = ++generation;
  std::vector<ServiceStatePtr> list;
  for (auto& s : services) list.push_back(std::make_shared<const ServiceState>(std::move(s)));
  d->services = ServiceList(std::move(list));
  return d;
}

}  // namespace hawser::proxy::made
