// SPDX-License-Identifier: Apache-2.0
// ADD: addresses, link, bandwidth, host ports, fast path, in this order; each step's undo is on a stack.
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <sys/socket.h>

#include "cni-plugin/bandwidth.h"
#include "cni-plugin/call.h"
#include "cni-plugin/collect/netns_names.h"
#include "lib/base/rollback.h"
#include "lib/base/sysctl.h"
#include "lib/netlink/rtnl_ensure.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

using netlink::KernelRtnl;

// The node must forward what it attaches. Set here too, because others (docker, sysctl --system) switch it off behind
// overlayd's back.
Result<> forward(const GivenAddresses& given) {
  for (const auto& a : given.addresses) {
    const char* key = a.address.family() == AF_INET ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
    if (auto r = sysctl::ensure(key, "1"); !r) return propagate(r);
  }
  return {};
}

HostPortRecord record_of(const Call& c, const GivenAddresses& given) {
  HostPortRecord r{.network = c.conf.name, .owner = c.owner, .ports = c.conf.asked.ports};
  for (const auto& a : given.addresses) {
    r.addresses.push_back(a.address.addr());
    if (c.conf.bridge) r.bridged.push_back(a.address.network());
  }
  return r;
}

Result<> publish_ports(const Call& c, const GivenAddresses& given) {
  // Lets the node reach the ports through 127.0.0.1: such packets may then leave over the pod's link.
  const auto& link = c.conf.bridge ? c.conf.bridge->name : c.host_name;
  if (auto r = sysctl::ensure(fmt::format("net/ipv4/conf/{}/route_localnet", link), "1"); !r) return propagate(r);
  return with_host_ports(c, [&](HostPorts& p) { return p.put(c.host_name, record_of(c, given)); });
}

Result<> shape(const Call& c, KernelRtnl& node) {
  auto host = node.get_link(c.host_name);
  if (!host) return propagate(host);
  return limit_bandwidth(node, *host, c.conf.asked.bandwidth);
}

Code link_code(const Error& e) {
  if (is_exists(e)) return Code::kAlreadyAttached;
  return e.code == EADDRINUSE || e.code == EINVAL ? Code::kInvalidConfig : Code::kInternal;
}

Outcome<ResultJson> result_before(const Call& c) {
  if (!c.conf.prev_result) return ResultJson();
  return from_version(*c.conf.prev_result, c.conf.version);
}

// `result`: of the plugins before us.
Outcome<ResultJson> join(const Call& c, const NetNs& ns, const GivenAddresses& given, ResultJson result) {
  auto node = KernelRtnl::open();
  auto pod = KernelRtnl::open(ns.fd());
  if (!node) return as_failure(Code::kInternal, node);
  if (!pod) return as_failure(Code::kInternal, pod);
  if (auto r = forward(given); !r) return as_failure(Code::kInternal, r);
  const int mtu = c.conf.mtu != 0 ? c.conf.mtu : c.node ? c.node->mtu : 0;
  auto link = make_pod_link(c, {.netns = ns, .given = given, .mtu = mtu, .mac = c.conf.asked.mac});
  if (auto r = link->attach(*node, *pod); !r) return as_failure(link_code(r.error()), r);
  Rollback undo;
  undo.push([&] { (void)detach(*node, c.host_name); });
  if (c.conf.asked.bandwidth.any()) {
    undo.push([&] { (void)netlink::forget_link(*node, ifb_name(c.host_name)); });
    if (auto r = shape(c, *node); !r) return as_failure(Code::kInternal, r);
  }
  if (!c.conf.asked.ports.empty()) {
    if (auto r = publish_ports(c, given); !r)
      return as_failure(r.error().code == EADDRINUSE ? Code::kPortTaken : Code::kInternal, r);
    undo.push([&] { (void)with_host_ports(c, [&](HostPorts& p) { return p.drop(c.host_name); }); });
  }
  if (auto r = c.fast_path->attach(link->endpoint()); !r) return as_failure(Code::kInternal, r);
  link->add_to(result);
  if (!given.dns.empty() || !result.contains("dns")) result["dns"] = given.dns;
  undo.commit();
  return result;
}

}  // namespace

Outcome<std::string> do_add(Call& c) {
  auto ns = open_pod_netns(c.env);
  if (!ns) return std::unexpected(ns.error());
  // What we are given is read before anything is made.
  auto before = result_before(c);
  if (!before) return std::unexpected(before.error());
  if (!c.node && c.conf.mtu == 0 && c.conf.ipam_type.empty() && c.conf.ranges.empty())
    return failure(Code::kTryAgainLater, "{}; is hawser-overlayd running and ready?", c.node_fault);
  auto given = c.addresses->add(c.conf, c.owner);
  if (!given) return std::unexpected(given.error());
  if (!c.conf.asked.dns.empty()) given->dns = c.conf.asked.dns;
  Rollback undo;
  undo.push([&] { (void)c.addresses->del(c.conf, c.owner); });
  auto result = join(c, *ns, *given, std::move(*before));
  if (!result) return std::unexpected(result.error());
  undo.commit();
  drop_drained_gateways(c);
  (void)note_netns_folder(c.conf.run_folder, c.env.netns);  // the pod is attached, whatever becomes of it
  return boost::json::serialize(to_version(*result, c.conf.version));
}

}  // namespace hawser::cni
