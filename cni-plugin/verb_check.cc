// SPDX-License-Identifier: Apache-2.0
// CHECK: the kernel and the records against what ADD has answered; the first difference is named.
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "cni-plugin/bandwidth.h"
#include "cni-plugin/call.h"
#include "lib/netlink/rtnl_kernel.h"

namespace hawser::cni {
namespace {

using netlink::KernelRtnl;

struct Remembered {
  std::vector<GivenAddress> addresses;
  std::optional<MacAddr> mac;
};

// Our own interface as the runtime remembers it.
Outcome<Remembered> remembered(const Call& c, const ResultJson& prev) {
  const auto* interfaces = prev.if_contains("interfaces");
  if (!interfaces || !interfaces->is_array()) return failure(Code::kInvalidConfig, "prevResult: interfaces is missing");
  int index = -1;
  Remembered out;
  const auto& items = interfaces->get_array();
  for (std::size_t i = 0; i < items.size(); i++) {
    const auto* o = items[i].if_object();
    auto text = [o](const char* key) {
      const auto* v = o ? o->if_contains(key) : nullptr;
      return v && v->is_string() ? std::string_view(v->get_string()) : std::string_view();
    };
    if (text("name") != c.env.ifname || text("sandbox").empty()) continue;
    index = static_cast<int>(i);
    if (auto mac = MacAddr::parse(text("mac"))) out.mac = *mac;
  }
  if (index < 0) return failure(Code::kInvalidConfig, "prevResult: interfaces does not have {}", c.env.ifname);
  auto ips = result_ips(prev);
  if (!ips) return std::unexpected(ips.error());
  for (const auto& ip : *ips) {
    if (ip.interface == index) out.addresses.push_back({ip.address, ip.gateway});
  }
  if (out.addresses.empty()) return failure(Code::kInvalidConfig, "prevResult: no address of {}", c.env.ifname);
  return out;
}

Outcome<> as_check(const Result<std::string>& fault) {
  if (!fault) return as_failure(Code::kInternal, fault);
  if (!fault->empty()) return failure(Code::kCheckFailed, "{}", *fault);
  return {};
}

Outcome<> check_capabilities(const Call& c, KernelRtnl& node) {
  if (c.conf.asked.bandwidth.any()) {
    auto host = node.get_link(c.host_name);
    if (!host) return as_failure(Code::kInternal, host);
    if (auto r = as_check(bandwidth_fault(node, *host, c.conf.asked.bandwidth)); !r) return r;
  }
  if (c.conf.asked.ports.empty()) return {};
  std::string fault;
  auto r = with_host_ports(c, [&](HostPorts& p) {
    auto f = p.fault(c.host_name, c.conf.asked.ports);
    if (f) fault = *f;
    return f ? Result<>() : propagate(f);
  });
  if (!r) return as_failure(Code::kInternal, r);
  return as_check(fault);
}

}  // namespace

Outcome<std::string> do_check(Call& c) {
  if (!c.conf.prev_result) return failure(Code::kInvalidConfig, "prevResult: is required for CHECK");
  auto prev = from_version(*c.conf.prev_result, c.conf.version);
  if (!prev) return std::unexpected(prev.error());
  auto was = remembered(c, *prev);
  if (!was) return std::unexpected(was.error());
  auto ns = open_pod_netns(c.env);
  if (!ns) return std::unexpected(ns.error());
  auto node = KernelRtnl::open();
  auto pod = KernelRtnl::open(ns->fd());
  if (!node) return as_failure(Code::kInternal, node);
  if (!pod) return as_failure(Code::kInternal, pod);
  // node.json may have changed since ADD; a pod's MTU is right as long as nobody configured another. The MAC is what a
  // plugin after us may have set and told.
  auto link = make_pod_link(c, {.netns = *ns,
                                .given = {.addresses = was->addresses, .routes = c.conf.routes},
                                .mtu = c.conf.mtu,
                                .mac = was->mac});
  if (auto r = as_check(link->fault(*node, *pod)); !r) return std::unexpected(r.error());
  if (auto r = check_capabilities(c, *node); !r) return std::unexpected(r.error());
  if (auto r = as_check(c.fast_path->fault(link->endpoint())); !r) return std::unexpected(r.error());
  std::vector<IpAddr> addresses;
  for (const auto& a : was->addresses) addresses.push_back(a.address.addr());
  if (auto r = c.addresses->check(c.conf, c.owner, addresses); !r) return std::unexpected(r.error());
  return std::string();
}

}  // namespace hawser::cni
