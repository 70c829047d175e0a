// SPDX-License-Identifier: Apache-2.0
// FastPath: a way for packets between pods that goes around the node's stack, told of each pod as it comes and goes. It
// only ever makes things quicker: without it, and for a pod it does not have, the stack forwards as always. One thread
// at a time.
//
//   ADD             attach     last: from then on packets may take it
//   CHECK           fault
//   DEL             detach     first: nothing may lead to what is about to go
//   GC, collector   keep_only  before addresses become free
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/base/ip.h"

namespace hawser::cni {

// What it needs to know of an attachment: where packets to these addresses go.
struct FastEndpoint {
  std::string host_name;  // the node's end of the pair, in the calling thread's network namespace
  MacAddr pod_mac;
  std::vector<IpAddr> addresses;
  bool operator==(const FastEndpoint&) const = default;
};

class FastPath {
 public:
  virtual ~FastPath() = default;
  // Registers the pod and attaches the programs to its link. All or nothing; one that is there is replaced.
  virtual Result<> attach(const FastEndpoint& e) = 0;
  // Success if nothing is left of it, also if nothing was there.
  virtual Result<> detach(const std::string& host_name) = 0;
  // The first difference as a sentence; empty: all is as attach() leaves it.
  virtual Result<std::string> fault(const FastEndpoint& e) = 0;
  // Detaches every pod that `live` denies, of whatever network.
  virtual Result<> keep_only(const std::function<bool(const std::string& host_name)>& live) = 0;
};

// There is none: every pod uses the stack.
class NoFastPath final : public FastPath {
 public:
  Result<> attach(const FastEndpoint&) override { return {}; }
  Result<> detach(const std::string&) override { return {}; }
  Result<std::string> fault(const FastEndpoint&) override { return std::string(); }
  Result<> keep_only(const std::function<bool(const std::string&)>&) override { return {}; }
};

}  // namespace hawser::cni
