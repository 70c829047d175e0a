// SPDX-License-Identifier: Apache-2.0
// Call: everything one verb works with, read and checked once. Main thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cni-plugin/addresses.h"
#include "cni-plugin/attachment.h"
#include "cni-plugin/attachment_result.h"
#include "cni-plugin/fast_path.h"
#include "cni-plugin/host_ports/host_ports.h"
#include "lib/base/netns.h"
#include "lib/netlink/rtnl.h"

namespace hawser::cni {

struct Call {
  Environment env;
  NetConf conf;
  std::unique_ptr<NodeFile> node;  // its address is kept by `addresses`
  std::string node_fault;          // why `node` is empty
  std::unique_ptr<AddressSource> addresses;
  ipam::Owner owner;
  std::string host_name;
  FastPath* fast_path = nullptr;  // never null once read

  [[nodiscard]] std::string host_ports_folder() const { return conf.run_folder + "/hostports"; }
};

Outcome<Call> read_call(const Environment& env, std::string_view input, FastPath& fast_path);

// The pod's namespace, refused when it is the one we run in: that would take the node's own network apart.
Outcome<NetNs> open_pod_netns(const Environment& env);

// What joins the pod to the node in the mode that is configured, behind one interface for the verbs.
class PodLink {
 public:
  virtual ~PodLink() = default;
  virtual Result<> attach(netlink::Rtnl& node, netlink::Rtnl& pod) = 0;
  // Our part, appended to what plugins before us made.
  virtual void add_to(ResultJson& result) const = 0;
  virtual Result<std::string> fault(netlink::Rtnl& node, netlink::Rtnl& pod) = 0;
  [[nodiscard]] virtual FastEndpoint endpoint() const = 0;
};
// `routes`: the further destinations, as configured or given. CHECK sets `mac` to what ADD has given.
struct PodLinkInput {
  const NetNs& netns;
  GivenAddresses given;
  int mtu = 0;
  std::optional<MacAddr> mac;
};
std::unique_ptr<PodLink> make_pod_link(const Call& c, const PodLinkInput& in);

// Bridge mode: takes the gateways of former subnets without pods off the bridge. What fails is said on standard error
// and tried again by the next verb: no pod depends on it.
void drop_drained_gateways(const Call& c);

// Runs `fn` with the kernel's nftables and conntrack opened and the records locked.
Result<> with_host_ports(const Call& c, const std::function<Result<>(HostPorts&)>& fn);

Outcome<std::string> do_add(Call& c);
Outcome<std::string> do_check(Call& c);
Outcome<std::string> do_del(Call& c);
Outcome<std::string> do_gc(Call& c);
Outcome<std::string> do_status(Call& c);

}  // namespace hawser::cni
