// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/daemon.h"

#include <algorithm>
#include <array>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/netlink/ethtool.h"

namespace hawser::overlay {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{1000};
constexpr std::chrono::milliseconds kLastRetry{30000};
// Notifications come in bursts (a deleted device, a peer's three entries); one look serves them all.
constexpr std::chrono::milliseconds kGather{10};

// How often what nobody is notified of is compared.
constexpr std::chrono::milliseconds kLookAgain{30000};

constexpr const char* kRepair = "repaired";
constexpr const char* kChange = "nodes changed";

IpAddr of_family(const std::vector<IpAddr>& list, int family) {
  auto it = std::ranges::find(list, family, &IpAddr::family);
  return it == list.end() ? IpAddr() : *it;
}

// Takes all wake-ups that are there; true if there was one.
bool drain_eventfd(int fd) {
  std::uint64_t n = 0;
  return ::read(fd, &n, sizeof n) > 0;
}

}  // namespace

Daemon::Daemon(Options options, SubnetSource& source, Kernel kernel, metrics::Registry& registry)
    : options_(std::move(options)),
      source_(source),
      kernel_(kernel),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      peers_(registry.gauge("hawser_overlay_peers", "Remote nodes that pods can reach.").with()),
      ready_(registry.gauge("hawser_overlay_ready", "1 when the pod network of this node is ready.").with()),
      syncs_(
          registry.counter("hawser_overlay_syncs_total", "Comparisons of the kernel with the desired state.").with()),
      failures_(registry.counter("hawser_overlay_sync_failures_total", "Comparisons that ended with an error.").with()),
      repairs_(registry.counter("hawser_overlay_repairs_total", "Objects put right that others had changed, by kind.",
                                {"kind"})),
      offload_faults_(registry
                          .counter("hawser_overlay_offload_faults_total",
                                   "Times a tunnel device was told to write checksums itself, since those of the "
                                   "network device were wrong.")
                          .with()),
      seconds_(registry
                   .histogram("hawser_overlay_sync_seconds", "Time of one comparison with its writes.",
                              metrics::exponential_buckets(0.0005, 2, 14))
                   .with()) {
  for (const char* kind : {"device", "address", "neighbour", "fdb", "route", "peer", "masquerade"})
    repairs_.with({kind});
  set_status(false, "nothing is known of other nodes yet");
}

Daemon::~Daemon() {
  source_.stop();
}

void Daemon::wake() {
  std::uint64_t one = 1;
  // Fails only when the counter is full, and then the loop is about to wake anyway.
  if (::write(wake_.get(), &one, sizeof one) < 0) return;
}

Status Daemon::status() const {
  std::lock_guard l(mu_);
  return status_;
}
void Daemon::set_status(bool ready, std::string reason) {
  ready_.set(ready ? 1 : 0);
  std::lock_guard l(mu_);
  if (!ready && status_.reason != reason) log::info("not ready: {}", reason);
  if (ready && !status_.ready) log::info("ready");
  status_ = {ready, std::move(reason)};
}

bool Daemon::concerns_us(const netlink::Event& e) const {
  using Type = netlink::Event::Type;
  switch (e.type) {
    case Type::kResync:
      return true;
    case Type::kLink:
      return device_names_.contains(e.link.name) || underlays_.contains(e.link.index);
    case Type::kAddress:
      return devices_.contains(e.address.link) || underlays_.contains(e.address.link);
    case Type::kRoute:
      return devices_.contains(e.route.link) || e.route.type == netlink::RouteType::kUnreachable ||
             underlays_.contains(e.route.link);
    case Type::kNeigh:
      return devices_.contains(e.neigh.link) && (e.removed || e.neigh.permanent);
  }
  return true;
}

Result<> Daemon::run(int stop_fd) {
  source_.start([this] {
    leases_changed_ = true;
    wake();
  });
  std::chrono::milliseconds retry = kFirstRetry;
  bool failed = false;
  MonoTime looked = system_clock().now();
  for (;;) {
    std::array<pollfd, 3> p{pollfd{stop_fd, POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0},
                            pollfd{kernel_.monitor.fd(), POLLIN, 0}};
    const int limit = failed ? static_cast<int>(retry.count()) : until_next_look(looked);
    if (poll(p.data(), p.size(), limit) < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (p[0].revents != 0) return {};
    // Gathers what comes together, and still hears a stop.
    if (poll(p.data(), 1, static_cast<int>(kGather.count())) > 0) return {};
    const char* cause = kRepair;
    bool touched = drain_eventfd(wake_.get());
    if (leases_changed_.exchange(false) || failed) cause = kChange;
    touched |= failed || until_next_look(looked) == 0;
    auto read = kernel_.monitor.read([&](const netlink::Event& e) {
      if (!concerns_us(e)) return;
      log::debug("notified: {}", e.text());
      touched = true;
    });
    if (!read) return read;
    if (!touched) continue;
    auto synced = sync_once(cause);
    retry = synced || !failed ? kFirstRetry : std::min(retry * 2, kLastRetry);
    failed = !synced;
    looked = system_clock().now();
  }
}

// For poll(): milliseconds, -1 for ever.
int Daemon::until_next_look(MonoTime looked) const {
  if (find_backend(options_.settings.backend)->device != DeviceKind::kWireguard) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(looked + kLookAgain - system_clock().now());
  return static_cast<int>(std::max(left, std::chrono::milliseconds(0)).count());
}

Result<> Daemon::sync_once(const char* cause) {
  syncs_.add();
  const auto begin = system_clock().now();
  auto why_not = sync_all(cause);
  seconds_.observe(std::chrono::duration<double>(system_clock().now() - begin).count());
  if (!why_not) {
    failures_.add();
    log::error("sync: {}", why_not.error().text);
    set_status(false, why_not.error().text);
    return propagate(why_not);
  }
  set_status(why_not->empty(), *why_not);
  first_sync_ = false;
  return {};
}

Result<std::string> Daemon::sync_all(const char* cause) {
  auto view = source_.view();
  if (!view) return view.error();
  view_ = std::move(*view);
  Lease own = view_.own;
  own.node = options_.node;
  own.backend = options_.settings.backend;
  if (own.pod_cidrs.empty()) return offer(std::move(own));
  for (const auto& c : own.pod_cidrs) {
    bool inside = std::ranges::any_of(options_.cluster_cidrs, [&](const Cidr& all) { return all.contains(c); });
    if (!inside) return fmt::format("pod CIDR {} of node {} is not in the cluster's network", c, options_.node);
  }
  int mtu = 0;
  found_targets_.clear();
  std::vector<OverlaySpec> specs;
  for (const auto& cidr : own.pod_cidrs) {
    auto spec = spec_for(cidr.family(), own);
    if (!spec) return propagate(spec);
    mtu = mtu == 0 ? spec->mtu : std::min(mtu, spec->mtu);
    specs.push_back(std::move(*spec));
  }
  // Peers before the routes that lead to them.
  if (auto r = sync_wireguard(specs, own, cause); !r) return propagate(r);
  for (const auto& spec : specs) {
    if (auto r = sync_family(spec, cause); !r) return propagate(r);
  }
  {
    std::lock_guard l(mu_);
    targets_ = found_targets_;
  }
  if (auto r = sync_masquerade(own, cause); !r) return propagate(r);
  if (auto r = write_node_files(own, mtu); !r) return propagate(r);
  source_.publish(own, true);
  return std::string();
}

// A node that has no range yet says how it is reached, by which a source that gives out ranges can give it one.
Result<std::string> Daemon::offer(Lease own) {
  for (const auto& c : options_.cluster_cidrs) {
    if (auto r = fill_own(c.family(), own); !r) return propagate(r);
  }
  source_.publish(own, false);
  return fmt::format("node {} has no podCIDR yet", options_.node);
}

// The part of our own lease that this node knows best: where it is reached, and its device's MAC.
Result<Underlay> Daemon::fill_own(int family, Lease& own) {
  auto& rtnl = kernel_.rtnl;
  const auto& settings = options_.settings;
  auto underlay = find_underlay(rtnl, family, options_.iface, of_family(view_.node_addresses, family));
  if (!underlay) return propagate(underlay);
  if (settings.mtu) underlay->mtu = settings.mtu;
  Vtep& vtep = own.vtep(family);
  IpAddr told = of_family(view_.overwrites, family);
  if (!told) told = of_family(options_.public_ips, family);
  vtep.address = told ? told : underlay->address;
  vtep.public_key.reset();
  if (find_backend(settings.backend)->device != DeviceKind::kVxlan) {
    vtep.mac.reset();
    return underlay;
  }
  // The MAC that peers know; else that of a device that stands (the annotation was lost); else one that follows from
  // the name.
  if (!vtep.mac || vtep.vni != settings.vni) {
    auto have = rtnl.get_link(device_name(family, settings.vni));
    bool ours = have && have->kind == "vxlan" && have->vxlan.vni == settings.vni;
    vtep.mac = ours ? have->mac : mac_for(options_.node, settings.vni, family);
  }
  vtep.vni = settings.vni;
  return underlay;
}

// One WireGuard device carries both families of pods over an underlay of either; all others go over their own.
Result<Underlay> Daemon::underlay_for(int family, Lease& own) {
  const auto& settings = options_.settings;
  const auto mode = settings.wireguard.mode;
  const bool wireguard = find_backend(settings.backend)->device == DeviceKind::kWireguard;
  if (!wireguard || !settings.wireguard.one_device()) return fill_own(family, own);
  Result<Underlay> v4 = std::unexpected(Error{}), v6 = std::unexpected(Error{});
  if (mode != WireguardMode::kIpv6) v4 = fill_own(AF_INET, own);
  if (mode != WireguardMode::kIpv4) v6 = fill_own(AF_INET6, own);
  Result<Underlay> chosen = v4 || mode == WireguardMode::kIpv4 ? std::move(v4) : std::move(v6);
  if (chosen) chosen->pods = family;
  return chosen;
}

Result<OverlaySpec> Daemon::spec_for(int family, Lease& own) {
  const char* forwarding = family == AF_INET ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
  if (auto r = switch_on(options_.paths, forwarding); !r) return propagate(r);
  auto underlay = underlay_for(family, own);
  if (!underlay) return propagate(underlay, "pod CIDR {}", own.pod_cidr(family));
  own.vtep(family).public_key = public_key_;
  std::vector<std::string> skipped;
  auto spec = make_spec(own, view_.nodes, *underlay, options_.settings, skipped);
  for (const auto& s : skipped) {
    if (reported_.insert(s).second) log::warn("peer left out: {}", s);
  }
  if (!spec.device.name.empty()) device_names_.insert(spec.device.name);
  underlays_.insert(underlay->index);
  if (options_.adopt && first_sync_) {
    if (auto r = check_adoptable(kernel_.rtnl, spec.device); !r) return propagate(r);
  }
  return spec;
}

Result<> Daemon::sync_wireguard(const std::vector<OverlaySpec>& specs, Lease& own, const char* cause) {
  if (find_backend(options_.settings.backend)->device != DeviceKind::kWireguard) return {};
  if (!kernel_.wireguard) return fail(EOPNOTSUPP, "no access to WireGuard");
  std::map<std::string, std::vector<OverlaySpec>> by_device;
  for (const auto& s : specs) by_device[s.device.name].push_back(s);
  for (const auto& [name, sharing] : by_device) {
    auto done = wireguard_[name].sync(kernel_.rtnl, *kernel_.wireguard, sharing, options_.settings);
    if (!done) return propagate(done);
    report(done->wrote, cause);
    if (public_key_ != done->public_key) log::info("WireGuard public key of this node: {}", done->public_key.text());
    public_key_ = done->public_key;
  }
  for (const auto& c : own.pod_cidrs) own.vtep(c.family()).public_key = public_key_;
  return {};
}

Result<> Daemon::sync_family(const OverlaySpec& spec, const char* cause) {
  auto synced = sync(kernel_.rtnl, spec);
  if (!synced) return propagate(synced);
  if (synced->device) devices_.insert(synced->device);
  const bool vxlan = find_backend(options_.settings.backend)->device == DeviceKind::kVxlan;
  if (vxlan && synced->device) sync_offload(spec.device.name);
  peers_.set(static_cast<double>(spec.peers.size()));
  for (const auto& p : spec.peers)
    found_targets_.push_back({p.node, p.direct ? p.vtep : gateway_of(p.pod_cidr), spec.mtu,
                              vxlan && !p.direct ? spec.device.name : std::string()});
  if (auto r = remove_stale_device(kernel_.rtnl, spec.family, options_.settings, synced->wrote); !r) return r;
  report(synced->wrote, cause);
  return {};
}

// A device that was made anew has the offload again.
void Daemon::sync_offload(const std::string& device) {
  std::string peer;
  {
    std::lock_guard l(mu_);
    auto it = distrusted_.find(device);
    if (it != distrusted_.end()) peer = it->second;
  }
  auto on = netlink::tx_checksum_offload(device);
  if (!on) return log::debug("{}", on.error().text);
  if (*on && !peer.empty()) {
    // The network itself is as it was; without it some packets are lost, but not all.
    if (auto r = netlink::set_tx_checksum_offload(device, false); !r) return log::error("{}", r.error().text);
    log::warn("device {}: transmit checksum offload switched off: what node {} gets has wrong checksums", device, peer);
    offload_faults_.add();
    on = false;
  }
  std::lock_guard l(mu_);
  if (*on)
    without_offload_.erase(device);
  else
    without_offload_.insert(device);
}

void Daemon::on_faults(const std::vector<PathReport>& faults) {
  bool found = false;
  {
    std::lock_guard l(mu_);
    for (const auto& f : faults)
      if (f.state == PathState::kWrongChecksum)
        found |= distrusted_.emplace(f.target.offload_device, f.target.node).second;
  }
  if (found) wake();
}

std::vector<std::string> Daemon::device_lines() const {
  std::lock_guard l(mu_);
  std::vector<std::string> out;
  for (const auto& device : without_offload_) {
    auto it = distrusted_.find(device);
    out.push_back(fmt::format("device {}: transmit checksum offload is off{}", device,
                              it == distrusted_.end() ? "" : ": what node " + it->second + " got had wrong checksums"));
  }
  return out;
}

void Daemon::report(const std::vector<Change>& wrote, const char* cause) {
  for (const auto& w : wrote) {
    log::info("{}: {}", first_sync_ ? "start" : cause, w.text);
    if (cause == kRepair) repairs_.with({w.kind}).add();
  }
}

Result<> Daemon::sync_masquerade(const Lease& own, const char* cause) {
  if (!options_.ip_masq) {
    auto removed = remove_masquerade(kernel_.nft);
    if (!removed) return propagate(removed);
    return {};
  }
  auto wrote = ensure_masquerade(kernel_.nft, {.own_pods = own.pod_cidrs,
                                               .cluster = options_.cluster_cidrs,
                                               .not_masqueraded = options_.non_masquerade,
                                               .fully_random = options_.masq_fully_random});
  if (!wrote) return propagate(wrote);
  if (*wrote) report({{"masquerade", fmt::format("set nftables table {}", kMasqueradeTable)}}, cause);
  return {};
}

Result<> Daemon::write_node_files(const Lease& own, int mtu) {
  cni::NodeFile node{.node = options_.node,
                     .pod_cidrs = own.pod_cidrs,
                     .cluster_cidrs = options_.cluster_cidrs,
                     .mtu = mtu,
                     .devices = {device_names_.begin(), device_names_.end()}};
  auto wrote = write_files(options_.paths, {node, options_.ip_masq, options_.conflist});
  if (!wrote) return propagate(wrote);
  for (const auto& f : *wrote) log::info("wrote {}", f);
  return {};
}

std::vector<ProbeTarget> Daemon::probe_targets() const {
  std::lock_guard l(mu_);
  return targets_;
}

}  // namespace hawser::overlay
