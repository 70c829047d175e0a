// SPDX-License-Identifier: Apache-2.0
// hawser-overlayd: flags, wiring, signals.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <CLI/CLI.hpp>
#include <malloc.h>
#include <unistd.h>

#include "cni-plugin/collect/leak_collector.h"
#include "cni-plugin/overlayd/daemon.h"
#include "cni-plugin/overlayd/etcd_source.h"
#include "cni-plugin/overlayd/flannel_args.h"
#include "cni-plugin/overlayd/handover.h"
#include "cni-plugin/overlayd/health.h"
#include "cni-plugin/overlayd/kube_source.h"
#include "cni-plugin/overlayd/net_conf.h"
#include "cni-plugin/overlayd/static_source.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/kube/http_client.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/netlink/wireguard.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"

namespace {

using namespace hawser;

struct Flags {
  std::string kubeconfig, kube_api_url, subnets_file;
  std::string healthz_bind = "127.0.0.1:8285";
  std::string healthz_ip = "0.0.0.0";
  int healthz_port = 0;
  std::string net_config_path;
  std::string iface_can_reach, backend;
  std::string wireguard_mode, wireguard_psk_file, wireguard_key_file;
  std::vector<std::string> cluster_cidrs, non_masquerade, public_ips;
  std::optional<bool> ip_masq, blackhole;
  bool kube_subnet_mgr = false, keep_port_order = false;
  int probe_seconds = 10;
  int leak_grace_seconds = 60;
  bool adopt = false, hand_back = false, cleanup = false;
  bool verbose = false;
  overlay::EtcdOptions etcd;
  std::string etcd_prefix = "/coreos.com/network";
  int renew_margin_minutes = 60;
  overlay::KubeSourceOptions kube;
  overlay::Options options;
};

void add_kube_flags(CLI::App& app, Flags& f) {
  app.add_option("--kubeconfig", f.kubeconfig, "how to reach the API server; without it the pod's service account");
  app.add_option("--kube-api-url", f.kube_api_url, "the API server's URL, in place of the one that --kubeconfig says");
  app.add_flag("--kube-subnet-mgr", f.kube_subnet_mgr, "behave as flanneld does: its files and its defaults");
  app.add_option("--kube-annotation-prefix", f.kube.annotation_prefix, "prefix of the Node annotations")
      ->capture_default_str();
  app.add_flag("--set-node-network-unavailable", f.kube.set_network_available,
               "set the Node condition NetworkUnavailable=False when ready")
      ->default_val(true);
  app.add_option("--subnets-file", f.subnets_file, "leases come from this file, not from Node objects");
  app.add_option("--net-config-path", f.net_config_path,
                 "flannel's net-conf.json; its networks and back end are in place of the flags");
}

void add_etcd_flags(CLI::App& app, Flags& f) {
  app.add_option("--etcd-endpoints", f.etcd.endpoints, "leases come from etcd, under flannel's keys")->delimiter(',');
  app.add_option("--etcd-prefix", f.etcd_prefix, "where in etcd")->capture_default_str();
  app.add_option("--etcd-cafile", f.etcd.ca_file, "certificate authority of etcd's servers");
  app.add_option("--etcd-certfile", f.etcd.cert_file, "our certificate");
  app.add_option("--etcd-keyfile", f.etcd.key_file, "and its key");
  app.add_option("--etcd-username", f.etcd.user, "user, where etcd asks for one");
  app.add_option("--etcd-password", f.etcd.password, "and password");
  app.add_option("--subnet-lease-renew-margin", f.renew_margin_minutes,
                 "minutes before its end that a lease is renewed")
      ->check(CLI::Range(1, 1439))
      ->capture_default_str();
}

void add_underlay_flags(CLI::App& app, Flags& f) {
  auto& o = f.options;
  app.add_option("--iface", o.iface.names,
                 "interface that tunnels use, by name or address; repeatable, the first that exists; else the one with "
                 "the node's InternalIP, else the default route's");
  app.add_option("--iface-regex", o.iface.regexes, "the same by regular expression; repeatable");
  app.add_option("--iface-can-reach", f.iface_can_reach, "the interface of the route to this address");
  app.add_option("--public-ip", f.public_ips, "address that peers are told, one a family; else that of the interface");
  app.add_option("--backend", f.backend, "how packets reach other nodes: " + overlay::backend_names())
      ->default_str(o.settings.backend);
  app.add_flag("--direct-routing", o.settings.direct_routing, "vxlan: no tunnel to nodes on our own segment");
  app.add_option("--vni", o.settings.vni, "VXLAN network identifier")
      ->check(CLI::Range(1, 0xffffff))
      ->capture_default_str();
  app.add_option("--port", o.settings.port, "VXLAN UDP port")->check(CLI::Range(1, 65535))->capture_default_str();
}

void add_wireguard_flags(CLI::App& app, Flags& f) {
  auto& w = f.options.settings.wireguard;
  app.add_option(
         "--wireguard-mode", f.wireguard_mode,
         "separate: a device for each family; one device for both: auto, ipv4, ipv6, by what its tunnel is over")
      ->default_str("separate");
  app.add_option("--wireguard-port", w.port, "UDP port")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--wireguard-port-v6", w.port_v6, "UDP port of the second device")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  app.add_option("--wireguard-keepalive", w.keepalive_seconds,
                 "seconds between packets that keep translators open; 0: none")
      ->capture_default_str();
  app.add_option("--wireguard-psk-file", f.wireguard_psk_file, "file of a preshared key that all nodes have");
  app.add_option("--wireguard-key-file", f.wireguard_key_file,
                 "file of this node's secret key, made if there is none; default <run-dir>/wgkey")
      ->envname("WIREGUARD_KEY_FILE");
}

// A flag whose default depends on others. CLI11 would make an optional<bool> that is not given false.
void add_choice(CLI::App& app, const char* names, std::optional<bool>& into, const char* text) {
  app.add_flag_function(
      names, [&into](std::int64_t count) { into = count > 0; }, text);
}

void add_flags(CLI::App& app, Flags& f) {
  auto& o = f.options;
  app.set_version_flag("--version", "hawser-overlayd " HAWSER_VERSION);
  app.add_option("--node-name", o.node, "name of this node's Node object; else that of the pod POD_NAMESPACE/POD_NAME")
      ->envname("NODE_NAME");
  app.add_option("--cluster-cidr", f.cluster_cidrs, "range of all pods, one a family")->delimiter(',');
  add_kube_flags(app, f);
  add_etcd_flags(app, f);
  add_underlay_flags(app, f);
  add_wireguard_flags(app, f);
  app.add_option("--run-dir", o.paths.run_dir, "folder of node.json and the address store")->capture_default_str();
  app.add_option("--subnet-file", o.paths.subnet_file, "flannel's subnet.env; default <run-dir>/subnet.env");
  app.add_option("--cni-conf-dir", o.paths.cni_conf_dir, "folder for 10-hawser.conflist; without it none is written");
  add_choice(app, "--ip-masq,!--no-ip-masq", f.ip_masq,
             "masquerade pod traffic that leaves the cluster (default: yes)");
  app.add_flag("--ip-masq-fully-random-disable", f.keep_port_order, "masquerade with source ports in order");
  app.add_option("--non-masquerade-cidr", f.non_masquerade, "destination that sees pod addresses; repeatable")
      ->delimiter(',');
  add_choice(app, "--ip-blackhole-route,!--no-ip-blackhole-route", f.blackhole,
             "refuse packets to addresses of this node's range that no pod has (default: yes)");
  app.add_option("--probe-seconds", f.probe_seconds, "time between probes of the data path to each peer; 0: none")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  app.add_option("--leak-grace-seconds", f.leak_grace_seconds,
                 "how old an address without its link must be before it is taken back; looked for twice in that time")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--healthz-bind", f.healthz_bind, "address:port of /healthz, /readyz and /metrics; empty: none")
      ->capture_default_str();
  app.add_option("--healthz-ip", f.healthz_ip, "with --healthz-port, in place of --healthz-bind");
  app.add_option("--healthz-port", f.healthz_port, "0: --healthz-bind holds")->check(CLI::Range(0, 65535));
  app.add_flag("--adopt", f.adopt, "take over a node of flannel's with its pods: device, CNI network, reservations");
  app.add_flag("--hand-back", f.hand_back, "leave a node that was adopted as flannel expects it, and exit");
  app.add_flag("--cleanup", f.cleanup, "remove device, routes, masquerade table and files, restore sysctls, and exit");
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

// What flanneld does where its flags say nothing.
void flannel_defaults(Flags& f) {
  if (!f.ip_masq) f.ip_masq = false;
  if (!f.blackhole) f.blackhole = false;
  if (f.net_config_path.empty() && f.etcd.endpoints.empty()) f.net_config_path = "/etc/kube-flannel/net-conf.json";
  if (f.options.paths.subnet_file.empty()) f.options.paths.subnet_file = "/run/flannel/subnet.env";
  f.healthz_bind.clear();
}

Result<> read_net_conf(Flags& f) {
  if (f.net_config_path.empty()) return {};
  auto text = read_file(f.net_config_path);
  if (!text) return propagate(text, "--net-config-path");
  auto conf = overlay::NetConf::parse(*text);
  if (!conf) return propagate(conf, "--net-config-path {}", f.net_config_path);
  f.options.settings = conf->settings;
  f.options.cluster_cidrs = conf->networks();
  return {};
}

Result<> read_addresses(Flags& f) {
  auto cluster = parse_cidrs("--cluster-cidr", f.cluster_cidrs);
  if (!cluster) return propagate(cluster);
  auto keep = parse_cidrs("--non-masquerade-cidr", f.non_masquerade);
  if (!keep) return propagate(keep);
  for (const auto& t : f.public_ips) {
    auto a = IpAddr::parse(t);
    if (!a) return propagate(a, "--public-ip");
    f.options.public_ips.push_back(*a);
  }
  if (!f.iface_can_reach.empty()) {
    auto a = IpAddr::parse(f.iface_can_reach);
    if (!a) return propagate(a, "--iface-can-reach");
    f.options.iface.can_reach = *a;
  }
  f.options.cluster_cidrs = std::move(*cluster);
  f.options.non_masquerade = std::move(*keep);
  return {};
}

// After the back end is known, from wherever.
Result<> read_wireguard_flags(Flags& f) {
  auto& w = f.options.settings.wireguard;
  if (!f.wireguard_mode.empty()) {
    auto mode = overlay::parse_wireguard_mode(f.wireguard_mode);
    if (!mode)
      return fail(EINVAL, "--wireguard-mode \"{}\": is not one of separate, auto, ipv4, ipv6", f.wireguard_mode);
    w.mode = *mode;
  }
  if (!f.wireguard_psk_file.empty()) {
    auto text = read_file(f.wireguard_psk_file);
    if (!text) return propagate(text, "--wireguard-psk-file");
    auto key = netlink::WgKey::parse(*text);
    if (!key) return propagate(key, "--wireguard-psk-file {}", f.wireguard_psk_file);
    w.preshared_key = *key;
  }
  if (!w.one_device() && w.port == w.port_v6)
    return fail(EINVAL, "--wireguard-port-v6 {}: is --wireguard-port, and each of the two devices needs its own",
                w.port);
  const bool as_flannel = f.kube_subnet_mgr || !f.etcd.endpoints.empty();
  w.key_file = as_flannel ? overlay::kFlannelWireguardKey : f.options.paths.wireguard_key();
  if (!f.wireguard_key_file.empty()) w.key_file = f.wireguard_key_file;
  return {};
}

Result<> read_flags(Flags& f) {
  if (f.kube_subnet_mgr || !f.etcd.endpoints.empty()) flannel_defaults(f);
  if (auto r = read_addresses(f); !r) return r;
  if (!f.backend.empty()) f.options.settings.backend = f.backend;
  if (!overlay::find_backend(f.options.settings.backend))
    return fail(EINVAL, "--backend \"{}\": is not one of {}", f.backend, overlay::backend_names());
  if (f.healthz_port) f.healthz_bind = fmt::format("{}:{}", f.healthz_ip, f.healthz_port);
  f.options.ip_masq = f.ip_masq.value_or(true);
  f.options.masq_fully_random = !f.keep_port_order;
  if (f.hand_back + f.cleanup + f.adopt > 1) return fail(EINVAL, "--adopt, --hand-back, --cleanup: give one of them");
  if ((f.adopt || f.hand_back) && f.options.paths.cni_conf_dir.empty())
    return fail(EINVAL, "--adopt, --hand-back: need --cni-conf-dir, where flannel's CNI configuration is");
  if (f.cleanup || f.hand_back) return {};
  if (auto r = read_net_conf(f); !r) return r;
  f.options.settings.unreachable_rest = f.blackhole.value_or(true);
  if (auto r = read_wireguard_flags(f); !r) return r;
  if (f.options.cluster_cidrs.empty() && f.etcd.endpoints.empty()) return fail(EINVAL, "--cluster-cidr: is required");
  return {};
}

Result<> clean_up(const Flags& f, netlink::Rtnl& rtnl, nft::NftRunner& nft) {
  if (auto r = overlay::remove_files(f.options.paths); !r) return r;
  for (int family : {AF_INET, AF_INET6}) {
    if (auto r = overlay::remove(rtnl, family, f.options.settings.vni); !r) return r;
  }
  if (unlink(f.options.paths.wireguard_key().c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "remove {}", f.options.paths.wireguard_key());
  if (auto r = overlay::remove_masquerade(nft); !r) return propagate(r);
  return overlay::restore_sysctls(f.options.paths);
}

// A DaemonSet that does not tell the node's name tells the pod's.
Result<> find_node_name(Flags& f, kube::Client* client) {
  auto& node = f.options.node;
  const char* pod = std::getenv("POD_NAME");
  const char* ns = std::getenv("POD_NAMESPACE");
  if (node.empty() && client && pod && ns) {
    auto object = client->get(kube::kPods, ns, pod);
    if (!object) return propagate(object, "--node-name is not given, and pod {}/{}", ns, pod);
    node = kube::str(**object, {"spec", "nodeName"});
  }
  if (node.empty()) return fail(EINVAL, "--node-name: is required");
  f.kube.node = node;
  return {};
}

// Where leases come from. The client, if there is one, outlives the source.
struct Source {
  std::unique_ptr<kube::HttpClient> client;
  std::unique_ptr<overlay::SubnetSource> subnets;
  overlay::KubeSource* kube = nullptr;  // `subnets`, if it is one
};

Result<std::unique_ptr<kube::HttpClient>> make_client(const Flags& f) {
  auto config = kube::client_config(f.kubeconfig);
  if (!config) return propagate(config);
  if (!f.kube_api_url.empty()) config->server = f.kube_api_url;
  return kube::HttpClient::make(*config, "hawser-overlayd/" HAWSER_VERSION);
}

// Whoever leaves the node takes its word with it. What is done on the node matters more: a failure ends nothing.
void forget_condition(Flags& f) {
  if (f.kubeconfig.empty() && !std::getenv("KUBERNETES_SERVICE_HOST"))
    return log::info("without --kubeconfig the Node's condition {} stays, if it has one", overlay::kPathCondition);
  auto forget = [&]() -> Result<bool> {
    auto client = make_client(f);
    if (!client) return propagate(client);
    if (auto r = find_node_name(f, client->get()); !r) return propagate(r);
    return overlay::remove_path_condition(**client, f.options.node);
  };
  auto gone = forget();
  if (!gone) return log::warn("the Node's condition {} stays: {}", overlay::kPathCondition, gone.error().text);
  if (*gone) log::info("removed condition {} of node {}", overlay::kPathCondition, f.options.node);
}

// The node's name is only for the MAC here; network and back end are what etcd says.
Result<Source> make_etcd_source(Flags& f) {
  if (f.options.node.empty()) {
    std::array<char, 256> name{};
    if (gethostname(name.data(), name.size() - 1) != 0) return fail_errno(errno, "--node-name is not given; hostname");
    f.options.node = name.data();
  }
  auto client = overlay::EtcdClient::make(f.etcd);
  if (!client) return propagate(client);
  auto conf = overlay::read_etcd_config(**client, f.etcd_prefix);
  if (!conf) return propagate(conf);
  const bool unreachable_rest = f.options.settings.unreachable_rest;
  f.options.settings = conf->settings;
  f.options.settings.unreachable_rest = unreachable_rest;
  if (auto r = read_wireguard_flags(f); !r) return propagate(r);
  f.options.cluster_cidrs = conf->networks();
  overlay::EtcdSourceOptions o{.prefix = f.etcd_prefix,
                               .conf = *conf,
                               .previous = overlay::read_subnet_env(f.options.paths),
                               .renew_margin = std::chrono::minutes(f.renew_margin_minutes)};
  return Source{.subnets = std::make_unique<overlay::EtcdSource>(std::move(o), std::move(*client))};
}

Result<Source> make_source(Flags& f) {
  Source s;
  if (!f.etcd.endpoints.empty()) return make_etcd_source(f);
  if (!f.subnets_file.empty()) {
    if (auto r = find_node_name(f, nullptr); !r) return propagate(r);
    s.subnets = std::make_unique<overlay::StaticSource>(f.subnets_file, f.options.node, f.options.settings);
    return s;
  }
  auto client = make_client(f);
  if (!client) return propagate(client);
  s.client = std::move(*client);
  if (auto r = find_node_name(f, s.client.get()); !r) return propagate(r);
  auto kube = std::make_unique<overlay::KubeSource>(f.kube, *s.client);
  s.kube = kube.get();
  s.subnets = std::move(kube);
  return s;
}

// What flannel has set up here becomes ours. After the source is made, which may say network and VNI.
Result<> take_over(Flags& f, netlink::Rtnl& rtnl) {
  auto& o = f.options;
  auto adopted = overlay::adopt(rtnl, o.paths, o.settings.vni);
  if (!adopted) return propagate(adopted);
  o.adopt = true;
  if (!*adopted) {
    log::info("--adopt: no CNI configuration of flannel's in {}: no pods to take over", o.paths.cni_conf_dir);
    return {};
  }
  const auto& cni = (*adopted)->cni;
  log::info("--adopt: CNI network {} of {}, reservations in {}", cni.network, cni.file, cni.reservations);
  o.conflist = overlay::adopted_conflist_text(cni, o.paths.node_file());
  if (o.paths.subnet_file.empty()) o.paths.subnet_file = cni.subnet_file;
  return {};
}

Result<> hand_back(const Flags& f, netlink::Rtnl& rtnl, nft::NftRunner& nft) {
  auto done = overlay::hand_back(rtnl, nft, f.options.paths, f.options.ip_masq);
  if (!done) return propagate(done);
  for (const auto& d : *done) log::info("hand back: {}", d);
  return {};
}

overlay::ProberOptions probe_options(const Flags& f) {
  return {.interval = std::chrono::seconds(f.probe_seconds)};
}

Result<> serve(Flags& f, netlink::Rtnl& rtnl, nft::KernelNft& nft) {
  auto signals = TerminationSignals::block();
  if (!signals) return propagate(signals);
  auto source = make_source(f);
  if (!source) return propagate(source);
  if (f.adopt) {
    if (auto r = take_over(f, rtnl); !r) return r;
  }
  auto monitor = netlink::Monitor::open();
  if (!monitor) return propagate(monitor);
  auto wireguard = netlink::KernelWireguard::open();
  if (!wireguard) return propagate(wireguard);
  metrics::Registry registry;
  registry.add_process_metrics();
  const Nanos grace = std::chrono::seconds(f.leak_grace_seconds);
  auto collector =
      cni::LeakCollector::start({.run_dir = f.options.paths.run_dir, .grace = grace, .interval = grace / 2}, registry);
  if (!collector) return propagate(collector);
  overlay::Daemon daemon(f.options, *source->subnets, {rtnl, nft, *monitor, &*wireguard}, registry);
  overlay::Prober prober(
      probe_options(f), [&] { return daemon.probe_targets(); },
      [&](const std::vector<overlay::PathReport>& faults, std::size_t targets) {
        daemon.on_faults(faults);
        if (source->kube && targets) source->kube->set_condition(overlay::path_condition(faults));
      },
      registry);
  auto nft_monitor = nft::NftMonitor::start(overlay::kMasqueradeTable, nft.port_id(), [&] { daemon.wake(); });
  if (!nft_monitor) return propagate(nft_monitor);
  std::unique_ptr<http::Server> health;
  if (!f.healthz_bind.empty()) {
    auto server = overlay::serve_health(
        f.healthz_bind, [&] { return daemon.status(); },
        [&] {
          auto lines = daemon.device_lines();
          for (const auto& l : prober.lines()) lines.push_back("peer " + l);
          return lines;
        },
        registry);
    if (!server) return propagate(server);
    health = std::move(*server);
  }
  if (f.probe_seconds > 0) {
    // Without the right to send echoes the overlay itself works as well.
    if (auto r = prober.start(); !r) log::warn("peers are not probed: {}", r.error().text);
  }
  auto ended = daemon.run(signals->fd());
  prober.stop();
  nft_monitor->reset();
  return ended;
}

Result<> run(Flags& f) {
  if (auto r = read_flags(f); !r) return r;
  auto rtnl = netlink::KernelRtnl::open();
  if (!rtnl) return propagate(rtnl);
  auto nft = nft::KernelNft::open();
  if (!nft) return propagate(nft);
  if (!f.hand_back && !f.cleanup) return serve(f, *rtnl, **nft);
  auto done = f.hand_back ? hand_back(f, *rtnl, **nft) : clean_up(f, *rtnl, **nft);
  if (done) forget_condition(f);
  return done;
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // each further arena of a thread would cost memory that a node has better uses for
  CLI::App app("Hawser's overlay daemon: joins this node's pods with those of all other nodes.");
  Flags flags;
  add_flags(app, flags);
  auto translated = overlay::translate_flannel_args({argv + 1, argv + argc}, std::getenv);
  try {
    app.parse(std::vector<std::string>(translated.args.rbegin(), translated.args.rend()));  // CLI11 begins at the end
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  log::init("overlayd", flags.verbose ? log::Level::kDebug : log::Level::kInfo);
  for (const auto& note : translated.notes) log::warn("{}", note);
  if (auto r = run(flags); !r) {
    std::fprintf(stderr, "hawser-overlayd: %s\n", r.error().text.c_str());
    return 1;
  }
  return 0;
}
