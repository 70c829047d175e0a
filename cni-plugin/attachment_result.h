// SPDX-License-Identifier: Apache-2.0
// AttachmentResult: a CNI result as JSON in the shape of version 1.1.0, and its conversion from and to every older
// shape (FEATURES C15). Kept as JSON so that keys of other plugins in a chain pass through unchanged. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "cni-plugin/failure.h"
#include "lib/base/ip.h"

namespace hawser::cni {

using ResultJson = boost::json::object;

// A result as a plugin of `version` prints it -> 1.1.0 shape, without cniVersion. Unreadable parts: kDecode.
Outcome<ResultJson> from_version(const ResultJson& in, std::string_view version);
// 1.1.0 shape -> as `version` has it, cniVersion included. 0.1.0 and 0.2.0 hold one address of each family: the first.
ResultJson to_version(const ResultJson& in, std::string_view version);

struct ResultIp {
  Cidr address;
  IpAddr gateway;      // invalid: none
  int interface = -1;  // index into interfaces; -1: none
};
// The addresses of a 1.1.0-shaped result.
Outcome<std::vector<ResultIp>> result_ips(const ResultJson& r);

}  // namespace hawser::cni
