// SPDX-License-Identifier: Apache-2.0
// StaticSource: leases from a file that somebody else keeps up to date (`--subnets-file`), for networks without an API
// server or etcd. The file's folder is watched, so that a file that is replaced, a mounted ConfigMap too, is read at
// once; one that cannot be read or is wrong changes nothing and is named in the log.
//
//   {"nodes":[{"name":"node-1","podCIDRs":["10.244.1.0/24"],"publicIP":"192.0.2.11"},
//             {"name":"node-2","podCIDRs":["10.244.2.0/24"],"publicIP":"192.0.2.12",
//              "backendType":"host-gw","vtepMAC":"02:00:00:00:00:02"}]}
//
// Optional: publicIPv6, backendType (our own), vtepMAC and vtepMACv6 (what follows from the node's name), vni (our
// own), publicKey (WireGuard's, required there).
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "cni-plugin/overlayd/backend.h"
#include "cni-plugin/overlayd/subnet_source.h"
#include "lib/base/unique_fd.h"

namespace hawser::overlay {

// Pure. The error names the node and the field.
Result<std::vector<Lease>> parse_static_leases(std::string_view json, const Settings& settings);

class StaticSource final : public SubnetSource {
 public:
  StaticSource(std::string path, std::string node, Settings settings);
  ~StaticSource() override;
  void start(std::function<void()> on_change) override;
  void stop() override;
  std::expected<SubnetView, std::string> view() override;
  void publish(const Lease& own, bool ready) override;

 private:
  void read_again();
  void watch_folder(int inotify_fd);

  const std::string path_, node_;
  const Settings settings_;
  std::function<void()> on_change_;
  UniqueFd stop_;

  std::mutex mu_;
  std::vector<Lease> leases_;  // guarded by mu_
  std::string why_not_;        // guarded by mu_; the last error
  bool known_ = false;         // guarded by mu_
  std::thread thread_;
};

}  // namespace hawser::overlay
