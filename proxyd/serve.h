// SPDX-License-Identifier: Apache-2.0
// proxyd with one configuration: everything it is made of, wired together, until a signal comes or all is to be started
// over. The kernel's rules stay in either case.
#pragma once

#include <functional>
#include <string>

#include "lib/base/result.h"
#include "lib/base/signals.h"
#include "proxyd/config/options.h"
#include "proxyd/ipvs/options.h"
#include "proxyd/switch/switch_backend.h"

namespace hawser::proxy {

struct ConfigFile {
  std::string path;                 // empty: there is none to follow
  std::function<Result<>()> check;  // whether what it says now can be used; the error says why not
};

struct ServeOptions {
  ProxyOptions proxy;
  Mode mode = Mode::kNftables;
  IpvsOptions ipvs;
  bool adopt = false;  // take the node over from kube-proxy
  ConfigFile file;
};

// True: to be called again, with the configuration read anew. Blocks; `signals` are those of the process.
Result<bool> serve(ServeOptions options, TerminationSignals& signals);

}  // namespace hawser::proxy
