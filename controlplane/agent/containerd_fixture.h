// SPDX-License-Identifier: Apache-2.0
// A private containerd for tests: the test program moves into fresh mount, network, IPC, UTS and PID namespaces
// (everything in them ends with it) and starts containerd with folders of its own, the test images, and Debian's bridge
// and host-local CNI plugins or a network of the caller's. For test mains.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>

#include "controlplane/agent/cri_client.h"
#include "controlplane/agent/node_settings.h"

namespace hawser::agent::testing {

// Why the machine cannot do it; empty: it can.
[[nodiscard]] std::string why_no_containerd();

// Runs `body` as PID 1 of new namespaces and returns its exit status; removes the cgroups afterwards.
int in_new_namespaces(const std::string& cgroup_parent, int (*body)());

// Looks every 10 ms until fn() is true or `timeout` passes; returns fn().
bool eventually(const std::function<bool()>& fn, std::chrono::seconds timeout);

// Where plugins and network configurations are. Without a conf_dir the fixture writes one of its own.
struct CniFolders {
  std::string bin_dir = "/usr/lib/cni";
  std::string conf_dir;
};

class Containerd {
 public:
  // `images`: tar files. Aborts the test program with a message if the set-up fails.
  Containerd(std::string folder, const std::string& pause_tar, const std::string& test_tar, CniFolders cni = {});
  ~Containerd();

  void start();
  void kill();  // SIGKILL; its containers go on
  [[nodiscard]] std::string endpoint() const { return "unix://" + folder_ + "/run/containerd.sock"; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  void set_network(bool working);  // swaps the CNI configuration for one whose plugin does not exist

 private:
  void write_config();
  void wait_until_up();
  const std::string folder_;
  CniFolders cni_;
  pid_t pid_ = -1;
};

}  // namespace hawser::agent::testing
