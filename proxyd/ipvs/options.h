// SPDX-License-Identifier: Apache-2.0
// The ipvs section of the configuration, as the back end uses it. Pure, any thread.
#pragma once

#include <optional>

#include "proxyd/config/config.h"
#include "proxyd/ipvs/plan.h"

namespace hawser::proxy {

struct IpvsSettings {
  IpvsOptions options;
  Nanos sync_period{}, min_sync_period{};
};
// The section's values whatever the mode is: a node that leaves this mode takes out what the options of it say. Errors
// name the field.
Result<IpvsSettings> read_ipvs_section(const Config& c);
// Nothing unless the mode is ipvs.
Result<std::optional<IpvsSettings>> ipvs_settings(const Config& c);

}  // namespace hawser::proxy
