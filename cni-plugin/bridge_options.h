// SPDX-License-Identifier: Apache-2.0
// The keys of bridge mode, as the reference plugin `bridge` names them. Pure.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "cni-plugin/failure.h"

namespace hawser::cni {

struct BridgeOptions {
  std::string name = "cni0";
  bool gateway = false;          // isGateway: the bridge has the gateway's address
  bool default_gateway = false;  // isDefaultGateway: and the pod's default route goes there
  bool force_address = false;
  bool hairpin = false;
  bool promiscuous = false;
};
// `conf`: the whole network configuration. Options we do not have are refused by name.
Outcome<BridgeOptions> parse_bridge(const boost::json::object& conf);

}  // namespace hawser::cni
