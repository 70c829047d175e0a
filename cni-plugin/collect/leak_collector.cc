// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/collect/leak_collector.h"

#include <filesystem>

#include "cni-plugin/attachment.h"
#include "cni-plugin/collect/netns_names.h"
#include "lib/base/log.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"

namespace hawser::cni {
namespace {

namespace fs = std::filesystem;

class Thread final : public LeakCollector::Running {
 public:
  Thread(const LeakCollectorOptions& o, metrics::Registry& registry, netlink::KernelRtnl rtnl,
         std::unique_ptr<nft::KernelNft> nft, netlink::KernelConntrack conntrack)
      : rtnl_(std::move(rtnl)),
        nft_(std::move(nft)),
        conntrack_(std::move(conntrack)),
        collector_(o, rtnl_, {*nft_, conntrack_}, registry),
        runner_({.retry_interval = o.interval, .max_interval = o.interval},
                [this] { return collector_.run_once().error; }) {
    runner_.start();
    runner_.run();  // a daemon that often starts again collects as well
  }

 private:
  netlink::KernelRtnl rtnl_;
  std::unique_ptr<nft::KernelNft> nft_;
  netlink::KernelConntrack conntrack_;
  LeakCollector collector_;
  BoundedRunner runner_;
};

}  // namespace

LeakCollector::LeakCollector(const LeakCollectorOptions& options, netlink::Rtnl& node, HostPorts::Kernel kernel,
                             metrics::Registry& registry, Clock& clock)
    : options_(options),
      node_(node),
      kernel_(kernel),
      leaks_(registry.counter("hawser_cni_leaks_collected_total",
                              "Leftovers of attachments that ended without a whole DEL, by kind.", {"kind"})),
      failures_(registry.counter("hawser_cni_leak_collection_failures_total", "Sweeps that met an error.").with()),
      clock_(clock) {}

// An answer other than "there is none" counts as yes: nothing is taken away on a guess.
bool LeakCollector::has_link(const std::string& name) {
  auto l = node_.get_link(name);
  return l || !is_not_found(l.error());
}

Sweep LeakCollector::run_once() {
  Sweep sweep;
  sweep_host_ports(
      options_.run_dir + "/hostports", kernel_,
      [&](const std::string& name, const HostPortRecord&) { return has_link(name); }, sweep);
  sweep_ifbs(node_, sweep);
  NoFastPath none;
  FastPath& fast_path = options_.fast_path ? *options_.fast_path : none;
  if (sweep_fast_path(
          fast_path, [&](const std::string& name) { return has_link(name); }, sweep))
    sweep_networks(sweep);
  sweep_netns_names(options_.run_dir, options_.grace, sweep, clock_);
  report(sweep);
  return sweep;
}

// Addresses that nothing leads to.
void LeakCollector::sweep_networks(Sweep& sweep) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(options_.run_dir + "/ipam", ec)) {
    const auto network = entry.path().filename().native();
    auto live = [&](const ipam::Held& h) {
      return clock_.now() - h.since < options_.grace || h.imported || has_link(host_link_name(network, h.owner));
    };
    sweep_addresses(entry.path().native(), network, live, sweep, clock_);
  }
}

void LeakCollector::report(const Sweep& sweep) {
  for (const auto& leak : sweep.removed) {
    log::warn("leak collected: {}{}{}", leak.what, leak.network.empty() ? "" : " in network ", leak.network);
    leaks_.with({kind_text(leak.kind)}).add();
  }
  if (!sweep.error) {
    failures_.add();
    log::error("leak collection: {}", sweep.error.error().text);
  }
}

Result<std::unique_ptr<LeakCollector::Running>> LeakCollector::start(const LeakCollectorOptions& options,
                                                                     metrics::Registry& registry) {
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl, "leak collector");
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft, "leak collector");
  auto conntrack = netlink::KernelConntrack::open();
  if (!conntrack) return propagate(conntrack, "leak collector");
  return std::make_unique<Thread>(options, registry, std::move(*rtnl), std::move(*nft), std::move(*conntrack));
}

}  // namespace hawser::cni
