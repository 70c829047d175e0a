// SPDX-License-Identifier: Apache-2.0
// hawser-proxyd: flags, wiring, signals.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <malloc.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/http_client.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"
#include "proxyd/daemon.h"
#include "proxyd/nft/nft_backend.h"

namespace {

using namespace hawser;

struct Flags {
  std::string kubeconfig, node;
  std::vector<std::string> cluster_cidrs;
  proxy::HealthServerOptions health;
  bool cleanup = false;
  bool verbose = false;
};

void add_flags(CLI::App& app, Flags& f) {
  app.set_version_flag("--version", "hawser-proxyd " HAWSER_VERSION);
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the API server; without it the pod's service account");
  app.add_option("--node-name,--hostname-override", f.node, "name of this node's Node object; default: the host name");
  app.add_option("--cluster-cidr", f.cluster_cidrs,
                 "range of all pods, one a family; traffic to cluster IPs from outside it is masqueraded")
      ->delimiter(',');
  app.add_option("--healthz-bind-address", f.health.healthz_bind,
                 "address:port of /healthz, /livez and /readyz; empty: none")
      ->capture_default_str();
  app.add_option("--metrics-bind-address", f.health.metrics_bind,
                 "address:port of /metrics and /proxyMode; empty: none")
      ->capture_default_str();
  app.add_flag("--cleanup", f.cleanup, "remove all rules of this program and exit");
  app.add_flag("-v,--verbose", f.verbose, "log more");
}

Result<proxy::LayoutOptions> layout_options(const Flags& f) {
  proxy::LayoutOptions o;
  for (const auto& text : f.cluster_cidrs) {
    auto c = Cidr::parse(text);
    if (!c) return propagate(c, "--cluster-cidr");
    for (const auto& other : o.cluster_cidrs) {
      if (other.overlaps(c->network())) return fail(EINVAL, "--cluster-cidr: {} overlaps {}", *c, other);
    }
    o.cluster_cidrs.push_back(c->network());
  }
  return o;
}

Result<std::string> node_name(const Flags& f) {
  if (!f.node.empty()) return f.node;
  char buf[256] = {};
  if (gethostname(buf, sizeof buf - 1) != 0) return fail_errno(errno, "--node-name: not given, and the host name");
  return std::string(buf);
}

Result<> serve(const Flags& f, proxy::NftBackend& backend, nft::KernelNft& nft) {
  auto signals = TerminationSignals::block();
  if (!signals) return propagate(signals);
  auto node = node_name(f);
  if (!node) return propagate(node);
  auto config = kube::client_config(f.kubeconfig);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-proxyd/" HAWSER_VERSION);
  if (!client) return propagate(client);
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto conntrack = proxy::KernelConntrack::open();
  if (!conntrack) return propagate(conntrack);
  metrics::Registry registry;
  registry.add_process_metrics();
  proxy::Daemon daemon({.node = *node}, **client, {backend, *conntrack, *rtnl}, registry);
  auto health = proxy::HealthServers::start(f.health, daemon.health(), registry);
  if (!health) return propagate(health);
  auto monitor = nft::NftMonitor::start(proxy::kTable, nft.port_id(), [&] { daemon.table_changed(); });
  if (!monitor) return propagate(monitor);
  kube::EventRecorder events(**client, "hawser-proxyd", *node);
  const kube::Object about{{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", *node}, {"uid", *node}}}};
  events.record(kube::kNodes, about, {.reason = "Starting", .message = "Service rules by nftables"});
  daemon.start();
  auto signal = signals->wait();
  if (!signal) return propagate(signal);
  log::info("signal {}: ending; the rules stay", *signal);
  monitor->reset();
  daemon.stop();
  return {};
}

Result<> run(const Flags& f) {
  auto layout = layout_options(f);
  if (!layout) return propagate(layout);
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  proxy::NftBackend backend(**nft, std::move(*layout));
  return f.cleanup ? backend.cleanup() : serve(f, backend, **nft);
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // each further arena of a thread would cost memory that a node has better uses for
  CLI::App app("Hawser's service proxy: Services and EndpointSlices into the kernel.");
  Flags flags;
  add_flags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  log::init("proxyd", flags.verbose ? log::Level::kDebug : log::Level::kInfo);
  if (auto r = run(flags); !r) {
    std::fprintf(stderr, "hawser-proxyd: %s\n", r.error().text.c_str());
    return 1;
  }
  return 0;
}
