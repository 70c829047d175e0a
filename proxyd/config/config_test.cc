// SPDX-License-Identifier: Apache-2.0
#include "proxyd/config/config.h"

#include <set>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/atomic_file.h"
#include "lib/testing/golden.h"
#include "proxyd/config/options.h"

namespace hawser::proxy {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

const std::string kHead = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

// What kubeadm 1.20 writes into its ConfigMap, value by value.
const std::string kKubeadm = R"(apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
metricsBindAddress: ""
mode: ""
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
udpIdleTimeout: 0s
winkernel:
  enableDSR: false
  networkName: ""
  sourceVip: ""
)";

std::string error_of(const std::string& yaml) {
  auto c = parse_config(yaml);
  return c ? "no error" : c.error().text;
}
ProxyOptions options_of(const std::optional<std::string>& file, const std::vector<GivenFlag>& flags) {
  auto c = resolve_config(file, flags);
  EXPECT_TRUE(c) << c.error().text;
  if (!c) return {};
  auto o = make_options(*c);
  EXPECT_TRUE(o) << o.error().text;
  return o.value_or(ProxyOptions{});
}

TEST(ParseDuration, IsGos) {
  for (auto [text, want] : {std::pair<const char*, Nanos>{"0", 0s},
                            {"0s", 0s},
                            {"30s", 30s},
                            {"1h30m", 90min},
                            {"1.5s", 1500ms},
                            {"250ms", 250ms},
                            {"-1m", -60s},
                            {"+2us", 2us},
                            {"7ns", 7ns}})
    EXPECT_EQ(parse_duration(text), want) << text;
  for (const char* text : {"", "5", "s", "1x", "1s2", "- 1s", "9999999999h", "1..5s", "1e3s"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(ParseConfig, TakesWhatKubeadmWritesWithoutAWord) {
  auto c = resolve_config(kKubeadm, {{"hostname-override", "node-7"}});
  ASSERT_TRUE(c) << c.error().text;
  auto o = make_options(*c);
  ASSERT_TRUE(o) << o.error().text;
  EXPECT_THAT(c->notes, IsEmpty());
  EXPECT_EQ(o->node, "node-7");
  EXPECT_EQ(o->kubeconfig, "/var/lib/kube-proxy/kubeconfig.conf");
  EXPECT_EQ(o->healthz_bind, "0.0.0.0:10256");
  EXPECT_EQ(o->metrics_bind, "127.0.0.1:10249");
  EXPECT_EQ(o->traffic.cluster_cidrs.size(), 2u);
  EXPECT_EQ(o->traffic.masquerade_mark, 0x4000u);
  EXPECT_EQ(o->sync_period, 30s);
  EXPECT_EQ(o->conntrack, ConntrackSettings{});
}

// The manifest in deploy/ must hold a configuration that this program takes.
TEST(ParseConfig, TakesTheManifests) {
  auto manifest = read_file(testing::source_path("deploy/kubernetes/hawser-proxyd.yaml"));
  ASSERT_TRUE(manifest) << manifest.error().text;
  const std::string begin = "config.conf: |\n";
  auto text = manifest->substr(manifest->find(begin) + begin.size());
  text = text.substr(0, text.find("---"));
  auto c = resolve_config(
      text,
      {{"master", "https://192.0.2.10:6443"}, {"icmp-echo", "true"}, {"service-cidr", "10.96.0.0/16,fd00:96::/112"}});
  ASSERT_TRUE(c) << c.error().text;
  auto o = make_options(*c);
  ASSERT_TRUE(o) << o.error().text;
  EXPECT_THAT(c->notes, IsEmpty());
  EXPECT_EQ(o->traffic.cluster_cidrs.size(), 1u);
  EXPECT_EQ(o->traffic.service_cidrs.size(), 2u);
  EXPECT_TRUE(o->traffic.icmp_echo);
}

TEST(ParseConfig, NamesLineAndField) {
  EXPECT_EQ(error_of(kHead + "clusterCIDRs: 10.0.0.0/8\n"), "line 3: clusterCIDRs: unknown field");
  EXPECT_EQ(error_of(kHead + "iptables:\n  masqueradeall: true\n"), "line 4: iptables.masqueradeall: unknown field");
  EXPECT_EQ(error_of(kHead + "mode: a\nmode: b\n"), "line 4: mode: given twice");
  EXPECT_EQ(error_of(kHead + "oomScoreAdj: many\n"), "line 3: oomScoreAdj: \"many\": want a whole number");
  EXPECT_THAT(error_of(kHead + "nftables: {syncPeriod: 5}\n"),
              HasSubstr("line 3: nftables.syncPeriod: \"5\": want a duration"));
  EXPECT_EQ(error_of(kHead + "nftables: 7\n"), "line 3: nftables: want a mapping of fields");
  EXPECT_EQ(error_of(kHead + "nodePortAddresses: 10.0.0.0/8\n"), "line 3: nodePortAddresses: want a list of texts");
  EXPECT_EQ(error_of(kHead + "featureGates: {A: maybe}\n"),
            "line 3: featureGates: \"A=maybe\": want Name=true or Name=false");
  EXPECT_EQ(error_of("kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1\n"),
            "apiVersion: \"kubeproxy.config.k8s.io/v1\", want kubeproxy.config.k8s.io/v1alpha1");
  EXPECT_THAT(error_of("- a\n"), HasSubstr("want a mapping"));
  EXPECT_THAT(error_of(""), HasSubstr("want a mapping"));
  EXPECT_THAT(error_of("a: [b\n"), HasSubstr("not YAML"));
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("not YAML"));
  EXPECT_THAT(error_of(std::string(2u << 20, ' ')), HasSubstr("1 MiB"));
}

TEST(ParseConfig, ReadsJsonToo) {
  auto c = parse_config(
      R"({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "nodePortAddresses": ["primary"]})");
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_THAT(c->list("nodePortAddresses"), ElementsAre("primary"));
}

TEST(ResolveConfig, ASettingWithoutMeaningGetsItsWord) {
  auto c = resolve_config(kHead +
                              "ipvs: {scheduler: rr, strictARP: true}\niptables: {masqueradeBit: 3, syncPeriod: 31s}\n"
                              "logging: {vmodule: [{filePattern: a, verbosity: 3}]}\nfeatureGates: {A: true}\n",
                          {});
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_THAT(c->notes,
              ElementsAre(HasSubstr("featureGates has no effect: "), HasSubstr("logging.vmodule has no effect: "),
                          HasSubstr("iptables.syncPeriod has no effect: there are"),
                          HasSubstr("ipvs.scheduler has no effect: "), HasSubstr("ipvs.strictARP has no effect: ")));
}

TEST(ResolveConfig, AFileWinsOverFlagsButForThree) {
  auto c = resolve_config(
      kHead + "clusterCIDR: 10.1.0.0/16\nhostnameOverride: a\n",
      {{"cluster-cidr", "10.2.0.0/16"}, {"hostname-override", "b"}, {"v", "4"}, {"master", "https://m:6443"}});
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->text("clusterCIDR"), "10.1.0.0/16");
  EXPECT_EQ(c->text("hostnameOverride"), "b");
  EXPECT_EQ(c->number("logging.verbosity"), 4);
  EXPECT_EQ(c->text("--master"), "https://m:6443");
  EXPECT_THAT(c->notes, ElementsAre("--cluster-cidr has no effect beside --config, as with kube-proxy"));
  EXPECT_FALSE(resolve_config(kHead, {{"masquerade-all", "perhaps"}}));
}

TEST(ResolveConfig, EveryFlagOfTheTableIsTaken) {
  std::set<std::string_view> fields;
  for (const Setting& s : settings()) {
    if (*s.field) {
      EXPECT_TRUE(fields.insert(s.field).second) << s.field;
    }
    if (!*s.flag) continue;
    const char* text = s.type == Type::kBool       ? "true"
                       : s.type == Type::kDuration ? "7s"
                       : s.type == Type::kSwitches ? "A=true,B=false"
                                                   : "7";
    auto c = resolve_config(std::nullopt, {{s.flag, text}});
    ASSERT_TRUE(c) << s.flag << ": " << c.error().text;
    EXPECT_EQ(c->notes.empty(), !*s.unused || (std::string_view(s.initial ? s.initial : "") == text)) << s.flag;
  }
  EXPECT_FALSE(resolve_config(std::nullopt, {{"no-such", "1"}}));
}

TEST(ResolveConfig, AddressesAreCompletedAsKubeProxyDoes) {
  EXPECT_EQ(options_of({}, {{"healthz-bind-address", ""}}).healthz_bind, "") << "an empty flag turns it off";
  EXPECT_EQ(options_of({}, {{"healthz-bind-address", "127.0.0.2"}}).healthz_bind, "127.0.0.2:10256");
  EXPECT_EQ(options_of({}, {{"metrics-bind-address", "::1"}}).metrics_bind, "[::1]:10249");
  EXPECT_EQ(options_of({}, {{"bind-address", "::"}}).metrics_bind, "[::1]:10249");
  EXPECT_EQ(options_of({}, {{"bind-address", "::"}}).healthz_bind, "[::]:10256");
  EXPECT_EQ(options_of({}, {{"healthz-port", "0"}}).healthz_bind, "");
  EXPECT_EQ(options_of({}, {{"metrics-port", "9000"}}).metrics_bind, "127.0.0.1:9000");
}

TEST(NormalizeArgs, KnowsGosSpellings) {
  EXPECT_THAT(normalize_args(
                  {"--cluster_cidr=10.0.0.0/8", "--hostname_override", "a_b", "-v=2", "-v4", "-v", "3", "-v", "--v=1"}),
              ElementsAre("--cluster-cidr=10.0.0.0/8", "--hostname-override", "a_b", "--v=2", "--v=4", "--v=3",
                          "--verbose", "--v=1"));
}

TEST(MakeOptions, ReadsModesAndAddresses) {
  auto o = options_of({}, {{"nodeport-addresses", "10.0.0.0/8, primary"},
                           {"nodeport-addresses", "fd00::/8"},
                           {"detect-local-mode", "InterfaceNamePrefix"},
                           {"pod-interface-name-prefix", "veth"},
                           {"masquerade-all", "true"},
                           {"proxy-mode", "ipvs"}});
  EXPECT_EQ(o.traffic.node_port_addresses.size(), 2u);
  EXPECT_TRUE(o.node_port_primary);
  EXPECT_EQ(o.traffic.detect_local, DetectLocal::kInterfacePrefix);
  EXPECT_EQ(o.traffic.local_interface, "veth");
  EXPECT_TRUE(o.traffic.masquerade_all);
  EXPECT_TRUE(options_of({}, {{"nodeport-addresses", "all,primary"}}).traffic.node_port_addresses.empty());
  auto c = resolve_config(std::nullopt, {{"proxy-mode", "iptables"}});
  ASSERT_TRUE(c && make_options(*c));
  EXPECT_THAT(c->notes, ElementsAre(HasSubstr("mode iptables is served by nftables")));
  c = resolve_config(std::nullopt, {{"proxy-mode", "ipvs"}, {"ipvs-scheduler", "lc"}, {"iptables-sync-period", "1s"}});
  ASSERT_TRUE(c && make_options(*c));
  EXPECT_THAT(c->notes, ElementsAre(HasSubstr("iptables.syncPeriod has no effect")));
}

TEST(MakeOptions, RefusesWhatCannotBe) {
  for (auto [flag, text, why] : {std::tuple{"proxy-mode", "userspace", "mode: userspace"},
                                 {"proxy-mode", "ebpf", "mode: \"ebpf\""},
                                 {"cluster-cidr", "10.0.0.0/8,10.1.0.0/16", "overlaps"},
                                 {"cluster-cidr", "ten", "clusterCIDR"},
                                 {"detect-local-mode", "Guess", "detectLocalMode: \"Guess\""},
                                 {"detect-local-mode", "BridgeInterface", "detectLocal"},
                                 {"nodeport-addresses", "everywhere", "nodePortAddresses"},
                                 {"iptables-masquerade-bit", "32", "masqueradeBit"},
                                 {"oom-score-adj", "2000", "oomScoreAdj"},
                                 {"bind-address", "here", "bindAddress"},
                                 {"conntrack-min", "-1", "conntrack.min"}}) {
    auto c = resolve_config(std::nullopt, {{flag, text}});
    ASSERT_TRUE(c) << c.error().text;
    auto o = make_options(*c);
    ASSERT_FALSE(o) << flag << " " << text;
    EXPECT_THAT(o.error().text, HasSubstr(why));
  }
}

TEST(LocalhostNodePorts, DefaultByMode) {
  const auto on = [](const std::vector<GivenFlag>& flags) { return options_of({}, flags).localhost_node_ports; };
  EXPECT_TRUE(on({}));
  EXPECT_TRUE(on({{"proxy-mode", "iptables"}}));
  EXPECT_FALSE(on({{"proxy-mode", "nftables"}}));
  EXPECT_FALSE(on({{"proxy-mode", "ipvs"}}));
  EXPECT_TRUE(on({{"proxy-mode", "nftables"}, {"iptables-localhost-nodeports", "true"}}));
  EXPECT_FALSE(on({{"iptables-localhost-nodeports", "false"}}));
  const auto file =
      options_of(kHead + "mode: nftables\niptables: {localhostNodePorts: true}\n", {{"cgroup-root", "/c"}});
  EXPECT_TRUE(file.localhost_node_ports);
  EXPECT_EQ(file.cgroup_root, "/c");
}

TEST(AddNode, CompletesWhatOnlyTheNodeTells) {
  const auto node = boost::json::parse(R"({"spec": {"podCIDR": "10.244.1.0/24"}, "status": {"addresses": [
    {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.11"}, {"type": "InternalIP", "address": "fd00::b"}]}})")
                        .as_object();
  auto o = options_of(
      {}, {{"detect-local-mode", "NodeCIDR"}, {"nodeport-addresses", "primary"}, {"iptables-masquerade-bit", "10"}});
  EXPECT_TRUE(needs_node(o));
  EXPECT_EQ(o.traffic.masquerade_mark, 0x400u);
  ASSERT_TRUE(add_node(node, o));
  EXPECT_THAT(o.traffic.cluster_cidrs, ElementsAre(*Cidr::parse("10.244.1.0/24")));
  EXPECT_THAT(o.traffic.node_port_addresses, ElementsAre(*Cidr::parse("192.0.2.11/32"), *Cidr::parse("fd00::b/128")));
  auto bare = options_of({}, {{"detect-local-mode", "NodeCIDR"}});
  EXPECT_THAT(add_node({}, bare).error().text, HasSubstr("no spec.podCIDR yet"));
}

TEST(ConntrackSysctls, FollowKubeProxysArithmetic) {
  const auto max = [](const ConntrackSettings& s, int cores) { return conntrack_sysctls(s, cores).at(0); };
  EXPECT_EQ(max({}, 2), (KernelSetting{kConntrackMax, "131072", true}));
  EXPECT_EQ(max({}, 8), (KernelSetting{kConntrackMax, "262144", true}));
  EXPECT_EQ(max({.min = 5, .max_given = true}, 1), (KernelSetting{kConntrackMax, "32768", false}));
  EXPECT_THAT(conntrack_sysctls({.max_per_core = 0, .tcp_established = {}, .tcp_close_wait = {}}, 8), IsEmpty());
  const auto all = conntrack_sysctls({.udp = 30s, .tcp_be_liberal = true}, 1);
  for (const auto& [key, value] : {std::pair{"tcp_timeout_established", "86400"},
                                   {"tcp_timeout_close_wait", "3600"},
                                   {"udp_timeout", "30"},
                                   {"tcp_be_liberal", "1"}})
    EXPECT_THAT(all, Contains(KernelSetting{std::string("net.netfilter.nf_conntrack_") + key, value}));
}

TEST(ConntrackSettings, ZeroLeavesTheKernelsOwn) {
  const auto o =
      options_of(kHead + "conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n", {});
  EXPECT_THAT(conntrack_sysctls(o.conntrack, 8), IsEmpty());
  EXPECT_TRUE(options_of(std::nullopt, {{"conntrack-min", "7"}}).conntrack.max_given);
  EXPECT_FALSE(options_of(kHead + "conntrack: {maxPerCore: null}\n", {}).conntrack.max_given);
}

TEST(ConfigYaml, IsReadBackTheSame) {
  auto c = resolve_config(
      kHead +
          "clusterCIDR: 10.1.0.0/16\nnodePortAddresses: [\"10.0.0.0/8\"]\nfeatureGates: {A: true, B: false}\n"
          "conntrack: {min: 5}\nnftables: {masqueradeAll: true}\n",
      {});
  ASSERT_TRUE(c) << c.error().text;
  const std::string written = config_yaml(*c);
  EXPECT_THAT(written, HasSubstr("conntrack:\n  maxPerCore: 32768\n  min: 5\n"));
  auto again = resolve_config(written, {});
  ASSERT_TRUE(again) << again.error().text << "\n" << written;
  EXPECT_EQ(config_yaml(*again), written);
  EXPECT_THAT(again->notes, ElementsAre(HasSubstr("featureGates")));
}

}  // namespace
}  // namespace hawser::proxy
