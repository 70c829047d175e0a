// SPDX-License-Identifier: Apache-2.0
// Backend: a way to put DesiredState into the kernel. The sync thread is its only caller.
//
// apply() compares the whole state with what the kernel has and changes only what differs; the kernel's part is read
// back at the first call and after invalidate(). A failure leaves the kernel as it was, and the next apply() tries
// again from a fresh reading.
#pragma once

#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "proxyd/model/desired_state.h"

namespace hawser::proxy {

struct SyncReport {
  bool full = false;          // the kernel was read back
  std::size_t changes = 0;    // objects and elements written; 0: all was right
  std::size_t frontends = 0;  // now in the kernel
  // full: UDP and SCTP frontends found in the kernel, or left there by a process that died
  std::vector<FrontendKey> left;
  bool flows = false;  // such frontends may have changed: flows that they left behind must be looked at
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;  // kube-proxy's word for the mode
  virtual Result<SyncReport> apply(const DesiredStatePtr& state) = 0;
  // Somebody else changed our objects: look at the kernel again.
  virtual void invalidate() = 0;
  // Takes everything of ours out of the kernel.
  virtual Result<> cleanup() = 0;
};

}  // namespace hawser::proxy
