// SPDX-License-Identifier: Apache-2.0
// Daemon: keeps this node's part of the overlay as its SubnetSource says, over the back end that the settings name.
//
// Threads. run() is the loop: it alone touches the kernel, on a wake-up (a lease changed), on a netlink or nftables
// notification (somebody touched our objects) or to retry after a failure (1 s doubling to 30 s). The source's threads
// only wake it. Of WireGuard's peers the kernel notifies nobody: they are looked at every half minute. The health
// server's threads read `status_`, the prober's thread reads `targets_`.
//
// While the source knows nothing, nothing is planned: what the kernel has, stays.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cni-plugin/overlayd/masquerade.h"
#include "cni-plugin/overlayd/node_files.h"
#include "cni-plugin/overlayd/overlay.h"
#include "cni-plugin/overlayd/probe.h"
#include "cni-plugin/overlayd/subnet_source.h"
#include "cni-plugin/overlayd/wireguard.h"
#include "lib/base/metrics.h"
#include "lib/base/unique_fd.h"
#include "lib/netlink/monitor.h"

namespace hawser::overlay {

struct Options {
  std::string node;
  IfaceChoice iface;               // none given: found by address or default route
  std::vector<IpAddr> public_ips;  // what peers are told, at most one a family; else the underlay's own
  std::vector<Cidr> cluster_cidrs;
  Settings settings;
  FilePaths paths;
  std::string conflist;  // the CNI configuration; empty: conflist_text()
  bool adopt = false;    // a device that stands is taken over or left alone, but never made anew
  bool ip_masq = true;
  bool masq_fully_random = true;
  std::vector<Cidr> non_masquerade;
};

// What the daemon works on, owned by main (or a test).
struct Kernel {
  netlink::Rtnl& rtnl;
  nft::NftRunner& nft;
  netlink::Monitor& monitor;
  netlink::Wireguard* wireguard = nullptr;  // for the back end of that name
};

struct Status {
  bool ready = false;
  std::string reason;  // why not
};

class Daemon {
 public:
  Daemon(Options options, SubnetSource& source, Kernel kernel, metrics::Registry& registry);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Until `stop_fd` becomes readable. Kernel state is left as it is.
  Result<> run(int stop_fd);
  [[nodiscard]] Status status() const;
  // Has the loop look at the kernel again; any thread. For notifications that come by another way.
  void wake();
  // The peers as of the last comparison, for a prober; any thread.
  [[nodiscard]] std::vector<ProbeTarget> probe_targets() const;
  // What a prober found. Where the checksums that a network device writes for a tunnel are wrong, the tunnel's device
  // is told to write them itself from now on; any thread.
  void on_faults(const std::vector<PathReport>& faults);
  // "device flannel.1: transmit checksum offload is off: ...", for a person; any thread.
  [[nodiscard]] std::vector<std::string> device_lines() const;

 private:
  Result<> sync_once(const char* cause);
  Result<std::string> sync_all(const char* cause);  // a reason why not ready; empty: ready
  Result<std::string> offer(Lease own);
  Result<Underlay> fill_own(int family, Lease& own);
  Result<Underlay> underlay_for(int family, Lease& own);
  Result<OverlaySpec> spec_for(int family, Lease& own);
  Result<> sync_wireguard(const std::vector<OverlaySpec>& specs, Lease& own, const char* cause);
  Result<> sync_family(const OverlaySpec& spec, const char* cause);
  void sync_offload(const std::string& device);
  Result<> sync_masquerade(const Lease& own, const char* cause);
  Result<> write_node_files(const Lease& own, int mtu);
  void report(const std::vector<Change>& wrote, const char* cause);
  [[nodiscard]] int until_next_look(MonoTime looked) const;
  [[nodiscard]] bool concerns_us(const netlink::Event& e) const;
  void set_status(bool ready, std::string reason);

  const Options options_;
  SubnetSource& source_;
  Kernel kernel_;
  UniqueFd wake_;
  std::atomic<bool> leases_changed_{false};  // since the loop last looked

  // Loop thread only.
  std::set<std::string> device_names_;
  std::set<int> devices_, underlays_;  // of the last sync
  std::set<std::string> reported_;     // skipped peers already logged
  SubnetView view_;
  std::map<std::string, WireguardDevice> wireguard_;  // by name of the device
  std::optional<netlink::WgKey> public_key_;          // of the last sync
  std::vector<ProbeTarget> found_targets_;
  bool first_sync_ = true;

  mutable std::mutex mu_;
  Status status_;                                  // guarded by mu_
  std::vector<ProbeTarget> targets_;               // guarded by mu_
  std::map<std::string, std::string> distrusted_;  // guarded by mu_; by device, the peer that got wrong checksums
  std::set<std::string> without_offload_;          // guarded by mu_; devices

  metrics::Gauge& peers_;
  metrics::Gauge& ready_;
  metrics::Counter& syncs_;
  metrics::Counter& failures_;
  metrics::Family<metrics::Counter>& repairs_;
  metrics::Counter& offload_faults_;
  metrics::Histogram& seconds_;
};

}  // namespace hawser::overlay
