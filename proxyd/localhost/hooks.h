// SPDX-License-Identifier: Apache-2.0
// LoopbackHooks: what LocalhostNodePorts asks of the kernel. Two implementations: KernelHooks (kernel_hooks.h) and
// FakeHooks below, a working model for tests. One thread.
#pragma once

#include <compare>
#include <cstdint>
#include <set>

#include "lib/base/ip.h"
#include "lib/base/result.h"

namespace hawser::proxy {

struct LoopbackPort {
  int family = 0;
  std::uint8_t protocol = 0;  // IPPROTO_*
  std::uint16_t port = 0;
  auto operator<=>(const LoopbackPort&) const = default;
};

struct LoopbackTargets {
  IpAddr v4, v6;  // this node's; invalid: loopback of that family is left alone
  bool operator==(const LoopbackTargets&) const = default;
};

class LoopbackHooks {
 public:
  virtual ~LoopbackHooks() = default;
  // Finds the maps of an earlier process, or makes them; connections go as before.
  virtual Result<> open() = 0;
  // After open().
  virtual Result<std::set<LoopbackPort>> ports() = 0;
  virtual Result<> add(const LoopbackPort& p) = 0;
  virtual Result<> remove(const LoopbackPort& p) = 0;  // one that is not there is no error
  virtual Result<> set_targets(const LoopbackTargets& t) = 0;
  // Puts the programs where they are missing, and in the place of an earlier version's without a gap.
  virtual Result<> attach() = 0;
  // Takes away what this or an earlier process has attached for this network namespace.
  virtual Result<> detach() = 0;
};

class FakeHooks final : public LoopbackHooks {
 public:
  Result<> open() override { return check(); }
  Result<std::set<LoopbackPort>> ports() override { return there; }
  Result<> add(const LoopbackPort& p) override {
    if (auto r = check(); !r) return r;
    ++writes;
    there.insert(p);
    return {};
  }
  Result<> remove(const LoopbackPort& p) override {
    if (auto r = check(); !r) return r;
    ++writes;
    there.erase(p);
    return {};
  }
  Result<> set_targets(const LoopbackTargets& t) override {
    if (auto r = check(); !r) return r;
    ++writes;
    targets = t;
    return {};
  }
  Result<> attach() override {
    if (auto r = check(); !r) return r;
    attached = true;
    return {};
  }
  Result<> detach() override {
    attached = false;
    there.clear();
    return check();
  }

  std::set<LoopbackPort> there;
  LoopbackTargets targets;
  bool attached = false;
  int writes = 0;
  int fail = 0;  // errno of every call that could write

 private:
  [[nodiscard]] Result<> check() const {
    if (fail != 0) return fail_errno(fail, "made to fail");
    return {};
  }
};

}  // namespace hawser::proxy
