// SPDX-License-Identifier: Apache-2.0
// OverlaydProcess: the real hawser-overlayd as one node of a network whose leases stand in a file, with its leak
// collector and a grace time that suits tests. It runs in the network namespace of the thread that calls start(), on an
// interface eth0 that add_underlay() makes there. Its CNI configuration and its run-dir are the given folder.
#pragma once

#include <string>

#include <sys/types.h>

namespace hawser::testing {

class OverlaydProcess {
 public:
  OverlaydProcess(std::string program, std::string folder, int leak_grace_seconds);
  ~OverlaydProcess() { kill(); }
  OverlaydProcess(const OverlaydProcess&) = delete;
  OverlaydProcess& operator=(const OverlaydProcess&) = delete;

  // The command that makes eth0 in a namespace that has nothing but lo.
  static const char* underlay_command();
  void start();
  void kill();  // SIGKILL
  // True once it has written what plugin and runtime read, at the latest after some 20 s.
  [[nodiscard]] bool wait_until_up() const;

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string node_file() const { return folder_ + "/node.json"; }
  [[nodiscard]] std::string store() const { return folder_ + "/ipam/hawser"; }  // its network's addresses
  [[nodiscard]] std::string log() const;

 private:
  const std::string program_, folder_;
  const int leak_grace_seconds_;
  pid_t pid_ = -1;
};

}  // namespace hawser::testing
