// SPDX-License-Identifier: Apache-2.0
// SubnetSource: where leases come from: which range each node has and how it is reached. The first of two axes; the
// second, how packets get there, is backend.h, and neither names the other. Implementations: KubeSource (Node objects),
// EtcdSource (flannel's keys), StaticSource (a file). Each keeps the last state while its origin is away: nothing is
// ever "empty" because it cannot be asked.
//
// Threads: an implementation has threads of its own and calls `on_change` on them. view() and publish() come from the
// daemon's loop, return at once and never wait for a network.
#pragma once

#include <expected>
#include <functional>
#include <string>
#include <vector>

#include "cni-plugin/overlayd/lease.h"

namespace hawser::overlay {

struct SubnetView {
  Lease own;                           // what is known of it; without pod CIDRs until the node has been given some
  std::vector<Lease> nodes;            // all, perhaps with our own among them
  std::vector<IpAddr> node_addresses;  // the node's own, as the source knows them: which interface is the underlay
  std::vector<IpAddr> overwrites;      // what peers must be told instead of the underlay's address
};

class SubnetSource {
 public:
  virtual ~SubnetSource() = default;
  virtual void start(std::function<void()> on_change) = 0;
  // Ends the threads; `on_change` is not called after it.
  virtual void stop() = 0;
  // Or the sentence why nothing is known yet; the kernel is then left as it is.
  virtual std::expected<SubnetView, std::string> view() = 0;
  // Our own lease as it should be known to others. `ready`: the data path stands. Before that it carries addresses for
  // a source that gives out ranges itself.
  virtual void publish(const Lease& own, bool ready) = 0;
};

}  // namespace hawser::overlay
