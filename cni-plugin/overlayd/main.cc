// SPDX-License-Identifier: Apache-2.0
// hawser-overlayd: flags, wiring, signals.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <malloc.h>

#include "cni-plugin/overlayd/daemon.h"
#include "cni-plugin/overlayd/health.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/kube/http_client.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"

namespace {

using namespace hawser;

struct Flags {
  std::string kubeconfig;
  std::string healthz_bind = "127.0.0.1:8285";
  std::vector<std::string> cluster_cidrs, non_masquerade, public_ips;
  bool cleanup = false;
  bool verbose = false;
  overlay::Options options;
};

void add_flags(CLI::App& app, Flags& f) {
  auto& o = f.options;
  app.set_version_flag("--version", "hawser-overlayd " HAWSER_VERSION);
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the API server; without it the pod's service account");
  app.add_option("--node-name", o.node, "name of this node's Node object");
  app.add_option("--iface", o.iface,
                 "interface that tunnels use; else the one with the node's InternalIP, else the default route's");
  app.add_option("--public-ip", f.public_ips, "address that peers are told, one a family; else that of the interface");
  app.add_option("--cluster-cidr", f.cluster_cidrs, "range of all pods, one a family")->delimiter(',');
  app.add_option("--vni", o.settings.vni, "VXLAN network identifier")
      ->check(CLI::Range(1, 0xffffff))
      ->capture_default_str();
  app.add_option("--port", o.settings.port, "VXLAN UDP port")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--run-dir", o.paths.run_dir, "folder of node.json and the address store")->capture_default_str();
  app.add_option("--subnet-file", o.paths.subnet_file, "flannel's subnet.env; default <run-dir>/subnet.env");
  app.add_option("--cni-conf-dir", o.paths.cni_conf_dir, "folder for 10-hawser.conflist; without it none is written");
  app.add_flag("--ip-masq,!--no-ip-masq", o.ip_masq, "masquerade pod traffic that leaves the cluster")
      ->default_val(true);
  app.add_option("--non-masquerade-cidr", f.non_masquerade, "destination that sees pod addresses; repeatable")
      ->delimiter(',');
  app.add_flag("--ip-blackhole-route,!--no-ip-blackhole-route", o.settings.unreachable_rest,
               "refuse packets to addresses of this node's range that no pod has")
      ->default_val(true);
  app.add_option("--kube-annotation-prefix", o.annotation_prefix, "prefix of the Node annotations")
      ->capture_default_str();
  app.add_flag("--set-node-network-unavailable", o.set_network_available,
               "set the Node condition NetworkUnavailable=False when ready")
      ->default_val(true);
  app.add_option("--healthz-bind", f.healthz_bind, "address:port of /healthz, /readyz and /metrics; empty: none")
      ->capture_default_str();
  app.add_flag("--cleanup", f.cleanup, "remove device, routes, masquerade table and files, and exit");
  app.add_flag("-v,--verbose", f.verbose, "log notifications too");
}

Result<std::vector<Cidr>> parse_cidrs(const char* flag, const std::vector<std::string>& texts) {
  std::vector<Cidr> out;
  for (const auto& t : texts) {
    auto c = Cidr::parse(t);
    if (!c) return propagate(c, "{}", flag);
    out.push_back(c->network());
  }
  return out;
}

Result<> read_flags(Flags& f) {
  auto cluster = parse_cidrs("--cluster-cidr", f.cluster_cidrs);
  if (!cluster) return propagate(cluster);
  auto keep = parse_cidrs("--non-masquerade-cidr", f.non_masquerade);
  if (!keep) return propagate(keep);
  for (const auto& t : f.public_ips) {
    auto a = IpAddr::parse(t);
    if (!a) return propagate(a, "--public-ip");
    f.options.public_ips.push_back(*a);
  }
  f.options.cluster_cidrs = std::move(*cluster);
  f.options.non_masquerade = std::move(*keep);
  if (f.cleanup) return {};
  if (f.options.node.empty()) return fail(EINVAL, "--node-name: is required");
  if (f.options.cluster_cidrs.empty()) return fail(EINVAL, "--cluster-cidr: is required");
  return {};
}

Result<> clean_up(const Flags& f, netlink::Rtnl& rtnl, nft::NftRunner& nft) {
  if (auto r = overlay::remove_files(f.options.paths); !r) return r;
  for (int family : {AF_INET, AF_INET6}) {
    if (auto r = overlay::remove(rtnl, family, f.options.settings.vni); !r) return r;
  }
  if (auto r = overlay::remove_masquerade(nft); !r) return propagate(r);
  return {};
}

Result<> serve(Flags& f, netlink::Rtnl& rtnl, nft::KernelNft& nft) {
  auto signals = TerminationSignals::block();
  if (!signals) return propagate(signals);
  auto config = kube::client_config(f.kubeconfig);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-overlayd/" HAWSER_VERSION);
  if (!client) return propagate(client);
  auto monitor = netlink::Monitor::open();
  if (!monitor) return propagate(monitor);
  metrics::Registry registry;
  registry.add_process_metrics();
  overlay::Daemon daemon(f.options, **client, {rtnl, nft, *monitor}, registry);
  auto nft_monitor = nft::NftMonitor::start(overlay::kMasqueradeTable, nft.port_id(), [&] { daemon.wake(); });
  if (!nft_monitor) return propagate(nft_monitor);
  std::unique_ptr<http::Server> health;
  if (!f.healthz_bind.empty()) {
    auto server = overlay::serve_health(
        f.healthz_bind, [&] { return daemon.status(); }, registry);
    if (!server) return propagate(server);
    health = std::move(*server);
  }
  auto ended = daemon.run(signals->fd());
  nft_monitor->reset();
  return ended;
}

Result<> run(Flags& f) {
  if (auto r = read_flags(f); !r) return r;
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  return f.cleanup ? clean_up(f, *rtnl, **nft) : serve(f, *rtnl, **nft);
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // each further arena of a thread would cost memory that a node has better uses for
  CLI::App app("Hawser's overlay daemon: joins this node's pods with those of all other nodes.");
  Flags flags;
  add_flags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  log::init("overlayd", flags.verbose ? log::Level::kDebug : log::Level::kInfo);
  if (auto r = run(flags); !r) {
    std::fprintf(stderr, "hawser-overlayd: %s\n", r.error().text.c_str());
    return 1;
  }
  return 0;
}
