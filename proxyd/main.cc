// SPDX-License-Identifier: Apache-2.0
// hawser-proxyd: flags, wiring, signals.
#include <algorithm>
#include <csignal>
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
#include "proxyd/switch/switch_backend.h"
#include "proxyd/takeover/adoption.h"
#include "proxyd/takeover/kube_proxy.h"

namespace {

using namespace hawser;

constexpr std::int64_t kDebugVerbosity = 4;       // -v of Kubernetes' programs: from here on it is for developers
constexpr std::size_t kMaxName = 253;             // of an object
constexpr std::chrono::seconds kFileInterval{5};  // how often the configuration file is looked at
constexpr const char* kIpvsConnections = "/proc/net/ip_vs_conn";
constexpr std::chrono::seconds kNodeInterval{1};  // and the Node object, as long as it lacks something

struct Flags {
  std::string config, write_config_to;
  std::vector<proxy::GivenFlag> given;
  bool cleanup = false;
  bool cleanup_kube_proxy = false;
  bool adopt = false;
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
  app.add_flag("--adopt", f.adopt,
               "take this node over from kube-proxy: serve, then remove its rules once it has been stopped");
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
    if (*signal && **signal != SIGHUP) return false;
  }
  return true;
}

// Whether what the file says now can be used here. The error says why not.
Result<> check_config(const Flags& f) {
  auto config = read_config(f);
  if (!config) return propagate(config);
  if (auto options = proxy::make_options(*config); !options) return propagate(options);
  auto ipvs = proxy::ipvs_settings(*config);
  if (!ipvs || !*ipvs) return ipvs ? Result<>{} : propagate(ipvs);
  auto kernel = netlink::KernelIpvs::open();
  return kernel ? proxy::check_kernel(*kernel) : propagate(kernel);
}

// What is looked at between signals: the configuration file, and whatever `each` does.
class Waiting {
 public:
  Waiting(const Flags& f, std::function<bool()> each) : flags_(f), each_(std::move(each)) {
    if (!f.config.empty()) seen_ = read_file(f.config).value_or("");
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
      if (*signal && flags_.config.empty()) log::info("SIGHUP: there is no --config file to read again");
      if (file_has_changed(signal->has_value()) || each_()) return true;
    }
  }

 private:
  bool file_has_changed(bool asked) {
    if (flags_.config.empty()) return false;
    // A file that is just being replaced is looked at again later.
    auto now = read_file(flags_.config);
    if (!now || (*now == seen_ && !asked)) return false;
    const bool same = *now == std::exchange(seen_, *now);
    auto usable = check_config(flags_);
    if (!usable) {
      log::error("{} has changed and is not used: {}", flags_.config, usable.error().text);
      return false;
    }
    log::info("{} {}: starting over with it; the rules stay meanwhile", flags_.config,
              same ? "is read again upon SIGHUP" : "has changed");
    return true;
  }

  const Flags& flags_;
  const std::function<bool()> each_;
  std::string seen_;
};

// Why kube-proxy is believed to run here; "" if it is not.
std::string kube_proxy_runs(bool ports_are_taken) {
  const auto processes = proxy::kube_proxy_processes();
  if (!processes.empty()) return fmt::format("kube-proxy runs as process {}", processes.front());
  // Seen from a container its process is not there, but its ports are taken.
  if (ports_are_taken) return "something else has proxyd's ports, as a running kube-proxy would";
  return "";
}

proxy::IpvsKernel ipvs_kernel(nft::NftRunner& nft, netlink::Rtnl& rtnl, netlink::Ipvs& ipvs) {
  utsname name{};
  uname(&name);
  const auto set = [](const std::string& key, const std::string& value) { return sysctl::ensure(key, value); };
  return {ipvs, rtnl, nft, set, name.release};
}

struct Mode {
  proxy::Mode mode = proxy::Mode::kNftables;
  proxy::IpvsOptions ipvs;
};

// The sockets into this node's kernel.
struct Sockets {
  std::unique_ptr<nft::KernelNft> nft;
  std::optional<netlink::KernelRtnl> rtnl;
  std::optional<netlink::KernelIpvs> ipvs;
  static Result<Sockets> open() {
    Sockets s;
    auto nft = nft::KernelNft::open();
    if (!nft) return propagate(nft);
    auto rtnl = netlink::KernelRtnl::open();
    if (!rtnl) return propagate(rtnl);
    auto ipvs = netlink::KernelIpvs::open();
    if (!ipvs) return propagate(ipvs);
    s.nft = std::move(*nft);
    s.rtnl.emplace(std::move(*rtnl));
    s.ipvs.emplace(std::move(*ipvs));
    return s;
  }
};

// Answers to `hawser` are for a table that is as one mode alone has it.
auto inspect_settled(const proxy::SwitchBackend& backend,
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
Result<bool> serve(const Flags& f, proxy::ProxyOptions& o, Mode mode, TerminationSignals& signals) {
  auto node = node_name(o);
  if (!node) return propagate(node);
  auto config = client_config(o);
  if (!config) return propagate(config);
  auto client = kube::HttpClient::make(*config, "hawser-proxyd/" HAWSER_VERSION);
  if (!client) return propagate(client);
  auto kernel = Sockets::open();
  if (!kernel) return propagate(kernel);
  if (mode.mode == proxy::Mode::kIpvs) {
    if (auto r = proxy::check_kernel(*kernel->ipvs); !r) return propagate(r);
  }
  auto conntrack = proxy::KernelConntrack::open();
  auto flows = proxy::KernelConntrack::open();
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
  const bool adopt_ipvs = f.adopt && kube_proxy_runs(false).empty();
  mode.ipvs.adopt = adopt_ipvs;
  proxy::SwitchBackend backend(
      {ipvs_kernel(*kernel->nft, *kernel->rtnl, *kernel->ipvs), *flows, [] { return read_file(kIpvsConnections); }},
      {.mode = mode.mode, .traffic = o.traffic, .ipvs = mode.ipvs, .on_event = tell}, registry);
  const auto problem = [&](const kube::Resource& kind, const kube::Object& o, const std::string& text) {
    // Longer names than the API allows would only be refused again.
    if (kube::name(o).size() <= kMaxName && kube::ns(o).size() <= kMaxName)
      events.record(kind, o, {.warning = true, .reason = "ProxyCannotServe", .message = text});
  };
  Localhost localhost(o, *kernel->rtnl);
  proxy::Daemon daemon({.node = *node,
                        .min_interval = o.min_sync_period,
                        .audit_interval = o.sync_period,
                        .node_port_addresses = o.traffic.node_port_addresses,
                        .on_problem = problem},
                       **client, {backend, *conntrack, *kernel->rtnl, localhost.ports()}, registry);
  auto inspect = proxy::inspect_kernel(mode.mode == proxy::Mode::kIpvs ? std::optional(mode.ipvs) : std::nullopt,
                                       daemon.tracker(), daemon.health(), o.traffic);
  if (!inspect) return propagate(inspect);
  auto health = proxy::HealthServers::start({.healthz_bind = o.healthz_bind,
                                             .metrics_bind = o.metrics_bind,
                                             .hard_fail = o.bind_hard_fail,
                                             .node = *node,
                                             .mode = [&backend] { return backend.status(); },
                                             .configz = o.configz,
                                             .localhost_node_ports = [&localhost] { return localhost.status(); },
                                             .more = inspect_settled(backend, std::move(*inspect))},
                                            daemon.health(), registry);
  if (!health) return propagate(health);
  auto monitor = nft::NftMonitor::start(proxy::kTable, kernel->nft->port_id(), [&] { daemon.table_changed(); });
  if (!monitor) return propagate(monitor);
  tell("Starting", fmt::format("Service rules by {}", proxy::mode_name(mode.mode)), false);
  auto own = Sockets::open();  // the sync thread has the others
  if (!own) return propagate(own);
  proxy::Adoption adoption({*own->nft, *own->rtnl, *own->ipvs}, tell);
  daemon.start();
  Waiting waiting(f, [&] {
    const bool all_open = (*health)->retry();
    if (!f.adopt) return false;
    const auto runs = kube_proxy_runs(!all_open);
    const auto status = backend.status();
    const bool serving = daemon.health().alive() && status.current == status.wanted;
    adoption.step(runs, serving, serving && mode.mode == proxy::Mode::kIpvs);
    return runs.empty() && !adopt_ipvs;  // start over: its IPVS may be taken now
  });
  auto again = waiting.until_end(signals);
  monitor->reset();
  daemon.stop();
  return again;
}

Result<> cleanup(const Flags& f) {
  auto kernel = Sockets::open();
  if (!kernel) return propagate(kernel);
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
    proxy::IpvsBackend all(ipvs_kernel(*kernel->nft, *kernel->rtnl, *kernel->ipvs), {}, options);
    if (auto r = all.cleanup(); !r) return r;
  }
  if (!f.cleanup_kube_proxy) return {};
  auto did = proxy::remove_kube_proxy({*kernel->nft, *kernel->rtnl, *kernel->ipvs});
  if (!did) return propagate(did, "--cleanup-kube-proxy");
  for (const auto& part : *did) log::info("removed of kube-proxy: {}", part);
  return {};
}

Result<> run(const Flags& f) {
  if (f.cleanup || f.cleanup_kube_proxy) return cleanup(f);
  auto signals = TerminationSignals::block(true);
  if (!signals) return propagate(signals);
  for (;;) {
    auto config = read_config(f);
    if (!config) return propagate(config);
    auto options = proxy::make_options(*config);
    if (!options) return propagate(options);
    auto ipvs = proxy::ipvs_settings(*config);
    if (!ipvs) return propagate(ipvs);
    Mode mode;
    if (*ipvs) {
      mode = {proxy::Mode::kIpvs, (*ipvs)->options};
      options->sync_period = (*ipvs)->sync_period;
      options->min_sync_period = (*ipvs)->min_sync_period;
    } else if (auto section = proxy::read_ipvs_section(*config)) {
      mode.ipvs = section->options;
    }
    if (!f.write_config_to.empty()) return write_file(f.write_config_to, proxy::config_yaml(*config));
    log::init("proxyd", f.verbose || options->verbosity >= kDebugVerbosity ? log::Level::kDebug : log::Level::kInfo);
    for (const auto& note : config->notes) log::info("{}", note);
    options->configz =
        boost::json::serialize(boost::json::object{{"kubeproxy.config.k8s.io", proxy::config_json(*config)}});
    set_kernel(*options);
    if (f.init_only) return {};
    auto again = serve(f, *options, std::move(mode), *signals);
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
