// SPDX-License-Identifier: Apache-2.0
// hawser-proxyd: flags, the configuration, what is done once; serve.h does the rest.
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
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/netlink/ipvs.h"
#include "proxyd/config/options.h"
#include "proxyd/conntrack/kernel_limits.h"
#include "proxyd/conntrack/reconcile.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/ipvs/options.h"
#include "proxyd/kernel.h"
#include "proxyd/localhost/kernel_hooks.h"
#include "proxyd/serve.h"
#include "proxyd/takeover/kube_proxy.h"

namespace {

using namespace hawser;

constexpr std::int64_t kDebugVerbosity = 4;  // -v of Kubernetes' programs: from here on it is for developers

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

Result<> cleanup(const Flags& f) {
  auto kernel = proxy::KernelSockets::open();
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
    proxy::IpvsBackend all(proxy::ipvs_kernel(*kernel), {}, options);
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
    proxy::ServeOptions serving{.adopt = f.adopt,
                                .file = {.path = f.config, .check = [&f] { return check_config(f); }}};
    if (*ipvs) {
      serving.mode = proxy::Mode::kIpvs;
      serving.ipvs = (*ipvs)->options;
      options->sync_period = (*ipvs)->sync_period;
      options->min_sync_period = (*ipvs)->min_sync_period;
    } else if (auto section = proxy::read_ipvs_section(*config)) {
      serving.ipvs = section->options;
    }
    if (!f.write_config_to.empty()) return write_file(f.write_config_to, proxy::config_yaml(*config));
    log::init("proxyd", f.verbose || options->verbosity >= kDebugVerbosity ? log::Level::kDebug : log::Level::kInfo);
    for (const auto& note : config->notes) log::info("{}", note);
    options->configz =
        boost::json::serialize(boost::json::object{{"kubeproxy.config.k8s.io", proxy::config_json(*config)}});
    set_kernel(*options);
    if (f.init_only) return {};
    serving.proxy = std::move(*options);
    auto again = proxy::serve(std::move(serving), *signals);
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
