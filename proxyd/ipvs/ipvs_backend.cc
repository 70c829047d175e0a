// SPDX-License-Identifier: Apache-2.0
#include "proxyd/ipvs/ipvs_backend.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <netinet/in.h>

#include "lib/base/log.h"
#include "lib/netlink/rtnl_ensure.h"

namespace hawser::proxy {
namespace {

using netlink::IpvsVerb;

TrafficOptions beside(TrafficOptions o, bool translate) {
  o.translate = translate;
  o.beside_ipvs = true;
  return o;
}

std::vector<IpAddr> without(const std::vector<IpAddr>& a, const std::vector<IpAddr>& b) {
  std::vector<IpAddr> out;
  std::ranges::set_difference(a, b, std::back_inserter(out));
  return out;
}

bool leaves_flows(const IpvsPlan& p) {
  const auto removed = [](const auto& c) { return flows_are_removed(c.service.protocol); };
  return std::ranges::any_of(p.serve, removed) || std::ranges::any_of(p.retire, removed) ||
         std::ranges::any_of(p.gone, [](const auto& k) { return flows_are_removed(k.protocol); });
}

}  // namespace

IpvsBackend::IpvsBackend(IpvsKernel kernel, TrafficOptions traffic, IpvsOptions options, Clock& clock)
    : kernel_(std::move(kernel)),
      traffic_(rules_options(std::move(traffic))),
      options_(std::move(options)),
      clock_(clock),
      rules_(kernel_.nft, traffic_),
      beside_(kernel_.nft, beside(traffic_, false)),
      beside_table_(kernel_.nft, beside(traffic_, true)) {}

void IpvsBackend::invalidate() {
  image_.reset();
  device_ = 0;
  for (NftBackend* r : {&rules_, &beside_, &beside_table_}) r->invalidate();
}

Result<> check_kernel(netlink::Ipvs& ipvs) {
  auto services = ipvs.list_services();
  if (!services) return propagate(services, "mode ipvs");
  return {};
}

Result<VirtualServices> read_virtual_services(netlink::Ipvs& ipvs,
                                              const std::function<bool(const netlink::IpvsKey&)>& wanted) {
  auto services = ipvs.list_services();
  if (!services) return propagate(services);
  VirtualServices out;
  for (const auto& s : *services) {
    if (!wanted(s.key)) continue;
    VirtualService v{.scheduler = s.scheduler, .persistence_seconds = s.persistence_seconds, .weights = {}};
    auto destinations = ipvs.list_destinations(s.key);
    if (!destinations) return propagate(destinations);
    for (const auto& d : *destinations) v.weights[{d.address, d.port}] = d.weight;
    out.emplace(s.key, std::move(v));
  }
  return out;
}

Result<SyncReport> IpvsBackend::apply(const DesiredStatePtr& state) {
  const bool first = !image_;
  auto r = sync(state, first || state == applied_);
  if (!r) {
    invalidate();
    return r;
  }
  applied_ = state;
  r->full = first || (r->full && r->changes > 0);
  return r;
}

Result<SyncReport> IpvsBackend::sync(const DesiredStatePtr& state, bool read) {
  SyncReport report{.full = read};
  if (read) {
    if (auto r = set_up_kernel(); !r) return propagate(r);
    if (auto r = read_kernel(); !r) return propagate(r);
  }
  const VirtualServices want = virtual_services(*state, node_, options_);
  const std::vector<IpAddr> addresses = device_addresses(*state, node_);
  const IpvsPlan plan = plan_ipvs(*image_, want, options_.exclude);
  if (auto r = write_services(plan); !r) return propagate(r);
  auto rules = apply_rules(state);
  if (!rules) return propagate(rules);
  auto added = change_addresses(netlink::Verb::kAdd, without(addresses, addresses_));
  if (!added) return propagate(added);
  if (auto r = retire(plan); !r) return propagate(r);
  if (auto r = drain(want); !r) return propagate(r);
  auto removed = change_addresses(netlink::Verb::kDelete, without(addresses_, addresses));
  if (!removed) return propagate(removed);
  addresses_ = addresses;
  report.changes = plan.size() + rules->changes + *added + *removed;
  report.frontends = want.size();
  report.left = std::move(rules->left);
  report.flows = rules->flows || leaves_flows(plan);
  return report;
}

Result<> IpvsBackend::set_up_kernel() {
  // Asking loads the module, which the settings below belong to.
  if (auto r = check_kernel(kernel_.ipvs); !r) return r;
  auto device = ensure_device();
  if (!device) return propagate(device);
  device_ = *device;
  for (const auto& [key, value] : ipvs_sysctls(options_, kernel_.release)) {
    auto wrote = kernel_.sysctl(key, value);
    // A key that this kernel does not have, or /proc/sys read-only and set by somebody else.
    if (!wrote && !image_) log::warn("ipvs: {}", wrote.error().text);
    if (wrote && *wrote) log::info("{} = {}", key, value);
  }
  const auto& t = options_.timeouts;
  if (t == netlink::IpvsTimeouts{}) return {};
  auto have = kernel_.ipvs.get_timeouts();
  if (!have) return propagate(have);
  const auto differs = [](std::uint32_t w, std::uint32_t h) { return w != 0 && w != h; };
  if (differs(t.tcp_seconds, have->tcp_seconds) || differs(t.tcp_fin_seconds, have->tcp_fin_seconds) ||
      differs(t.udp_seconds, have->udp_seconds))
    return kernel_.ipvs.set_timeouts(t);
  return {};
}

// Any device that carries nothing will do: addresses on it are this node's. Without dummies it is a bridge without
// ports.
Result<int> IpvsBackend::ensure_device() {
  auto link = kernel_.rtnl.get_link(kIpvsDevice);
  if (!link && !is_not_found(link.error())) return propagate(link);
  if (!link) {
    auto made = kernel_.rtnl.add_link({.name = kIpvsDevice, .kind = "dummy"});
    if (!made && made.error().code == EOPNOTSUPP) made = kernel_.rtnl.add_link({.name = kIpvsDevice, .kind = "bridge"});
    if (!made) return propagate(made);
    link = kernel_.rtnl.get_link(kIpvsDevice);
    if (!link) return propagate(link);
    // No address of the kernel's own beside ours.
    if (auto r = kernel_.rtnl.change_link(link->index, {.auto_ipv6 = false}); !r) return propagate(r);
  }
  if (!link->up) {
    if (auto r = kernel_.rtnl.change_link(link->index, {.up = true}); !r) return propagate(r);
  }
  return link->index;
}

Result<NodeAddresses> IpvsBackend::read_addresses() {
  auto links = devices();
  if (!links) return propagate(links);
  auto addresses = kernel_.rtnl.list_addresses(0);
  if (!addresses) return propagate(addresses);
  std::vector<IpAddr> ours, others;
  for (const auto& a : *addresses) {
    const auto device = std::ranges::find(*links, a.link, &netlink::Link::index);
    if (device == links->end())
      others.push_back(a.cidr.addr());
    else if (device->name == kIpvsDevice)
      ours.push_back(a.cidr.addr());
  }
  std::ranges::sort(ours);
  addresses_ = std::move(ours);
  auto node = node_addresses(std::move(others), traffic_);
  if (node != node_) {
    rules_state_.forget();
    beside_state_.forget();
    node_ = std::move(node);
  }
  return node_;
}

Result<> IpvsBackend::read_kernel() {
  if (auto r = read_addresses(); !r) return propagate(r);
  auto image = read_virtual_services(kernel_.ipvs, [](const auto&) { return true; });
  if (!image) return propagate(image);
  image_ = std::move(*image);
  return {};
}

Result<> IpvsBackend::write_services(const IpvsPlan& p) {
  for (const auto& c : p.services) {
    if (auto r = kernel_.ipvs.change_service(c.verb, c.service); !r) return r;
    auto& v = (*image_)[c.service.key];
    v.scheduler = c.service.scheduler;
    v.persistence_seconds = c.service.persistence_seconds;
  }
  for (const auto& c : p.serve) {
    if (auto r = write_destination(c); !r) return r;
  }
  return {};
}

Result<> IpvsBackend::write_destination(const DestinationChange& c) {
  auto r = kernel_.ipvs.change_destination(c.verb, c.service, c.destination);
  if (!r) return r;
  auto& weights = (*image_)[c.service].weights;
  const Target t{c.destination.address, c.destination.port};
  if (c.verb == IpvsVerb::kDelete)
    weights.erase(t);
  else
    weights[t] = c.destination.weight;
  return {};
}

Result<> IpvsBackend::retire(const IpvsPlan& p) {
  for (const auto& c : p.retire) {
    if (auto r = write_destination(c); !r) return r;
  }
  for (const auto& key : p.gone) {
    if (auto r = kernel_.ipvs.change_service(IpvsVerb::kDelete, {.key = key}); !r) return r;
    image_->erase(key);
  }
  return {};
}

Result<> IpvsBackend::drain(const VirtualServices& want) {
  const Draining draining = draining_of(*image_, want);
  std::erase_if(since_, [&](const auto& e) { return !draining.contains(e.first); });
  const MonoTime now = clock_.now();
  for (auto it = draining.begin(); it != draining.end();) {
    const netlink::IpvsKey key = it->first;
    auto live = kernel_.ipvs.list_destinations(key);
    if (!live) return propagate(live);
    for (; it != draining.end() && it->first == key; ++it) {
      const Target& t = it->second;
      const auto begun = since_.try_emplace(*it, now).first->second;
      const auto d = std::ranges::find_if(*live, [&](const auto& x) { return Target{x.address, x.port} == t; });
      if (d != live->end() && d->active + d->inactive > 0 && now - begun < options_.drain_limit) continue;
      since_.erase(*it);
      if (d == live->end()) {
        (*image_)[key].weights.erase(t);
      } else if (auto r = write_destination({IpvsVerb::kDelete, key, *d}); !r) {
        return r;
      }
    }
  }
  return {};
}

Result<std::size_t> IpvsBackend::change_addresses(netlink::Verb verb, const std::vector<IpAddr>& addresses) {
  for (const IpAddr& a : addresses) {
    auto r = kernel_.rtnl.change_address(verb, {.link = device_, .cidr = Cidr(a, a.bits()), .no_dad = true});
    if (!r) return propagate(r);
  }
  return addresses.size();
}

Result<SyncReport> IpvsBackend::apply_rules(const DesiredStatePtr& state) {
  if (keep_clients_) return apply_beside(state, Decides::kIpvs);
  for (NftBackend* r : {&beside_, &beside_table_}) r->invalidate();
  return rules_.apply(rules_state_.of(state));
}

Result<SyncReport> IpvsBackend::apply_beside(const DesiredStatePtr& state, Decides who) {
  // Each of them knows what it wrote itself.
  NftBackend& mine = who == Decides::kIpvs ? beside_ : beside_table_;
  for (NftBackend* r : {&rules_, &beside_, &beside_table_})
    if (r != &mine) r->invalidate();
  return mine.apply(beside_state_.of(state));
}

Result<> IpvsBackend::fill(const DesiredStatePtr& state) {
  invalidate();
  if (auto r = set_up_kernel(); !r) return r;
  if (auto r = read_kernel(); !r) return r;
  if (auto r = write_services(plan_ipvs(*image_, virtual_services(*state, node_, options_), options_.exclude)); !r)
    return r;
  auto added = change_addresses(netlink::Verb::kAdd, without(device_addresses(*state, node_), addresses_));
  // What is there now, the next apply() reads.
  invalidate();
  return added ? Result<>{} : propagate(added);
}

Result<std::size_t> IpvsBackend::lacking(const DesiredStatePtr& state) {
  if (auto r = read_kernel(); !r) return propagate(r);
  const IpvsPlan p = plan_ipvs(*image_, virtual_services(*state, node_, options_), options_.exclude);
  const std::size_t n =
      p.services.size() + p.serve.size() + without(device_addresses(*state, node_), addresses_).size();
  invalidate();
  return n;
}

Result<std::vector<netlink::Link>> IpvsBackend::devices() {
  auto links = kernel_.rtnl.list_links();
  if (!links) return links;
  std::erase_if(*links, [](const netlink::Link& l) { return l.name != kIpvsDevice && l.name != kKubeIpvsDevice; });
  return links;
}

Result<bool> IpvsBackend::present() {
  auto links = devices();
  if (!links) return propagate(links);
  return std::ranges::any_of(*links, [&](const auto& l) { return l.name == kIpvsDevice || options_.adopt; });
}

Result<std::size_t> IpvsBackend::connections() {
  auto services = kernel_.ipvs.list_services();
  if (!services && services.error().code == EOPNOTSUPP) return std::size_t{0};
  if (!services) return propagate(services);
  std::size_t n = 0;
  for (const auto& s : *services) {
    if (std::ranges::any_of(options_.exclude, [&](const Cidr& c) { return c.contains(s.key.address); })) continue;
    auto destinations = kernel_.ipvs.list_destinations(s.key);
    if (!destinations) return propagate(destinations);
    for (const auto& d : *destinations) n += d.active + d.inactive;
  }
  return n;
}

Result<std::vector<IpAddr>> IpvsBackend::own_addresses() {
  auto links = devices();
  if (!links) return propagate(links);
  std::vector<IpAddr> out;
  for (const auto& l : *links) {
    auto addresses = kernel_.rtnl.list_addresses(l.index);
    if (!addresses) return propagate(addresses);
    for (const auto& a : *addresses) out.push_back(a.cidr.addr());
  }
  std::ranges::sort(out);
  return out;
}

Result<> IpvsBackend::cleanup() {
  invalidate();
  if (auto r = rules_.cleanup(); !r) return r;
  return remove();
}

Result<> IpvsBackend::remove() {
  invalidate();
  auto there = present();
  // Without our device this mode was never on, and virtual services are somebody else's.
  if (!there || !*there) return there ? Result<>{} : propagate(there);
  auto services = kernel_.ipvs.list_services();
  if (!services && services.error().code != EOPNOTSUPP) return propagate(services);
  if (services) {
    VirtualServices have;
    for (const auto& s : *services) have[s.key];
    for (const auto& key : plan_ipvs(have, {}, options_.exclude).gone) {
      if (auto r = kernel_.ipvs.change_service(IpvsVerb::kDelete, {.key = key}); !r && !is_not_found(r.error()))
        return r;
    }
  }
  auto links = devices();
  if (!links) return propagate(links);
  for (const auto& l : *links) {
    if (l.name != kIpvsDevice && !options_.adopt) continue;
    if (auto r = kernel_.rtnl.delete_link(l.index); !r && !is_not_found(r.error())) return r;
  }
  return {};
}

}  // namespace hawser::proxy
