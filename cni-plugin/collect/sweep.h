// SPDX-License-Identifier: Apache-2.0
// Sweep: removes what dead attachments have left behind: address records, host-port records with their rules and flows,
// ifb devices. The GC verb and the leak collector differ only in who counts as live. Level-triggered and idempotent:
// it looks at what is there, goes on past failures and reports the first. One thread at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cni-plugin/fast_path.h"
#include "cni-plugin/host_ports/host_ports.h"
#include "cni-plugin/ipam/store.h"
#include "lib/netlink/rtnl.h"

namespace hawser::cni {

struct Leak {
  enum class Kind { kAddress, kHostPorts, kIfb, kLink, kNetnsName, kFastPath };
  Kind kind = Kind::kAddress;
  std::string network;  // empty where the thing does not say
  std::string what;     // "address 10.244.1.5 of interface eth0 of container 3f..."
};
[[nodiscard]] const char* kind_text(Leak::Kind kind);  // "address"; also a metrics label

struct Sweep {
  std::vector<Leak> removed;
  Result<> error;  // the first
};

// Addresses of one network's store that `live` denies.
void sweep_addresses(const std::string& folder, const std::string& network,
                     const std::function<bool(const ipam::Held&)>& live, Sweep& sweep, Clock& clock = system_clock());
// Records that `live` denies, of every network; repairs the table. Nothing is made where no folder is.
void sweep_host_ports(const std::string& folder, HostPorts::Kernel kernel,
                      const std::function<bool(const std::string& name, const HostPortRecord&)>& live, Sweep& sweep);
// Pods of any network that `live` denies by their host link. False: some may still be there.
bool sweep_fast_path(FastPath& fast_path, const std::function<bool(const std::string&)>& live, Sweep& sweep);
// An ifb of ours whose host link is gone.
void sweep_ifbs(netlink::Rtnl& node, Sweep& sweep);
// Host links of one network that `live` denies by name.
void sweep_links(netlink::Rtnl& node, const std::string& network, const std::function<bool(const std::string&)>& live,
                 Sweep& sweep);

}  // namespace hawser::cni
