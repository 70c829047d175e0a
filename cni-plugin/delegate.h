// SPDX-License-Identifier: Apache-2.0
// Delegation: another plugin run for us, with our environment and standard input (FEATURES C18). Blocking; main thread.
#pragma once

#include <string>
#include <vector>

#include "cni-plugin/failure.h"

namespace hawser::cni {

struct DelegateCall {
  std::string type;               // file name of the plugin
  std::vector<std::string> path;  // CNI_PATH
  std::string command;            // CNI_COMMAND for it
  std::string input;
};

// What it printed. Its own error object is passed on as the Failure; kDelegateFailed if it could not be found or run.
Outcome<std::string> run_delegate(const DelegateCall& call);

}  // namespace hawser::cni
