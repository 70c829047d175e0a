// SPDX-License-Identifier: Apache-2.0
// ControlPlane: store, API server, controllers and scheduler of one process, started in the order in which they need
// each other and stopped in the reverse one. Owned by main(); start and stop are called from one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/base/ip.h"
#include "lib/base/listen_fds.h"
#include "lib/base/result.h"

namespace hawser {

struct ControlPlaneOptions {
  std::string data_dir;
  std::string listen = "0.0.0.0:6443";
  std::string advertise_address;  // empty: the listen address
  std::vector<std::string> tls_sans;
  std::string service_cidr = "10.96.0.0/16";
  std::string cluster_cidr = "10.244.0.0/16";
  int node_cidr_mask = 24;
  std::string node_port_range = "30000-32767";
  bool controllers = true;
  bool scheduler = true;
  std::vector<PassedFd> sockets;  // that listen already
};

class ControlPlane {
 public:
  static Result<std::unique_ptr<ControlPlane>> start(ControlPlaneOptions o);
  ~ControlPlane();
  ControlPlane(const ControlPlane&) = delete;
  ControlPlane& operator=(const ControlPlane&) = delete;

 private:
  struct Parts;
  explicit ControlPlane(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace hawser
