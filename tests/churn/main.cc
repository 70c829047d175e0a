// SPDX-License-Identifier: Apache-2.0
// hawser-proxy-churn CONTROLPLANE PROXYD SECONDS CHANGES-A-MINUTE: one churn run (churn.h); prints one JSON object.
// Exit status 1 if a request failed or went to an endpoint later than it may.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <boost/json/serialize.hpp>

#include "lib/base/log.h"
#include "lib/testing/temp_dir.h"
#include "tests/churn/churn.h"

namespace {

using namespace hawser;

double ms(Nanos d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

boost::json::object json(churn::Report r) {
  std::ranges::sort(r.start_times);
  const auto start = [&](double share) {
    if (r.start_times.empty()) return 0.0;
    return ms(r.start_times[static_cast<std::size_t>(share * static_cast<double>(r.start_times.size() - 1))]);
  };
  boost::json::object o{{"changes", r.changes},
                        {"refused_changes", r.refused_changes},
                        {"restarts", r.restarts},
                        {"kills", r.kills},
                        {"requests", r.requests},
                        {"failures", r.failures},
                        {"late", r.late},
                        {"late_at_restart", r.late_at_restart},
                        {"dead_within_grace", r.soon},
                        {"lost_with_endpoint", r.lost_with_endpoint},
                        {"latest_ms", ms(r.latest)},
                        {"latest_running_ms", ms(r.latest_running)},
                        {"start_median_ms", start(0.5)},
                        {"start_worst_ms", start(1)}};
  o["first_failures"] = boost::json::array(r.first_failures.begin(), r.first_failures.end());
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc == 5 ? std::atoi(argv[3]) : 0, rate = argc == 5 ? std::atoi(argv[4]) : 0;
  if (seconds < 1 || rate < 1) {
    std::fputs("usage: hawser-proxy-churn CONTROLPLANE PROXYD SECONDS CHANGES-A-MINUTE\n", stderr);
    return 2;
  }
  log::init("churn", log::Level::kInfo);
  const testing::TempDir folder;
  auto report = churn::run({.controlplane = argv[1],
                            .proxyd = argv[2],
                            .folder = folder.path(),
                            .length = std::chrono::seconds(seconds),
                            .changes_a_minute = rate});
  if (!report) {
    std::fprintf(stderr, "hawser-proxy-churn: %s\n", report.error().text.c_str());
    return 2;
  }
  std::printf("%s\n", boost::json::serialize(json(*report)).c_str());
  return report->failures + report->late == 0 ? 0 : 1;
}
