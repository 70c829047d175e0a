// SPDX-License-Identifier: Apache-2.0
// One key under /proc/sys, of the calling thread's namespaces. A key has dots ("net.ipv4.ip_forward"), or slashes where
// a part itself holds a dot ("net/ipv4/conf/eth0.7/forwarding"). Any thread.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace hawser::sysctl {

// Without the final newline.
Result<std::string> read(std::string_view key);
Result<> write(std::string_view key, std::string_view value);
// Writes only if the value differs; true when it wrote.
Result<bool> ensure(std::string_view key, std::string_view value);

}  // namespace hawser::sysctl
