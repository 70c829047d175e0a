// SPDX-License-Identifier: Apache-2.0
// Churn: endpoint changes at a steady rate through a real hawser-controlplane into a real hawser-proxyd, with traffic
// meanwhile, and with proxyd ended (by SIGTERM and by SIGKILL in turn) and started again all the time.
#pragma once

#include <string>

#include "tests/churn/ledger.h"

namespace hawser::churn {

struct Options {
  std::string controlplane, proxyd;  // the programs
  std::string folder;                // for data and logs, exists
  Nanos length = std::chrono::minutes(10);
  int changes_a_minute = 10000;
  Nanos restart_every = std::chrono::seconds(5);  // 0: never
  int tcp_services = 20, udp_services = 5;
  int connections_a_second = 500;  // from each of two places
};

// An error: it could not be carried out (EPERM: no right to make namespaces).
[[nodiscard]] Result<Report> run(const Options& o);

}  // namespace hawser::churn
