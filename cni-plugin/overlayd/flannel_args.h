// SPDX-License-Identifier: Apache-2.0
// flannel's command line as ours (FEATURES O43), so that a flannel manifest works with another image and binary name:
// Go's forms of flags ("-iface=eth0", "-v 4"), FLANNELD_<FLAG> in the environment where the flag itself is not given,
// and flannel's defaults once a flag says that flanneld was meant. Flags of flanneld that have no meaning here are
// taken out, each with a note that says why. Everything else stays as it is. Pure.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace hawser::overlay {

struct FlannelArgs {
  std::vector<std::string> args;   // ours
  std::vector<std::string> notes;  // for the log
};

// `environment` gives a variable's value, or null.
[[nodiscard]] FlannelArgs translate_flannel_args(const std::vector<std::string>& args,
                                                 const std::function<const char*(const char*)>& environment);

}  // namespace hawser::overlay
