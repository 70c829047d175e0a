// SPDX-License-Identifier: Apache-2.0
// Settings of the controllers. Plain values.
#pragma once

#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/ip.h"

namespace hawser::controllers {

struct Options {
  std::vector<Cidr> cluster_cidrs;  // at most one a family; empty: nodes get no podCIDR
  int node_mask_v4 = 24;
  int node_mask_v6 = 64;
  Cidr service_cidr;   // kept out of the pod CIDRs when the two overlap
  std::string ca_pem;  // of the API server, for the ConfigMap kube-root-ca.crt; empty: none is made
  Nanos node_grace = std::chrono::seconds(40);
  std::size_t endpoints_per_slice = 100;
  Nanos slice_interval = std::chrono::milliseconds(20);  // least time between two writes for one Service
  std::size_t terminated_pods = 12500;                   // more finished pods than this are removed, oldest first
  Clock* clock = &system_clock();
};

}  // namespace hawser::controllers
