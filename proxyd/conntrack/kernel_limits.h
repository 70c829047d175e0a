// SPDX-License-Identifier: Apache-2.0
// Connection tracking's limits and timeouts in the kernel, as kube-proxy sets them at its start [P70]. The kernel is
// reached through functions, which tests replace.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace hawser::proxy {

inline constexpr const char* kConntrackMax = "net.netfilter.nf_conntrack_max";

// A sysctl. `at_least`: a higher number stays; nobody asked for a lower one.
struct KernelSetting {
  std::string key, value;
  bool at_least = false;
  bool operator==(const KernelSetting&) const = default;
};

struct LimitKernel {
  std::function<Result<std::string>(const std::string& key)> read;
  std::function<Result<>(const std::string& key, const std::string& value)> write;
  std::string hash_size = "/sys/module/nf_conntrack/parameters/hashsize";
};
// The sysctls of the calling thread's network namespace.
[[nodiscard]] LimitKernel limit_kernel();

struct LimitReport {
  std::vector<std::string> wrote, failed;  // one sentence each
};
// Writes what differs. With a maximum goes a hash table of a quarter of it, if it is smaller and this is the first
// network namespace, whose it is.
LimitReport set_limits(const std::vector<KernelSetting>& settings, const LimitKernel& kernel);

}  // namespace hawser::proxy
