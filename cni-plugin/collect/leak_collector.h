// SPDX-License-Identifier: Apache-2.0
// LeakCollector: finds and removes, with no help of any runtime, what attachments left behind whose DEL never came or
// was killed half way (FEATURES X07, X31). It asks the kernel who lives: an attachment lives as long as its host link
// does, and a link dies with the pod's network namespace, however that ended. See
// docs/decisions/0012-the-kernel-says-which-pods-live.md.
//
// An address without its link is free to go once its record is older than the grace time (an ADD takes the address
// before it makes the link). Host ports and ifbs are made after the link and removed before it, so they need no grace.
// An address imported from host-local has no link of ours: it lives as long as host-local's reservation does.
// Names of namespaces that a killed runtime left go as well (netns_names.h).
// The fast path is told before (fast_path.h): while it may still lead to a dead pod, no address becomes free.
// Every network under <run_dir>/ipam is looked at. Each leak is one log line and one count.
//
// start() runs it on a thread of its own; run_once() is for tests and callers with their own thread.
#pragma once

#include <memory>
#include <string>

#include "cni-plugin/collect/sweep.h"
#include "lib/base/bounded_runner.h"
#include "lib/base/metrics.h"

namespace hawser::cni {

struct LeakCollectorOptions {
  std::string run_dir = "/run/hawser";
  Nanos grace = std::chrono::seconds(60);
  Nanos interval = std::chrono::seconds(30);
  FastPath* fast_path = nullptr;  // null: none; outlives the collector
};

class LeakCollector {
 public:
  LeakCollector(const LeakCollectorOptions& options, netlink::Rtnl& node, HostPorts::Kernel kernel,
                metrics::Registry& registry, Clock& clock = system_clock());
  Sweep run_once();

  // With kernel sockets of its own, in the calling thread's network namespace; it stops when the object goes.
  class Running {
   public:
    virtual ~Running() = default;
  };
  static Result<std::unique_ptr<Running>> start(const LeakCollectorOptions& options, metrics::Registry& registry);

 private:
  [[nodiscard]] bool has_link(const std::string& name);
  void sweep_networks(Sweep& sweep);
  void report(const Sweep& sweep);

  LeakCollectorOptions options_;
  netlink::Rtnl& node_;
  HostPorts::Kernel kernel_;
  metrics::Family<metrics::Counter>& leaks_;
  metrics::Counter& failures_;
  Clock& clock_;
};

}  // namespace hawser::cni
