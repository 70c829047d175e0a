// SPDX-License-Identifier: Apache-2.0
#include "proxyd/switch/plan.h"

#include <utility>

namespace hawser::proxy {

std::string_view mode_name(Mode m) {
  return m == Mode::kNftables ? "nftables" : "ipvs";
}

std::string_view step_name(Step s) {
  static constexpr std::string_view kNames[] = {
      "check IPVS",
      "rules: nftables decides",
      "rules: IPVS decides",
      "fill IPVS",
      "verify IPVS",
      "verify the table",
      "hand over clients",
      "drain IPVS",
      "remove IPVS",
      "nftables",
      "ipvs",
      "ipvs, clients of before by nftables",
  };
  return kNames[std::to_underlying(s)];
}

std::vector<Step> plan_switch(Mode want, const SwitchFacts& f) {
  using enum Step;
  const bool table_decides = f.table && f.decides == Mode::kNftables;
  const Step ipvs_end = f.clients ? kIpvsAndClients : kOnlyIpvs;
  if (want == Mode::kIpvs) {
    // The rules of kTableDecides first: from then on addresses on the device change nothing for anybody.
    if (table_decides) return {kCheckIpvs, kTableDecides, kFillIpvs, kVerifyIpvs, kIpvsDecides, kVerifyTable, ipvs_end};
    return {kCheckIpvs, ipvs_end};
  }
  if (!f.ipvs) return {kOnlyTable};
  if (table_decides) return {kTableDecides, kDrain, kRemoveIpvs, kOnlyTable};
  // Clients twice: those that came between the first reading and the switch.
  return {kIpvsDecides, kVerifyTable, kClients, kTableDecides, kClients, kDrain, kRemoveIpvs, kOnlyTable};
}

}  // namespace hawser::proxy
