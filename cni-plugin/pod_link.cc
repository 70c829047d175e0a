// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>

#include <boost/json/value.hpp>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>

#include "cni-plugin/bridge.h"
#include "cni-plugin/call.h"
#include "lib/base/log.h"
#include "lib/base/sysctl.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/netlink/socket.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;

// Per-interface settings that need the namespace: a static IPv6 address must not wait for duplicate detection nor be
// joined by advertised ones (FEATURES C85).
Result<> prepare_interface(const NetNs& ns, const std::string& ifname) {
  auto inside = NetNsGuard::enter(ns);
  if (!inside) return propagate(inside);
  for (const char* key : {"disable_ipv6", "accept_ra", "accept_dad"}) {
    if (auto r = sysctl::ensure(fmt::format("net/ipv6/conf/{}/{}", ifname, key), "0"); !r) return propagate(r);
  }
  return {};
}

bool has_family(const std::vector<GivenAddress>& list, int family) {
  return std::ranges::any_of(list, [family](const GivenAddress& a) { return a.address.family() == family; });
}

// A route of a family without an address would have no gateway.
std::vector<Cidr> destinations(const GivenAddresses& given) {
  std::vector<Cidr> out;
  for (const auto& v : given.routes) {
    const auto* o = v.if_object();
    const auto* dst = o ? o->if_contains("dst") : nullptr;
    if (!dst || !dst->is_string()) continue;
    auto cidr = Cidr::parse(std::string_view(dst->get_string()));
    if (cidr && has_family(given.addresses, cidr->family())) out.push_back(*cidr);
  }
  return out;
}

json::array& list(ResultJson& r, std::string_view key) {
  auto& v = r[key];
  if (!v.is_array()) v.emplace_array();
  return v.get_array();
}

void add_ip(ResultJson& r, const Cidr& address, const IpAddr& gateway, std::int64_t interface) {
  json::object ip{{"address", address.text()}};
  if (gateway) ip["gateway"] = gateway.text();
  ip["interface"] = interface;
  list(r, "ips").push_back(ip);
}
void add_route(ResultJson& r, std::string_view dst, const IpAddr& gateway) {
  list(r, "routes").push_back({{"dst", dst}, {"gw", gateway.text()}});
}
json::object interface(std::string_view name, const MacAddr& mac) {
  return {{"name", name}, {"mac", mac.text()}};
}
json::object pod_interface(std::string_view name, const MacAddr& mac, std::string_view netns, int mtu) {
  auto o = interface(name, mac);
  o["sandbox"] = netns;
  if (mtu != 0) o["mtu"] = mtu;
  return o;
}
const char* everywhere(int family) {
  return family == AF_INET ? "0.0.0.0/0" : "::/0";
}

class Routed final : public PodLink {
 public:
  Routed(const Call& c, const PodLinkInput& in) : netns_(c.env.netns) {
    spec_.host_name = c.host_name;
    spec_.ifname = c.env.ifname;
    spec_.netns_fd = in.netns.fd();
    spec_.mtu = in.mtu;
    spec_.mac = in.mac;
    for (const auto& a : in.given.addresses) spec_.addresses.push_back(a.address.addr());
    for (const auto& dst : destinations(in.given)) spec_.extra_routes.push_back({.dst = dst});
    if (has_family(in.given.addresses, AF_INET6))
      spec_.before_up = [&ns = in.netns, name = c.env.ifname] { return prepare_interface(ns, name); };
  }
  Result<> attach(netlink::Rtnl& node, netlink::Rtnl& pod) override { return cni::attach(node, pod, spec_); }
  void add_to(ResultJson& r) const override {
    auto& interfaces = list(r, "interfaces");
    const auto index = static_cast<std::int64_t>(interfaces.size()) + 1;
    interfaces.push_back(interface(spec_.host_name, host_mac(spec_.addresses[0])));
    interfaces.push_back(pod_interface(spec_.ifname, pod_mac(spec_), netns_, spec_.mtu));
    std::set<int> families;
    for (const auto& a : spec_.addresses) {
      const auto gateway = link_local_gateway(a.family());
      add_ip(r, Cidr(a, a.bits()), gateway, index);
      if (families.insert(a.family()).second) add_route(r, everywhere(a.family()), gateway);
    }
    for (const auto& route : spec_.extra_routes) {
      if (route.dst.prefix() != 0) add_route(r, route.dst.text(), link_local_gateway(route.dst.family()));
    }
  }
  Result<std::string> fault(netlink::Rtnl& node, netlink::Rtnl& pod) override {
    return attachment_fault(node, pod, spec_);
  }
  [[nodiscard]] FastEndpoint endpoint() const override {
    return {.host_name = spec_.host_name, .pod_mac = pod_mac(spec_), .addresses = spec_.addresses};
  }

 private:
  std::string netns_;
  AttachmentSpec spec_;
};

// A carrier reaches the bridge by way of a worker that the kernel may hold back for a second; until then the port does
// not forward. Asked for when the kernel announces something, and from time to time.
constexpr int kAskAgainMs = 50;
constexpr int kAsks = 40;

Result<> wait_until_running(netlink::Rtnl& node, netlink::Socket& events, const std::string& name) {
  for (int i = 0; i < kAsks; i++) {
    auto link = node.get_link(name);
    if (!link) return propagate(link);
    if (link->running) return {};
    pollfd p{events.fd(), POLLIN, 0};
    (void)poll(&p, 1, kAskAgainMs);
    if (auto r = events.drain([](const nlmsghdr*) {}); !r) return propagate(r);
  }
  return fail(ETIMEDOUT, "interface {} does not come up", name);
}

Cidr gateway_of(const ipam::Range& r) {
  return {r.gateway, r.subnet.prefix()};
}

class Bridged final : public PodLink {
 public:
  Bridged(const Call& c, const PodLinkInput& in) : netns_(c.env.netns) {
    spec_.bridge = *c.conf.bridge;
    spec_.host_name = c.host_name;
    spec_.ifname = c.env.ifname;
    spec_.netns_fd = in.netns.fd();
    spec_.mtu = in.mtu;
    spec_.mac = in.mac;
    for (const auto& a : in.given.addresses) spec_.addresses.push_back({a.address, a.gateway});
    spec_.routes = destinations(in.given);
    for (const auto& r : c.addresses->former_subnets(c.conf)) spec_.former.push_back(gateway_of(r));
    if (has_family(in.given.addresses, AF_INET6))
      spec_.before_up = [&ns = in.netns, name = c.env.ifname] { return prepare_interface(ns, name); };
  }
  Result<> attach(netlink::Rtnl& node, netlink::Rtnl& pod) override {
    auto events = netlink::Socket::open(NETLINK_ROUTE, {.groups = {RTNLGRP_LINK}});
    if (!events) return propagate(events);
    if (auto r = attach_to_bridge(node, pod, spec_); !r) return r;
    auto running = wait_until_running(node, *events, spec_.host_name);
    if (!running) (void)detach(node, spec_.host_name);
    return running;
  }
  void add_to(ResultJson& r) const override {
    const auto& first = spec_.addresses[0];
    const auto gateway_mac = host_mac(first.gateway ? first.gateway : first.pod.addr());
    auto& interfaces = list(r, "interfaces");
    const auto index = static_cast<std::int64_t>(interfaces.size()) + 2;
    interfaces.push_back(interface(spec_.bridge.name, gateway_mac));
    json::object port;
    port["name"] = spec_.host_name;
    interfaces.push_back(port);
    interfaces.push_back(pod_interface(spec_.ifname, pod_mac(spec_), netns_, spec_.mtu));
    std::set<int> families;
    for (const auto& a : spec_.addresses) {
      add_ip(r, a.pod, a.gateway, index);
      if (!a.gateway || !families.insert(a.pod.family()).second) continue;
      if (spec_.bridge.default_gateway) add_route(r, everywhere(a.pod.family()), a.gateway);
      for (const auto& dst : spec_.routes) {
        if (dst.family() == a.pod.family() && (dst.prefix() != 0 || !spec_.bridge.default_gateway))
          add_route(r, dst.text(), a.gateway);
      }
    }
  }
  Result<std::string> fault(netlink::Rtnl& node, netlink::Rtnl& pod) override { return bridge_fault(node, pod, spec_); }
  [[nodiscard]] FastEndpoint endpoint() const override {
    FastEndpoint e{.host_name = spec_.host_name, .pod_mac = pod_mac(spec_)};
    for (const auto& a : spec_.addresses) e.addresses.push_back(a.pod.addr());
    return e;
  }

 private:
  std::string netns_;
  BridgeSpec spec_;
};

}  // namespace

std::unique_ptr<PodLink> make_pod_link(const Call& c, const PodLinkInput& in) {
  if (c.conf.bridge) return std::make_unique<Bridged>(c, in);
  return std::make_unique<Routed>(c, in);
}

void drop_drained_gateways(const Call& c) {
  if (!c.conf.bridge || !(c.conf.bridge->gateway || c.conf.bridge->default_gateway)) return;
  const auto former = c.addresses->former_subnets(c.conf);
  if (former.empty()) return;
  auto node = netlink::KernelRtnl::open();
  for (const auto& range : former) {
    auto drop = [&]() -> Result<> {
      if (!node) return propagate(node);
      return drop_gateway(*node, c.conf.bridge->name, gateway_of(range));
    };
    if (auto r = c.addresses->retire(c.conf, range, drop); !r)
      log::warn("bridge {}: gateway {} of a former subnet: {}", c.conf.bridge->name, range.gateway, r.error().text);
  }
}

}  // namespace hawser::cni
