// SPDX-License-Identifier: Apache-2.0
// How many ports of Services drop traffic here because their policy is Local and their endpoints are all on other
// nodes [P85]. Pure, any thread.
#pragma once

#include <cstddef>

#include "proxyd/model/desired_state.h"

namespace hawser::proxy {

struct NoLocalEndpoints {
  std::size_t internal = 0, external = 0;  // by internalTrafficPolicy, by externalTrafficPolicy
  bool operator==(const NoLocalEndpoints&) const = default;
};
// Of one family, as kube-proxy counts: a port once, however many addresses it has.
[[nodiscard]] NoLocalEndpoints count_no_local(const DesiredState& s, int family);

}  // namespace hawser::proxy
