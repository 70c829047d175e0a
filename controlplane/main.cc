// SPDX-License-Identifier: Apache-2.0
// hawser-controlplane: API server, controllers and scheduler in one process.
#include <cstdlib>
#include <set>

#include <CLI/CLI.hpp>
#include <malloc.h>

#include "controlplane/apiserver/pki.h"
#include "controlplane/control_plane.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"

namespace {

using hawser::ControlPlaneOptions;

int fail_with(const hawser::Error& e) {
  fmt::print(stderr, "hawser-controlplane: {}\n", e.text);
  return EXIT_FAILURE;
}

int make_kubeconfig(const hawser::apiserver::KubeconfigRequest& r) {
  auto ok = hawser::apiserver::write_kubeconfig(r);
  return ok ? EXIT_SUCCESS : fail_with(ok.error());
}

int run(ControlPlaneOptions o) {
  auto signals = hawser::TerminationSignals::block();
  if (!signals) return fail_with(signals.error());
  o.sockets = hawser::take_listen_fds();
  auto control_plane = hawser::ControlPlane::start(std::move(o));
  if (!control_plane) return fail_with(control_plane.error());
  auto signal = signals->wait();
  if (!signal) return fail_with(signal.error());
  hawser::log::info("signal {}: stopping", *signal);
  return EXIT_SUCCESS;
}

void add_daemon_flags(CLI::App& app, ControlPlaneOptions& o, std::vector<std::string>& disabled) {
  app.add_option("--listen", o.listen, "address and port to serve on")->capture_default_str();
  app.add_option("--advertise-address", o.advertise_address, "address at which nodes and pods reach this server");
  app.add_option("--tls-san", o.tls_sans, "further name or address of the serving certificate");
  app.add_option("--service-cidr", o.service_cidr, "range of ClusterIPs")->capture_default_str();
  app.add_option("--cluster-cidr", o.cluster_cidr, "range of pod addresses")->capture_default_str();
  app.add_option("--node-cidr-mask", o.node_cidr_mask, "prefix length of each node's part of it")
      ->capture_default_str();
  app.add_option("--node-port-range", o.node_port_range, "ports of NodePort Services")->capture_default_str();
  app.add_option("--disable", disabled, "parts not to run: controllers, scheduler")
      ->delimiter(',')
      ->check(CLI::IsMember({"controllers", "scheduler"}));
}

}  // namespace

int main(int argc, char** argv) {
  // Two arenas: a dozen threads with one each would keep several times the memory in use.
  mallopt(M_ARENA_MAX, 2);
  CLI::App app("Hawser control plane: Kubernetes API server, controllers and scheduler", "hawser-controlplane");
  ControlPlaneOptions o;
  std::vector<std::string> disabled;
  bool verbose = false;
  app.set_version_flag("--version", std::string("hawser-controlplane ") + HAWSER_VERSION);
  app.add_flag("-v,--verbose", verbose, "log details");
  app.add_option("--data-dir", o.data_dir, "folder of the store and the keys");
  add_daemon_flags(app, o, disabled);
  hawser::apiserver::KubeconfigRequest request;
  auto* sub = app.add_subcommand("kubeconfig", "write a kubeconfig with a new client certificate");
  sub->add_option("--data-dir", o.data_dir, "folder of the keys");
  sub->add_option("--user", request.user, "user name, such as system:node:node-1")->required();
  sub->add_option("--group", request.groups, "group of the user");
  sub->add_option("--server", request.server, "URL of the API server")->required();
  sub->add_option("--out", request.out, "file to write")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  hawser::log::init("hawser-controlplane", verbose ? hawser::log::Level::kDebug : hawser::log::Level::kInfo);
  if (o.data_dir.empty()) return fail_with({EINVAL, "--data-dir is required", {}});
  request.data_dir = o.data_dir;
  if (sub->parsed()) return make_kubeconfig(request);
  o.controllers = std::ranges::find(disabled, "controllers") == disabled.end();
  o.scheduler = std::ranges::find(disabled, "scheduler") == disabled.end();
  return run(std::move(o));
}
