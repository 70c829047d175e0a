// SPDX-License-Identifier: Apache-2.0
// Sockets passed by a service manager: descriptors from 3 on, counted by LISTEN_FDS, meant for us if LISTEN_PID is our
// process. Source: sd_listen_fds(3). Call once in main(), before other threads start.
#pragma once

#include <string>
#include <vector>

#include "lib/base/unique_fd.h"

namespace hawser {

struct PassedFd {
  UniqueFd fd;
  std::string name;  // from LISTEN_FDNAMES; empty if not given
};

// Empty when nothing was passed. Takes ownership, sets O_CLOEXEC and removes the variables, so that children see none
// of it.
std::vector<PassedFd> take_listen_fds();

}  // namespace hawser
