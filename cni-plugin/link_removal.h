// SPDX-License-Identifier: Apache-2.0
// Removing links without waiting for the kernel's last word. RTM_DELLINK takes about 20 ms, of which a link is gone
// from both namespaces, with its routes, neighbours and name, after the first two; the rest is the kernel waiting for
// all CPUs to forget it (rcu_barrier in netdev_run_todo, Linux 6.18). That wait cannot be left by the caller, only by
// another process: a child sends the request and stays behind, while we return when the kernel has announced the
// removal. See docs/decisions/0011-link-removal-in-a-child.md.
//
// Call it with no lock held: the child would keep it. Main thread of a single-threaded process only (it forks).
#pragma once

#include <vector>

#include "lib/base/result.h"

namespace hawser::cni {

// After success none of the links exists in the calling thread's network namespace. One that was gone before is fine.
Result<> remove_links(const std::vector<int>& indexes);

}  // namespace hawser::cni
