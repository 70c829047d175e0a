// SPDX-License-Identifier: Apache-2.0
#include "proxyd/config/settings.h"

#include <algorithm>

namespace hawser::proxy {
namespace {

constexpr const char* kNoIptables = "there are no iptables rules to write again: a sync costs what changed";
constexpr const char* kNoIpvs = "it counts under mode ipvs only";
constexpr const char* kWindows = "it is for Windows";
constexpr const char* kLog = "the log goes to stderr, one line an event";
constexpr const char* kUserspace = "it is for the userspace mode, which Kubernetes has removed";
constexpr const char* kWatches = "watches carry all changes; there is nothing to refresh or to limit";
constexpr const char* kJson = "the API is spoken in JSON";
constexpr const char* kProfile = "there is no profiler inside; use perf";
constexpr const char* kGates = "what the gates switch is decided here by what the Services say";

// Of the flags without a field, --service-cidr, --icmp-echo and --cgroup-root are ours. In the order in which
// --write-config-to writes them; a section's fields stand together.
constexpr Setting kSettings[] = {
    {"featureGates", "feature-gates", Type::kSwitches, nullptr, kGates},
    {"clientConnection.kubeconfig", "kubeconfig", Type::kText, "", ""},
    {"clientConnection.acceptContentTypes", "", Type::kText, "", kJson},
    {"clientConnection.contentType", "kube-api-content-type", Type::kText, "application/vnd.kubernetes.protobuf",
     kJson},
    {"clientConnection.qps", "kube-api-qps", Type::kNumber, "5", kWatches},
    {"clientConnection.burst", "kube-api-burst", Type::kInt, "10", kWatches},
    {"logging.format", "logging-format", Type::kText, "text", kLog},
    {"logging.flushFrequency", "log-flush-frequency", Type::kText, "5s", kLog},
    {"logging.verbosity", "v", Type::kInt, "0", ""},
    {"logging.vmodule", "", Type::kAny, nullptr, kLog},
    {"logging.options", "", Type::kAny, nullptr, kLog},
    {"hostnameOverride", "hostname-override", Type::kText, "", ""},
    {"bindAddress", "bind-address", Type::kText, "0.0.0.0", ""},
    {"healthzBindAddress", "healthz-bind-address", Type::kText, "0.0.0.0:10256", ""},
    {"metricsBindAddress", "metrics-bind-address", Type::kText, "127.0.0.1:10249", ""},
    {"bindAddressHardFail", "bind-address-hard-fail", Type::kBool, "false", ""},
    {"enableProfiling", "profiling", Type::kBool, "false", kProfile},
    {"showHiddenMetricsForVersion", "show-hidden-metrics-for-version", Type::kText, "", "no metric is hidden"},
    {"mode", "proxy-mode", Type::kText, "", ""},
    {"iptables.masqueradeBit", "iptables-masquerade-bit", Type::kInt, "14", ""},
    {"iptables.masqueradeAll", "masquerade-all", Type::kBool, "false", ""},
    {"iptables.localhostNodePorts", "iptables-localhost-nodeports", Type::kBool, nullptr, ""},
    {"iptables.snatNodeInternalIP", "", Type::kBool, nullptr,
     "masquerade takes the address of the interface that a packet leaves by"},
    {"iptables.syncPeriod", "iptables-sync-period", Type::kDuration, "30s", kNoIptables},
    {"iptables.minSyncPeriod", "iptables-min-sync-period", Type::kDuration, "1s", kNoIptables},
    {"ipvs.syncPeriod", "ipvs-sync-period", Type::kDuration, "30s", kNoIpvs},
    {"ipvs.minSyncPeriod", "ipvs-min-sync-period", Type::kDuration, "1s", kNoIpvs},
    {"ipvs.scheduler", "ipvs-scheduler", Type::kText, "", kNoIpvs},
    {"ipvs.excludeCIDRs", "ipvs-exclude-cidrs", Type::kList, nullptr, kNoIpvs},
    {"ipvs.strictARP", "ipvs-strict-arp", Type::kBool, "false", kNoIpvs},
    {"ipvs.tcpTimeout", "ipvs-tcp-timeout", Type::kDuration, "0s", kNoIpvs},
    {"ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout", Type::kDuration, "0s", kNoIpvs},
    {"ipvs.udpTimeout", "ipvs-udp-timeout", Type::kDuration, "0s", kNoIpvs},
    {"nftables.masqueradeBit", "", Type::kInt, "14", ""},
    {"nftables.masqueradeAll", "masquerade-all", Type::kBool, "false", ""},
    {"nftables.syncPeriod", "", Type::kDuration, "30s", ""},
    {"nftables.minSyncPeriod", "", Type::kDuration, "5ms", ""},
    {"winkernel.networkName", "network-name", Type::kText, "", kWindows},
    {"winkernel.sourceVip", "source-vip", Type::kText, "", kWindows},
    {"winkernel.enableDSR", "enable-dsr", Type::kBool, "false", kWindows},
    {"winkernel.rootHnsEndpointName", "root-hnsendpoint-name", Type::kText, "", kWindows},
    {"winkernel.forwardHealthCheckVip", "forward-healthcheck-vip", Type::kBool, "false", kWindows},
    {"windowsRunAsService", "windows-service", Type::kBool, "false", kWindows},
    {"detectLocalMode", "detect-local-mode", Type::kText, "", ""},
    {"detectLocal.bridgeInterface", "pod-bridge-interface", Type::kText, "", ""},
    {"detectLocal.interfaceNamePrefix", "pod-interface-name-prefix", Type::kText, "", ""},
    {"clusterCIDR", "cluster-cidr", Type::kText, "", ""},
    {"nodePortAddresses", "nodeport-addresses", Type::kList, nullptr, ""},
    {"oomScoreAdj", "oom-score-adj", Type::kInt, nullptr, ""},
    {"conntrack.maxPerCore", "conntrack-max-per-core", Type::kInt, "32768", ""},
    {"conntrack.min", "conntrack-min", Type::kInt, "131072", ""},
    {"conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established", Type::kDuration, "24h", ""},
    {"conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait", Type::kDuration, "1h", ""},
    {"conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal", Type::kBool, "false", ""},
    {"conntrack.udpTimeout", "conntrack-udp-timeout", Type::kDuration, "0s", ""},
    {"conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream", Type::kDuration, "0s", ""},
    {"configSyncPeriod", "config-sync-period", Type::kDuration, "15m", kWatches},
    {"portRange", "proxy-port-range", Type::kText, "", kUserspace},
    {"udpIdleTimeout", "udp-timeout", Type::kDuration, "250ms", kUserspace},
    {"resourceContainer", "resource-container", Type::kText, "", "cgroups are made by who starts it"},
    {"", "healthz-port", Type::kInt, nullptr, ""},
    {"", "metrics-port", Type::kInt, nullptr, ""},
    {"", "master", Type::kText, "", ""},
    {"", "service-cidr", Type::kText, "", ""},
    {"", "icmp-echo", Type::kBool, "false", ""},
    {"", "cgroup-root", Type::kText, "", ""},
    {"", "cleanup-ipvs", Type::kBool, "true", "--cleanup-kube-proxy decides what is removed besides our own"},
    {"", "cleanup-iptables", Type::kBool, "true", "--cleanup-kube-proxy decides what is removed besides our own"},
    {"", "alsologtostderr", Type::kBool, "false", kLog},
    {"", "logtostderr", Type::kBool, "true", kLog},
    {"", "stderrthreshold", Type::kText, "2", kLog},
    {"", "log-backtrace-at", Type::kText, "", kLog},
    {"", "log-dir", Type::kText, "", kLog},
    {"", "log-file", Type::kText, "", kLog},
    {"", "log-file-max-size", Type::kInt, "1800", kLog},
    {"", "log-json-info-buffer-size", Type::kText, "0", kLog},
    {"", "log-json-split-stream", Type::kBool, "false", kLog},
    {"", "log-text-info-buffer-size", Type::kText, "0", kLog},
    {"", "log-text-split-stream", Type::kBool, "false", kLog},
    {"", "add-dir-header", Type::kBool, "false", kLog},
    {"", "one-output", Type::kBool, "false", kLog},
    {"", "skip-headers", Type::kBool, "false", kLog},
    {"", "skip-log-headers", Type::kBool, "false", kLog},
    {"", "vmodule", Type::kText, "", kLog},
    {"", "application-metrics-count-limit", Type::kInt, "100", "it never did anything in kube-proxy"},
    {"", "boot-id-file", Type::kText, "", "it never did anything in kube-proxy"},
    {"", "machine-id-file", Type::kText, "", "it never did anything in kube-proxy"},
};

}  // namespace

std::span<const Setting> settings() {
  return kSettings;
}

const Setting* find_field(std::string_view field) {
  const auto at = std::ranges::find_if(kSettings, [&](const Setting& s) { return s.field == field; });
  return field.empty() || at == std::end(kSettings) ? nullptr : at;
}

}  // namespace hawser::proxy
