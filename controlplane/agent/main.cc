// SPDX-License-Identifier: Apache-2.0
// hawser-agent: flags, wiring and signals; the work is in Agent.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <malloc.h>

#include "controlplane/agent/agent.h"
#include "controlplane/agent/cri_client.h"
#include "controlplane/agent/node_api.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/metrics.h"
#include "lib/base/signals.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/http_client.h"
#include "lib/kube/kubeconfig.h"

namespace {

using namespace hawser;
using namespace hawser::agent;

struct Flags {
  NodeSettings node;
  std::string kubeconfig, cri = "unix:///run/containerd/containerd.sock", listen = "0.0.0.0:10250";
  LogLimits logs;
  bool verbose = false;
};

void add_flags(CLI::App& app, Flags& f) {
  app.set_version_flag("--version", std::string("hawser-agent ") + HAWSER_VERSION);
  app.add_flag("-v,--verbose", f.verbose, "log more");
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the API server")->required();
  app.add_option("--node-name", f.node.node_name, "name of this node's Node object")->required();
  app.add_option("--node-ip", f.node.node_ip, "address of this node")->required();
  app.add_option("--cri", f.cri, "the container runtime's socket")->capture_default_str();
  app.add_option("--root", f.node.root_dir, "folder for volumes and other state of pods")->capture_default_str();
  app.add_option("--listen", f.listen, "address and port of the node's HTTPS API")->capture_default_str();
  app.add_option("--cgroup-parent", f.node.cgroup_parent, "cgroup under which pods get theirs (default kubepods)");
  app.add_option("--pod-log-dir", f.node.pod_log_dir, "folder of the containers' logs")->capture_default_str();
  app.add_option("--max-pods", f.node.max_pods, "how many pods this node takes")->capture_default_str();
  app.add_option("--cluster-dns", f.node.cluster_dns,
                 "addresses of the cluster's DNS; without any, pods use the node's resolver");
  app.add_option("--cluster-domain", f.node.cluster_domain, "domain of the cluster's names")->capture_default_str();
  app.add_option("--resolv-conf", f.node.resolv_conf, "the node's resolver configuration")->capture_default_str();
  app.add_option("--container-log-max-bytes", f.logs.max_bytes, "size at which a container's log is rotated")
      ->capture_default_str();
  app.add_option("--container-log-max-files", f.logs.max_files, "log files kept of a container")->capture_default_str();
}

Result<std::pair<std::string, std::uint16_t>> split_listen(const std::string& text) {
  const auto colon = text.rfind(':');
  int port = 0;
  if (colon == std::string::npos || std::sscanf(text.c_str() + colon + 1, "%d", &port) != 1 || port < 0 || port > 65535)
    return fail(EINVAL, "--listen {}: must be ADDRESS:PORT", text);
  return std::pair{text.substr(0, colon), static_cast<std::uint16_t>(port)};
}

// Its own authority: the API server knows a node's API by address, not by the cluster's CA (as with a kubelet's own
// certificate).
Result<std::shared_ptr<http::TlsContext>> serving_tls(const NodeSettings& node, const std::string& client_ca) {
  auto ca = http::make_ca(node.node_name + "-ca");
  if (!ca) return propagate(ca);
  auto own = http::issue(*ca, {.common_name = node.node_name,
                               .organizations = {},
                               .dns_names = {node.node_name},
                               .ip_addresses = {node.node_ip, "127.0.0.1"},
                               .server = true,
                               .valid = std::chrono::hours(24 * 365)});
  if (!own) return propagate(own);
  return http::TlsContext::server(*own, client_ca);
}

void add_metrics(metrics::Registry& registry, Agent& agent) {
  registry.add_process_metrics();
  auto& pods = registry.gauge("kubelet_running_pods", "Pods with a running sandbox.").with();
  auto& containers = registry.gauge("kubelet_running_containers", "Containers by state.", {"container_state"});
  auto& ready = registry.gauge("hawser_agent_node_ready", "1 if the runtime and its network are ready.").with();
  registry.on_collect([&agent, &pods, &containers, &ready] {
    double sandboxes = 0, running = 0, exited = 0;
    for (const auto& v : agent.pods().views()) {
      if (!v->sandboxes.empty() && v->sandboxes.front().ready) ++sandboxes;
      for (const auto& c : v->containers) ++(c.state == ContainerState::kRunning ? running : exited);
    }
    pods.set(sandboxes);
    containers.with({"running"}).set(running);
    containers.with({"exited"}).set(exited);
    ready.set(agent.ready() ? 1 : 0);
  });
}

Result<> run(Flags& flags, TerminationSignals& signals) {
  auto where = split_listen(flags.listen);
  if (!where) return propagate(where);
  auto config = kube::client_config(flags.kubeconfig);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, std::string("hawser-agent/") + HAWSER_VERSION);
  if (!client) return propagate(client);
  if (auto r = make_folders(flags.node.root_dir, 0750); !r) return propagate(r, "--root");
  if (auto r = make_folders(flags.node.pod_log_dir); !r) return propagate(r, "--pod-log-dir");
  const auto machine = read_machine(flags.node.root_dir);
  flags.node.capacity_milli_cpu = machine.milli_cpu;
  flags.node.capacity_memory_bytes = machine.memory_bytes;
  flags.node.port = where->second;

  CriClient cri(flags.cri);
  kube::EventRecorder recorder(**client, "kubelet", flags.node.node_name);
  const auto event = [&recorder](const PodSpec& pod, const PodEvent& e) {
    const auto* c = e.container.empty() ? nullptr : pod.container(e.container);
    const std::string path =
        c ? fmt::format("spec.{}{{{}}}", c->init ? "initContainers" : "containers", e.container) : "";
    recorder.record(kube::kPods, *pod.object,
                    {.warning = e.warning, .reason = e.reason, .message = e.message, .field_path = path});
  };
  const ExitStream exits = [&cri](const auto& on_exit, std::stop_token stop) { return cri.watch_exits(on_exit, stop); };
  Agent agent(
      {.client = **client, .runtime = cri, .images = cri, .exits = exits, .event = event, .clock = system_clock()},
      flags.node, flags.logs);

  metrics::Registry registry;
  add_metrics(registry, agent);
  NodeApi api({.node = agent.node(),
               .metrics = registry,
               .slow = agent.slow(),
               .clock = system_clock(),
               .view = [&agent](const std::string& ns, const std::string& name) { return agent.pods().view(ns, name); },
               .views = [&agent] { return agent.pods().views(); }});
  auto tls = serving_tls(flags.node, config->ca_pem);
  if (!tls) return propagate(tls, "serving certificate");
  http::Server server({.worker_threads = 4}, *tls,
                      [&api](const http::Request& r, http::Responder& out) { api.handle(r, out); });
  if (auto port = server.listen(where->first, where->second); !port)
    return propagate(port, "--listen {}", flags.listen);
  agent.start();
  log::info("node {}: started", flags.node.node_name);
  auto signal = signals.wait();
  log::info("node {}: stopping; pods go on running", flags.node.node_name);
  server.stop();
  agent.stop();
  return signal ? Result<>{} : propagate(signal);
}

}  // namespace

int main(int argc, char** argv) {
  ::mallopt(M_ARENA_MAX, 2);
  Flags flags;
  CLI::App app("hawser-agent: runs the pods of one node through its container runtime");
  add_flags(app, flags);
  CLI11_PARSE(app, argc, argv);
  log::init("hawser-agent", flags.verbose ? log::Level::kDebug : log::Level::kInfo);
  auto signals = TerminationSignals::block();
  auto r = signals ? run(flags, *signals) : Result<>(std::unexpected(signals.error()));
  if (!r) {
    log::error("{}", r.error().text);
    return 1;
  }
  return 0;
}
