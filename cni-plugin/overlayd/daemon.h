// SPDX-License-Identifier: Apache-2.0
// Daemon: keeps this node's part of the overlay as the Node objects say.
//
// Threads. run() is the loop: it alone touches the kernel, on a wake-up (a Node's lease changed), on a netlink or
// nftables notification (somebody touched our objects) or to retry after a failure (1 s doubling to 30 s). The
// informer's thread only folds events into `leases_` and wakes the loop. The publisher's thread alone writes to the
// API, so that a hanging API server never delays a repair. The health server's threads read `status_`.
//
// While the API has never answered nothing is planned: what the kernel has, stays.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cni-plugin/overlayd/masquerade.h"
#include "cni-plugin/overlayd/node_files.h"
#include "cni-plugin/overlayd/overlay.h"
#include "lib/base/bounded_runner.h"
#include "lib/base/metrics.h"
#include "lib/kube/client.h"
#include "lib/kube/informer.h"
#include "lib/netlink/monitor.h"

namespace hawser::overlay {

struct Options {
  std::string node;
  std::string iface;               // empty: found by address or default route
  std::vector<IpAddr> public_ips;  // what peers are told, at most one a family; else the underlay's own
  std::vector<Cidr> cluster_cidrs;
  Settings settings;
  FilePaths paths;
  std::string annotation_prefix{kDefaultAnnotationPrefix};
  bool ip_masq = true;
  std::vector<Cidr> non_masquerade;
  bool set_network_available = true;
};

// What the daemon works on, owned by main (or a test).
struct Kernel {
  netlink::Rtnl& rtnl;
  nft::NftRunner& nft;
  netlink::Monitor& monitor;
};

struct Status {
  bool ready = false;
  std::string reason;  // why not
};

class Daemon {
 public:
  Daemon(Options options, kube::Client& client, Kernel kernel, metrics::Registry& registry);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Until `stop_fd` becomes readable. Kernel state is left as it is.
  Result<> run(int stop_fd);
  [[nodiscard]] Status status() const;
  // Has the loop look at everything again; any thread. For notifications that come by another way.
  void wake();

 private:
  void on_node(const kube::ObjectPtr& old, const kube::ObjectPtr& current);
  Result<> sync_once(const char* cause);
  Result<std::string> sync_all(const char* cause);  // a reason why not ready; empty: ready
  Result<int> sync_family(int family, Lease& own, const std::vector<Lease>& all, const char* cause);
  Result<> sync_masquerade(const Lease& own);
  Result<> write_node_files(const Lease& own, int mtu);
  Result<> publish();
  [[nodiscard]] bool concerns_us(const netlink::Event& e) const;
  void set_status(bool ready, std::string reason);

  const Options options_;
  kube::Client& client_;
  Kernel kernel_;
  UniqueFd wake_;

  // Loop thread only.
  std::set<std::string> device_names_;
  std::set<int> devices_, underlays_;  // of the last sync
  std::set<std::string> reported_;     // skipped peers already logged
  bool first_sync_ = true;

  mutable std::mutex mu_;
  std::map<std::string, Lease> leases_;  // guarded by mu_
  kube::ObjectPtr own_node_;             // guarded by mu_
  bool nodes_known_ = false;             // guarded by mu_
  std::optional<Publication> wanted_;    // guarded by mu_
  Status status_;                        // guarded by mu_

  metrics::Gauge& peers_;
  metrics::Gauge& ready_;
  metrics::Counter& syncs_;
  metrics::Counter& failures_;
  metrics::Counter& repairs_;
  metrics::Histogram& seconds_;

  std::unique_ptr<BoundedRunner> publisher_;
  std::unique_ptr<kube::Informer> informer_;  // last: its thread ends before what it uses
};

}  // namespace hawser::overlay
