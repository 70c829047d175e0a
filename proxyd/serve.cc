// SPDX-License-Identifier: Apache-2.0
#include "proxyd/serve.h"

#include <algorithm>
#include <csignal>

#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/http_client.h"
#include "lib/nft/monitor.h"
#include "proxyd/daemon.h"
#include "proxyd/inspect/inspector.h"
#include "proxyd/kernel.h"
#include "proxyd/localhost/kernel_hooks.h"
#include "proxyd/localhost/localhost.h"
#include "proxyd/takeover/adoption.h"
#include "proxyd/takeover/kube_proxy.h"

namespace hawser::proxy {
namespace {

constexpr std::size_t kMaxName = 253;             // of an object
constexpr std::chrono::seconds kFileInterval{5};  // how often the configuration file is looked at
constexpr const char* kIpvsConnections = "/proc/net/ip_vs_conn";
constexpr std::chrono::seconds kNodeInterval{1};  // and the Node object, as long as it lacks something

Result<std::string> node_name(const ProxyOptions& o) {
  std::string name = o.node;
  if (name.empty()) {
    char buf[256] = {};
    if (gethostname(buf, sizeof buf - 1) != 0)
      return fail_errno(errno, "--hostname-override: not given, and the host name");
    name = buf;
  }
  // As kube-proxy and kubelet do it.
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

Result<kube::ClientConfig> client_config(const ProxyOptions& o) {
  if (o.kubeconfig.empty() && !o.master.empty()) return kube::ClientConfig{.server = o.master};
  auto config = kube::client_config(o.kubeconfig);
  if (config && !o.master.empty()) config->server = o.master;
  return config;
}

// Waits for the Node object if something of it is needed. False: a signal came first.
Result<bool> await_node(kube::Client& client, const std::string& node, TerminationSignals& signals, ProxyOptions& o) {
  std::string said;
  while (needs_node(o)) {
    auto list = client.list(kube::kNodes, {.field_selector = "metadata.name=" + node});
    std::string why = list ? "there is no Node \"" + node + "\"" : list.error().text;
    if (list && !list->items.empty()) {
      ProxyOptions with = o;
      auto added = add_node(*list->items.front(), with);
      if (added) {
        o = std::move(with);
        return true;
      }
      why = added.error().text;
    }
    if (std::exchange(said, why) != why) log::warn("waiting: {}; the kernel's rules stay as they are", why);
    auto signal = signals.wait_for(kNodeInterval);
    if (!signal) return propagate(signal);
    if (*signal && **signal != SIGHUP) return false;
  }
  return true;
}

// What is looked at between signals: the configuration file, and whatever `each` does.
class Waiting {
 public:
  Waiting(const ConfigFile& file, std::function<bool()> each) : file_(file), each_(std::move(each)) {
    if (!file.path.empty()) seen_ = read_file(file.path).value_or("");
  }
  // Until a signal (false), or until all is to be started over (true): the file says something else that can be used,
  // or `each` wants it.
  Result<bool> until_end(TerminationSignals& signals) {
    for (;;) {
      auto signal = signals.wait_for(kFileInterval);
      if (!signal) return propagate(signal);
      if (*signal && **signal != SIGHUP) {
        log::info("signal {}: ending; the rules stay", **signal);
        return false;
      }
      if (*signal && file_.path.empty()) log::info("SIGHUP: there is no --config file to read again");
      if (file_has_changed(signal->has_value()) || each_()) return true;
    }
  }

 private:
  bool file_has_changed(bool asked) {
    if (file_.path.empty()) return false;
    // A file that is just being replaced is looked at again later.
    auto now = read_file(file_.path);
    if (!now || (*now == seen_ && !asked)) return false;
    const bool same = *now == std::exchange(seen_, *now);
    auto usable = file_.check();
    if (!usable) {
      log::error("{} has changed and is not used: {}", file_.path, usable.error().text);
      return false;
    }
    log::info("{} {}: starting over with it; the rules stay meanwhile", file_.path,
              same ? "is read again upon SIGHUP" : "has changed");
    return true;
  }

  const ConfigFile& file_;
  const std::function<bool()> each_;
  std::string seen_;
};

// Why kube-proxy is believed to run here; "" if it is not.
std::string kube_proxy_runs(bool ports_are_taken) {
  const auto processes = kube_proxy_processes();
  if (!processes.empty()) return fmt::format("kube-proxy runs as process {}", processes.front());
  // Seen from a container its process is not there, but its ports are taken.
  if (ports_are_taken) return "something else has proxyd's ports, as a running kube-proxy would";
  return "";
}

// Answers to `hawser` are for a table that is as one mode alone has it.
auto inspect_settled(const SwitchBackend& backend,
                     std::function<std::optional<http::Response>(const http::Request&)> inspect) {
  return [&backend, inspect = std::move(inspect)](const http::Request& r) -> std::optional<http::Response> {
    const auto status = backend.status();
    if (!r.path().starts_with("/inspect/") || status.step.empty()) return inspect(r);
    const auto text = fmt::format("proxyd is switching to mode {} ({}, {} connections left); ask again afterwards",
                                  status.wanted, status.step, status.draining);
    http::Response busy{.status = 503, .headers = {}, .body = {}};
    busy.headers.set("Content-Type", "application/json");
    busy.body = boost::json::serialize(boost::json::object{{"error", text}}) + "\n";
    return busy;
  };
}

// Node ports on loopback: served, off, or not possible here, which its words say.
class Localhost {
 public:
  Localhost(const ProxyOptions& o, netlink::Rtnl& rtnl) {
    auto root = find_cgroup_root(o.cgroup_root);
    auto hooks = root ? KernelHooks::make(*root) : propagate(root);
    if (!o.localhost_node_ports) {
      // A process before this one may have had it on.
      if (hooks) (void)hooks->detach();
      return;
    }
    if (!hooks) {
      words_ = "not served: " + hooks.error().text;
      log::warn("node ports on loopback: {}", words_);
      return;
    }
    hooks_.emplace(std::move(*hooks));
    ports_.emplace(*hooks_, rtnl, o.traffic);
  }
  [[nodiscard]] LocalhostNodePorts* ports() { return ports_ ? &*ports_ : nullptr; }
  [[nodiscard]] std::string status() const { return ports_ ? ports_->status() : words_; }

 private:
  std::optional<KernelHooks> hooks_;
  std::optional<LocalhostNodePorts> ports_;
  std::string words_ = "off";
};

}  // namespace

Result<bool> serve(ServeOptions given, TerminationSignals& signals) {
  ProxyOptions& o = given.proxy;
  auto node = node_name(o);
  if (!node) return propagate(node);
  auto config = client_config(o);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-proxyd/" HAWSER_VERSION);
  if (!client) return propagate(client);
  auto kernel = KernelSockets::open();
  if (!kernel) return propagate(kernel);
  if (given.mode == Mode::kIpvs) {
    if (auto r = check_kernel(*kernel->ipvs); !r) return propagate(r);
  }
  auto conntrack = KernelConntrack::open();
  auto flows = KernelConntrack::open();
  if (!conntrack || !flows) return propagate(conntrack ? flows : conntrack);
  metrics::Registry registry;
  registry.add_process_metrics();
  auto ready = await_node(**client, *node, signals, o);
  if (!ready) return propagate(ready);
  if (!*ready) return false;
  kube::EventRecorder events(**client, "hawser-proxyd", *node);
  const kube::Object about{{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", *node}, {"uid", *node}}}};
  const auto tell = [&](const char* reason, const std::string& message, bool warning) {
    events.record(kube::kNodes, about, {.warning = warning, .reason = reason, .message = message});
  };
  // What a running kube-proxy has in IPVS is not taken from it.
  const bool adopt_ipvs = given.adopt && kube_proxy_runs(false).empty();
  given.ipvs.adopt = adopt_ipvs;
  SwitchBackend backend({ipvs_kernel(*kernel), *flows, [] { return read_file(kIpvsConnections); }},
                        {.mode = given.mode, .traffic = o.traffic, .ipvs = given.ipvs, .on_event = tell}, registry);
  const auto problem = [&](const kube::Resource& kind, const kube::Object& o, const std::string& text) {
    // Longer names than the API allows would only be refused again.
    if (kube::name(o).size() <= kMaxName && kube::ns(o).size() <= kMaxName)
      events.record(kind, o, {.warning = true, .reason = "ProxyCannotServe", .message = text});
  };
  Localhost localhost(o, *kernel->rtnl);
  Daemon daemon({.node = *node,
                 .min_interval = o.min_sync_period,
                 .audit_interval = o.sync_period,
                 .node_port_addresses = o.traffic.node_port_addresses,
                 .on_problem = problem},
                **client, {backend, *conntrack, *kernel->rtnl, localhost.ports()}, registry);
  auto inspect = inspect_kernel(given.mode == Mode::kIpvs ? std::optional(given.ipvs) : std::nullopt, daemon.tracker(),
                                daemon.health(), o.traffic);
  if (!inspect) return propagate(inspect);
  auto health = HealthServers::start({.healthz_bind = o.healthz_bind,
                                      .metrics_bind = o.metrics_bind,
                                      .hard_fail = o.bind_hard_fail,
                                      .node = *node,
                                      .mode = [&backend] { return backend.status(); },
                                      .configz = o.configz,
                                      .localhost_node_ports = [&localhost] { return localhost.status(); },
                                      .more = inspect_settled(backend, std::move(*inspect))},
                                     daemon.health(), registry);
  if (!health) return propagate(health);
  auto monitor = nft::NftMonitor::start(kTable, kernel->nft->port_id(), [&] { daemon.table_changed(); });
  if (!monitor) return propagate(monitor);
  tell("Starting", fmt::format("Service rules by {}", mode_name(given.mode)), false);
  auto own = KernelSockets::open();  // the sync thread has the others
  if (!own) return propagate(own);
  Adoption adoption({*own->nft, *own->rtnl, *own->ipvs}, tell);
  daemon.start();
  Waiting waiting(given.file, [&] {
    const bool all_open = (*health)->retry();
    if (!given.adopt) return false;
    const auto runs = kube_proxy_runs(!all_open);
    const auto status = backend.status();
    const bool serving = daemon.health().alive() && status.current == status.wanted;
    adoption.step(runs, serving, serving && given.mode == Mode::kIpvs);
    return runs.empty() && !adopt_ipvs;  // start over: its IPVS may be taken now
  });
  auto again = waiting.until_end(signals);
  monitor->reset();
  daemon.stop();
  return again;
}

}  // namespace hawser::proxy
