// SPDX-License-Identifier: Apache-2.0
// The plugin as a function: environment and standard input to an exit status and what is printed (FEATURES C01-C24).
// Everything process-wide comes in through Invocation, so tests drive the whole contract without processes.
#pragma once

#include <string>

#include "cni-plugin/environment.h"
#include "cni-plugin/fast_path.h"

namespace hawser::cni {

struct Invocation {
  GetEnv get_env;
  std::string input;              // standard input, whole
  FastPath* fast_path = nullptr;  // of the calling thread's network namespace; null: none
};

struct Answer {
  int exit_status = 0;
  std::string out;  // one JSON value, or nothing
  std::string err;  // text for a person
};

// Without CNI_COMMAND: explains itself on `err`. Does whatever the verb says to the calling thread's network namespace.
Answer run_plugin(const Invocation& invocation);

}  // namespace hawser::cni
