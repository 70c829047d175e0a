// SPDX-License-Identifier: Apache-2.0
// hawser-proxyd: flags, wiring, signals.
#include <algorithm>
#include <cstdio>
#include <set>
#include <thread>

#include <CLI/CLI.hpp>
#include <boost/json/serialize.hpp>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/base/sysctl.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/http_client.h"
#include "lib/netlink/ipvs.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"
#include "proxyd/config/options.h"
#include "proxyd/conntrack/kernel_limits.h"
#include "proxyd/daemon.h"
#include "proxyd/inspect/inspector.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/ipvs/options.h"
#include "proxyd/localhost/kernel_hooks.h"
#include "proxyd/localhost/localhost.h"
#include "proxyd/nft/nft_backend.h"
#include "proxyd/takeover/kube_proxy.h"

namespace {

using namespace hawser;

constexpr std::int64_t kDebugVerbosity = 4;       // -v of Kubernetes' programs: from here on it is for developers
constexpr std::size_t kMaxName = 253;             // of an object
constexpr std::chrono::seconds kFileInterval{5};  // how often the configuration file is looked at
constexpr std::chrono::seconds kNodeInterval{1};  // and the Node object, as long as it lacks something

struct Flags {
  std::string config, write_config_to;
  std::vector<proxy::GivenFlag> given;
  bool cleanup = false;
  bool cleanup_kube_proxy = false;
  bool init_only = false;
  bool verbose = false;
};

// Of flags that no field stands for.
std::string help_of(std::string_view flag) {
  if (flag == "master") return "the API server, over what the kubeconfig says";
  if (flag == "service-cidr") return "where cluster IPs come from; an address there without a Service is silent";
  if (flag == "icmp-echo") return "cluster IPs answer pings";
  if (flag == "cgroup-root") return "the node's cgroup v2 folder, for node ports on loopback; not given: found";
  return "only the port of that address; 0: none";
}

void add_flags(CLI::App& app, Flags& f, std::vector<std::pair<std::string, CLI::Option*>>& from_table) {
  app.set_version_flag("--version", "hawser-proxyd " HAWSER_VERSION);
  app.add_option("--config", f.config, "KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1)");
  app.add_option("--write-config-to", f.write_config_to, "write the configuration with all defaults there and exit");
  app.add_flag("--cleanup", f.cleanup, "remove all rules of this program and exit");
  app.add_flag("--cleanup-kube-proxy", f.cleanup_kube_proxy,
               "remove what kube-proxy has left (iptables chains, nftables tables, IPVS) and exit");
  app.add_flag("--init-only", f.init_only, "set the sysctls that need privilege and exit");
  app.add_flag("--verbose", f.verbose, "log more; -v is the same, -v=4 too");
  std::set<std::string_view> seen;
  for (const proxy::Setting& s : proxy::settings()) {
    if (!*s.flag || !seen.insert(s.flag).second) continue;
    std::string names = std::string("--") + s.flag;
    if (names == "--hostname-override") names += ",--node-name";
    auto* option = s.type == proxy::Type::kBool ? app.add_flag(names) : app.add_option(names);
    if (s.type != proxy::Type::kBool) option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    option->group(*s.unused ? "Accepted, without effect" : "As kube-proxy's, or in the configuration file");
    option->description(*s.unused ? s.unused : *s.field ? std::string("sets ") + s.field : help_of(s.flag));
    from_table.emplace_back(s.flag, option);
  }
}

Result<proxy::Config> read_config(const Flags& f) {
  std::optional<std::string> file;
  if (!f.config.empty()) {
    auto text = read_file(f.config);
    if (!text) return propagate(text, "--config");
    file = std::move(*text);
  }
  return proxy::resolve_config(file, f.given);
}

Result<std::string> node_name(const proxy::ProxyOptions& o) {
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

Result<kube::ClientConfig> client_config(const proxy::ProxyOptions& o) {
  if (o.kubeconfig.empty() && !o.master.empty()) return kube::ClientConfig{.server = o.master};
  auto config = kube::client_config(o.kubeconfig);
  if (config && !o.master.empty()) config->server = o.master;
  return config;
}

// What only a privileged process may set; a refusal is no reason to end.
void set_kernel(const proxy::ProxyOptions& o) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  // Asking loads the module, which the settings belong to.
  if (auto table = proxy::KernelConntrack::open()) (void)table->list(AF_INET, IPPROTO_SCTP);
  const auto set = proxy::set_limits(proxy::conntrack_sysctls(o.conntrack, std::max(cores, 1)), proxy::limit_kernel());
  for (const auto& text : set.wrote) log::info("{}", text);
  for (const auto& text : set.failed) log::warn("conntrack: {}", text);
  if (!o.oom_score) return;
  UniqueFd fd(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  const auto text = std::to_string(*o.oom_score);
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0)
    log::warn("oomScoreAdj {}: {}", text, fail_errno(errno, "not set").error().text);
}

// Waits for the Node object if something of it is needed. False: a signal came first.
Result<bool> await_node(kube::Client& client, const std::string& node, TerminationSignals& signals,
                        proxy::ProxyOptions& o) {
  std::string said;
  while (proxy::needs_node(o)) {
    auto list = client.list(kube::kNodes, {.field_selector = "metadata.name=" + node});
    std::string why = list ? "there is no Node \"" + node + "\"" : list.error().text;
    if (list && !list->items.empty()) {
      proxy::ProxyOptions with = o;
      auto added = proxy::add_node(*list->items.front(), with);
      if (added) {
        o = std::move(with);
        return true;
      }
      why = added.error().text;
    }
    if (std::exchange(said, why) != why) log::warn("waiting: {}; the kernel's rules stay as they are", why);
    auto signal = signals.wait_for(kNodeInterval);
    if (!signal) return propagate(signal);
    if (*signal) return false;
  }
  return true;
}

// Until a signal (false) or until the configuration file says something else that can be used (true).
Result<bool> wait_for_end(const Flags& f, TerminationSignals& signals, proxy::HealthServers& health) {
  const auto before = f.config.empty() ? Result<std::string>("") : read_file(f.config);
  std::string seen = before.value_or("");
  for (;;) {
    auto signal = signals.wait_for(kFileInterval);
    if (!signal) return propagate(signal);
    if (*signal) {
      log::info("signal {}: ending; the rules stay", **signal);
      return false;
    }
    health.retry();
    if (f.config.empty()) continue;
    // A file that is just being replaced is looked at again later.
    auto now = read_file(f.config);
    if (!now || *now == seen) continue;
    seen = *now;
    auto config = read_config(f);
    auto options = config ? proxy::make_options(*config) : propagate(config);
    if (options) {
      if (auto ipvs = proxy::ipvs_settings(*config); !ipvs) options = propagate(ipvs);
    }
    if (options) {
      log::info("{} has changed: starting over with it; the rules stay meanwhile", f.config);
      return true;
    }
    log::error("{} has changed and is not used: {}", f.config, options.error().text);
  }
}

proxy::IpvsKernel ipvs_kernel(nft::NftRunner& nft, netlink::Rtnl& rtnl, netlink::Ipvs& ipvs) {
  utsname name{};
  uname(&name);
  const auto set = [](const std::string& key, const std::string& value) { return sysctl::ensure(key, value); };
  return {ipvs, rtnl, nft, set, name.release};
}

// Node ports on loopback: served, off, or not possible here, which its words say.
class Localhost {
 public:
  Localhost(const proxy::ProxyOptions& o, netlink::Rtnl& rtnl) {
    auto root = proxy::find_cgroup_root(o.cgroup_root);
    auto hooks = root ? proxy::KernelHooks::make(*root) : propagate(root);
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
  [[nodiscard]] proxy::LocalhostNodePorts* ports() { return ports_ ? &*ports_ : nullptr; }
  [[nodiscard]] std::string status() const { return ports_ ? ports_->status() : words_; }

 private:
  std::optional<proxy::KernelHooks> hooks_;
  std::optional<proxy::LocalhostNodePorts> ports_;
  std::string words_ = "off";
};

// True to be called again with the configuration read anew.
Result<bool> serve(const Flags& f, proxy::ProxyOptions& o, const std::optional<proxy::IpvsSettings>& ipvs_settings,
                   TerminationSignals& signals) {
  auto node = node_name(o);
  if (!node) return propagate(node);
  auto config = client_config(o);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-proxyd/" HAWSER_VERSION);
  if (!client) return propagate(client);
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto ipvs = netlink::KernelIpvs::open();
  if (!ipvs) return propagate(ipvs);
  if (ipvs_settings) {
    if (auto r = proxy::check_kernel(*ipvs); !r) return propagate(r);
  }
  auto conntrack = proxy::KernelConntrack::open();
  if (!conntrack) return propagate(conntrack);
  metrics::Registry registry;
  registry.add_process_metrics();
  auto ready = await_node(**client, *node, signals, o);
  if (!ready) return propagate(ready);
  if (!*ready) return false;
  std::unique_ptr<proxy::Backend> backend;
  if (ipvs_settings)
    backend = std::make_unique<proxy::IpvsBackend>(ipvs_kernel(**nft, *rtnl, *ipvs), o.traffic, ipvs_settings->options);
  else
    backend = std::make_unique<proxy::NftBackend>(**nft, o.traffic);
  kube::EventRecorder events(**client, "hawser-proxyd", *node);
  const auto problem = [&](const kube::Resource& kind, const kube::Object& o, const std::string& text) {
    // Longer names than the API allows would only be refused again.
    if (kube::name(o).size() <= kMaxName && kube::ns(o).size() <= kMaxName)
      events.record(kind, o, {.warning = true, .reason = "ProxyCannotServe", .message = text});
  };
  Localhost localhost(o, *rtnl);
  proxy::Daemon daemon({.node = *node,
                        .min_interval = o.min_sync_period,
                        .audit_interval = o.sync_period,
                        .node_port_addresses = o.traffic.node_port_addresses,
                        .on_problem = problem},
                       **client, {*backend, *conntrack, *rtnl, localhost.ports()}, registry);
  auto inspect = proxy::inspect_kernel(ipvs_settings ? std::optional(ipvs_settings->options) : std::nullopt,
                                       daemon.tracker(), daemon.health(), o.traffic);
  if (!inspect) return propagate(inspect);
  auto health = proxy::HealthServers::start({.healthz_bind = o.healthz_bind,
                                             .metrics_bind = o.metrics_bind,
                                             .hard_fail = o.bind_hard_fail,
                                             .node = *node,
                                             .mode = std::string(backend->name()),
                                             .configz = o.configz,
                                             .localhost_node_ports = [&localhost] { return localhost.status(); },
                                             .more = std::move(*inspect)},
                                            daemon.health(), registry);
  if (!health) return propagate(health);
  auto monitor = nft::NftMonitor::start(proxy::kTable, (*nft)->port_id(), [&] { daemon.table_changed(); });
  if (!monitor) return propagate(monitor);
  const kube::Object about{{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", {{"name", *node}, {"uid", *node}}}};
  events.record(kube::kNodes, about,
                {.reason = "Starting", .message = fmt::format("Service rules by {}", backend->name())});
  daemon.start();
  auto again = wait_for_end(f, signals, **health);
  monitor->reset();
  daemon.stop();
  return again;
}

Result<> cleanup(const Flags& f) {
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto ipvs = netlink::KernelIpvs::open();
  if (!ipvs) return propagate(ipvs);
  if (f.cleanup) {
    auto config = read_config(f);
    if (!config) return propagate(config);
    auto settings = proxy::ipvs_settings(*config);
    if (!settings) return propagate(settings);
    if (auto root = proxy::find_cgroup_root(config->text("--cgroup-root")); root) {
      auto hooks = proxy::KernelHooks::make(*root);
      auto detached = hooks ? hooks->detach() : propagate(hooks);
      if (!detached) log::warn("node ports on loopback: {}", detached.error().text);
    }
    // Of both modes: this one's leaves nothing of the rules either.
    const auto options = *settings ? (*settings)->options : proxy::IpvsOptions{};
    if (auto r = proxy::IpvsBackend(ipvs_kernel(**nft, *rtnl, *ipvs), {}, options).cleanup(); !r) return r;
  }
  if (!f.cleanup_kube_proxy) return {};
  auto did = proxy::remove_kube_proxy({**nft, *rtnl, *ipvs});
  if (!did) return propagate(did, "--cleanup-kube-proxy");
  for (const auto& part : *did) log::info("removed of kube-proxy: {}", part);
  return {};
}

Result<> run(const Flags& f) {
  if (f.cleanup || f.cleanup_kube_proxy) return cleanup(f);
  auto signals = TerminationSignals::block();
  if (!signals) return propagate(signals);
  for (;;) {
    auto config = read_config(f);
    if (!config) return propagate(config);
    auto options = proxy::make_options(*config);
    if (!options) return propagate(options);
    auto ipvs = proxy::ipvs_settings(*config);
    if (!ipvs) return propagate(ipvs);
    if (*ipvs) {
      options->sync_period = (*ipvs)->sync_period;
      options->min_sync_period = (*ipvs)->min_sync_period;
    }
    if (!f.write_config_to.empty()) return write_file(f.write_config_to, proxy::config_yaml(*config));
    log::init("proxyd", f.verbose || options->verbosity >= kDebugVerbosity ? log::Level::kDebug : log::Level::kInfo);
    for (const auto& note : config->notes) log::info("{}", note);
    options->configz =
        boost::json::serialize(boost::json::object{{"kubeproxy.config.k8s.io", proxy::config_json(*config)}});
    set_kernel(*options);
    if (f.init_only) return {};
    auto again = serve(f, *options, *ipvs, *signals);
    if (!again) return propagate(again);
    if (!*again) return {};
  }
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // each further arena of a thread would cost memory that a node has better uses for
  CLI::App app("Hawser's service proxy: Services and EndpointSlices into the kernel.");
  Flags flags;
  std::vector<std::pair<std::string, CLI::Option*>> from_table;
  add_flags(app, flags, from_table);
  try {
    auto args = proxy::normalize_args({argv + 1, argv + argc});
    std::ranges::reverse(args);  // what CLI11 expects of a vector
    app.parse(std::move(args));
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  for (const auto& [name, option] : from_table)
    for (const auto& text : option->results()) flags.given.emplace_back(name, text);
  log::init("proxyd", flags.verbose ? log::Level::kDebug : log::Level::kInfo);
  if (auto r = run(flags); !r) {
    std::fprintf(stderr, "hawser-proxyd: %s\n", r.error().text.c_str());
    return 1;
  }
  return 0;
}
