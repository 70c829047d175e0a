// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/daemon.h"

#include <algorithm>
#include <array>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/sysctl.h"

namespace hawser::overlay {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{1000};
constexpr std::chrono::milliseconds kLastRetry{30000};
// Notifications come in bursts (a deleted device, a peer's three entries); one look serves them all.
constexpr std::chrono::milliseconds kGather{10};

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

Daemon::Daemon(Options options, kube::Client& client, Kernel kernel, metrics::Registry& registry)
    : options_(std::move(options)),
      client_(client),
      kernel_(kernel),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      peers_(registry.gauge("hawser_overlay_peers", "Remote nodes that pods can reach.").with()),
      ready_(registry.gauge("hawser_overlay_ready", "1 when the pod network of this node is ready.").with()),
      syncs_(
          registry.counter("hawser_overlay_syncs_total", "Comparisons of the kernel with the desired state.").with()),
      failures_(registry.counter("hawser_overlay_sync_failures_total", "Comparisons that ended with an error.").with()),
      repairs_(registry.counter("hawser_overlay_repairs_total", "Objects put right that others had changed.").with()),
      seconds_(registry
                   .histogram("hawser_overlay_sync_seconds", "Time of one comparison with its writes.",
                              metrics::exponential_buckets(0.0005, 2, 14))
                   .with()) {
  set_status(false, "no answer from the API server yet");
  publisher_ = std::make_unique<BoundedRunner>(
      BoundedRunnerOptions{.retry_interval = std::chrono::seconds(3), .max_interval = std::chrono::hours(24)},
      [this] { return publish(); });
  informer_ = std::make_unique<kube::Informer>(client_, kube::kNodes);
}

Daemon::~Daemon() {
  if (informer_) informer_->stop();
  publisher_->stop();
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

void Daemon::on_node(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  const auto name = std::string(kube::name(current ? *current : *old));
  bool changed = false;
  {
    std::lock_guard l(mu_);
    if (name == options_.node) own_node_ = current;
    auto it = leases_.find(name);
    if (!current) {
      changed = it != leases_.end();
      leases_.erase(name);
    } else {
      // Heartbeats change a Node every few seconds; its lease hardly ever.
      auto lease = read_lease(*current, options_.annotation_prefix);
      changed = it == leases_.end() || it->second != lease;
      if (changed) leases_[name] = std::move(lease);
    }
  }
  if (name == options_.node) publisher_->run();
  if (changed) wake();
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
      return devices_.contains(e.route.link) || e.route.type == netlink::RouteType::kUnreachable;
    case Type::kNeigh:
      return devices_.contains(e.neigh.link) && (e.removed || e.neigh.permanent);
  }
  return true;
}

Result<> Daemon::run(int stop_fd) {
  publisher_->start();
  informer_->start({.on_change = [this](const auto& old, const auto& now) { on_node(old, now); },
                    .on_synced =
                        [this] {
                          {
                            std::lock_guard l(mu_);
                            nodes_known_ = true;
                          }
                          wake();
                        }});
  std::chrono::milliseconds retry = kFirstRetry;
  bool failed = false;
  for (;;) {
    std::array<pollfd, 3> p{pollfd{stop_fd, POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0},
                            pollfd{kernel_.monitor.fd(), POLLIN, 0}};
    if (poll(p.data(), p.size(), failed ? static_cast<int>(retry.count()) : -1) < 0 && errno != EINTR)
      return fail_errno(errno, "poll");
    if (p[0].revents != 0) return {};
    // Gathers what comes together, and still hears a stop.
    if (poll(p.data(), 1, static_cast<int>(kGather.count())) > 0) return {};
    const char* cause = kRepair;
    bool touched = drain_eventfd(wake_.get());
    if (touched || failed) cause = kChange;
    touched |= failed;
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
  }
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
  std::vector<Lease> all;
  Lease own;
  {
    std::lock_guard l(mu_);
    if (!nodes_known_) return std::string("no answer from the API server yet");
    auto it = leases_.find(options_.node);
    if (it == leases_.end()) return fmt::format("node {} is not registered", options_.node);
    own = it->second;
    for (auto& [name, lease] : leases_) all.push_back(lease);
  }
  if (own.pod_cidrs.empty()) return fmt::format("node {} has no podCIDR yet", options_.node);
  own.backend = "vxlan";
  int mtu = 0;
  double peers = 0;
  for (const auto& cidr : own.pod_cidrs) {
    auto family_mtu = sync_family(cidr.family(), own, all, cause);
    if (!family_mtu) return propagate(family_mtu);
    mtu = mtu == 0 ? *family_mtu : std::min(mtu, *family_mtu);
    peers = std::max(peers, peers_.value());
  }
  if (auto r = sync_masquerade(own); !r) return propagate(r);
  if (auto r = write_node_files(own, mtu); !r) return propagate(r);
  {
    std::lock_guard l(mu_);
    wanted_ = Publication{
        .lease = own, .prefix = options_.annotation_prefix, .network_available = options_.set_network_available};
  }
  publisher_->run();
  return std::string();
}

Result<int> Daemon::sync_family(int family, Lease& own, const std::vector<Lease>& all, const char* cause) {
  auto& rtnl = kernel_.rtnl;
  const char* forwarding = family == AF_INET ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding";
  if (auto r = sysctl::ensure(forwarding, "1"); !r) return propagate(r);
  IpAddr preferred;
  {
    std::lock_guard l(mu_);
    if (own_node_) preferred = internal_ip(*own_node_, family);
  }
  auto underlay = find_underlay(rtnl, family, options_.iface, preferred);
  if (!underlay) return propagate(underlay, "pod CIDR {}", own.pod_cidr(family));
  Vtep& vtep = own.vtep(family);
  IpAddr told = of_family(options_.public_ips, family);
  vtep.address = told ? told : underlay->address;
  // The MAC that peers know; else that of a device that stands (the annotation was lost); else one that follows from
  // the name.
  const auto device = device_name(family, options_.settings.vni);
  if (!vtep.mac || vtep.vni != options_.settings.vni) {
    auto have = rtnl.get_link(device);
    bool ours = have && have->kind == "vxlan" && have->vxlan.vni == options_.settings.vni;
    vtep.mac = ours ? have->mac : mac_for(options_.node, options_.settings.vni, family);
  }
  vtep.vni = options_.settings.vni;
  std::vector<std::string> skipped;
  auto spec = make_spec(own, all, family, *underlay, options_.settings, skipped);
  for (const auto& s : skipped) {
    if (reported_.insert(s).second) log::warn("peer left out: {}", s);
  }
  device_names_.insert(device);
  underlays_.insert(underlay->index);
  auto synced = sync(rtnl, spec);
  if (!synced) return propagate(synced);
  devices_.insert(synced->device);
  peers_.set(static_cast<double>(spec.peers.size()));
  for (const auto& w : synced->wrote) log::info("{}: {}", first_sync_ ? "start" : cause, w);
  if (cause == kRepair) repairs_.add(static_cast<double>(synced->wrote.size()));
  return spec.device.mtu;
}

Result<> Daemon::sync_masquerade(const Lease& own) {
  if (!options_.ip_masq) {
    auto removed = remove_masquerade(kernel_.nft);
    if (!removed) return propagate(removed);
    return {};
  }
  auto wrote = ensure_masquerade(
      kernel_.nft,
      {.own_pods = own.pod_cidrs, .cluster = options_.cluster_cidrs, .not_masqueraded = options_.non_masquerade});
  if (!wrote) return propagate(wrote);
  if (*wrote) log::info("set nftables table {}", kMasqueradeTable);
  return {};
}

Result<> Daemon::write_node_files(const Lease& own, int mtu) {
  cni::NodeFile node{
      .node = options_.node, .pod_cidrs = own.pod_cidrs, .cluster_cidrs = options_.cluster_cidrs, .mtu = mtu};
  auto wrote = write_files(options_.paths, node, options_.ip_masq);
  if (!wrote) return propagate(wrote);
  for (const auto& f : *wrote) log::info("wrote {}", f);
  return {};
}

Result<> Daemon::publish() {
  std::optional<Publication> wanted;
  kube::ObjectPtr node;
  {
    std::lock_guard l(mu_);
    wanted = wanted_;
    node = own_node_;
  }
  if (!wanted || !node) return {};
  auto patch = publication_patch(*node, *wanted, system_clock().wall());
  if (!patch) return {};
  auto answer = client_.patch(kube::kNodes, "", options_.node, kube::PatchType::kStrategic, *patch, "status");
  // Some servers keep metadata out of the status subresource.
  if (answer && (*answer) && publication_patch(**answer, *wanted, system_clock().wall()) &&
      kube::find(patch->get_object(), {"metadata"}))
    answer = client_.patch(kube::kNodes, "", options_.node, kube::PatchType::kStrategic,
                           kube::Object{{"metadata", *kube::find(patch->get_object(), {"metadata"})}});
  if (!answer) {
    log::warn("publish the lease of node {}: {}", options_.node, answer.error().text);
    return propagate(answer);
  }
  log::info("published the lease of node {}", options_.node);
  return {};
}

}  // namespace hawser::overlay
