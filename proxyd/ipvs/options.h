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
// Nothing unless the mode is ipvs. Errors name the field.
Result<std::optional<IpvsSettings>> ipvs_settings(const Config& c);

}  // namespace hawser::proxy
