// SPDX-License-Identifier: Apache-2.0
#include "proxyd/config/options.h"

#include <algorithm>

#include "lib/kube/object.h"

namespace hawser::proxy {
namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

Result<> add_cidrs(std::string_view field, const Value& texts, std::vector<Cidr>& out) {
  for (const auto& text : texts) {
    auto range = Cidr::parse(text);
    if (!range) return propagate(range, "{}", field);
    out.push_back(range->network());
  }
  return {};
}

Result<> read_mode(Config& c) {
  const std::string mode = c.text("mode");
  if (mode.empty() || mode == "nftables" || mode == "ipvs") return {};
  if (mode == "iptables") {
    c.notes.push_back("mode iptables is served by nftables, with the same behaviour for Services");
    return {};
  }
  if (mode == "userspace") return fail(EINVAL, "mode: userspace has been removed from Kubernetes; want nftables");
  if (mode == "kernelspace") return fail(EINVAL, "mode: kernelspace is for Windows; want nftables");
  return fail(EINVAL, "mode: \"{}\", want nftables or ipvs, or iptables, which nftables serves too", mode);
}

Result<> read_detect_local(Config& c, ProxyOptions& o) {
  const std::string mode = c.text("detectLocalMode");
  auto& t = o.traffic;
  if (mode.empty() || mode == "ClusterCIDR")
    return add_cidrs("clusterCIDR", split_list(c.text("clusterCIDR")), t.cluster_cidrs);
  if (mode == "NodeCIDR") {
    o.node_cidr = true;
  } else if (mode == "BridgeInterface") {
    t.detect_local = DetectLocal::kBridgeInterface;
    t.local_interface = c.text("detectLocal.bridgeInterface");
  } else if (mode == "InterfaceNamePrefix") {
    t.detect_local = DetectLocal::kInterfacePrefix;
    t.local_interface = c.text("detectLocal.interfaceNamePrefix");
  } else {
    return fail(EINVAL, "detectLocalMode: \"{}\", want ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
                mode);
  }
  return {};
}

Result<> read_masquerade(const Config& c, TrafficOptions& t) {
  t.masquerade_all = c.flag("iptables.masqueradeAll") || c.flag("nftables.masqueradeAll");
  const std::int64_t bit =
      c.number(c.given("nftables.masqueradeBit") ? "nftables.masqueradeBit" : "iptables.masqueradeBit");
  if (bit < 0 || bit > 31) return fail(EINVAL, "masqueradeBit: {}, want 0 to 31", bit);
  t.masquerade_mark = 1u << bit;
  return {};
}

Result<> read_node_port_addresses(const Config& c, ProxyOptions& o) {
  bool all = false;
  Value ranges;
  for (const auto& text : c.list("nodePortAddresses")) {
    if (text == "primary") {
      o.node_port_primary = true;
    } else if (text == "all") {
      all = true;
    } else if (text == "localhost") {
      ranges.insert(ranges.end(), {"127.0.0.0/8", "::1/128"});
    } else {
      ranges.push_back(text);
    }
  }
  if (auto r = add_cidrs("nodePortAddresses", ranges, o.traffic.node_port_addresses); !r) return r;
  if (all) {
    o.node_port_primary = false;
    o.traffic.node_port_addresses.clear();
  }
  return {};
}

// kube-proxy's mode iptables has it on; its other modes cannot, so there it wants to be asked for.
bool read_localhost(const Config& c) {
  if (c.given("iptables.localhostNodePorts")) return c.flag("iptables.localhostNodePorts");
  const std::string mode = c.text("mode");
  return mode.empty() || mode == "iptables";
}

Result<std::int64_t> read_count(const Config& c, const char* field) {
  if (c.number(field) < 0) return fail(EINVAL, "{}: {} is below 0", field, c.number(field));
  return c.number(field);
}

// kube-proxy's rule: 0 leaves the kernel's own.
Result<std::optional<Nanos>> read_timeout(const Config& c, const char* field) {
  const Nanos d = c.duration(field);
  if (d < Nanos{0}) return fail(EINVAL, "{}: {} is below 0", field, c.text(field));
  if (d == Nanos{0}) return std::nullopt;
  return std::max<Nanos>(d, seconds(1));
}

Result<> read_conntrack(const Config& c, ConntrackSettings& s) {
  for (auto [field, out] : {std::pair{"conntrack.maxPerCore", &s.max_per_core}, {"conntrack.min", &s.min}}) {
    auto n = read_count(c, field);
    if (!n) return propagate(n);
    *out = *n;
  }
  for (auto [field, out] : {std::pair{"conntrack.tcpEstablishedTimeout", &s.tcp_established},
                            {"conntrack.tcpCloseWaitTimeout", &s.tcp_close_wait},
                            {"conntrack.udpTimeout", &s.udp},
                            {"conntrack.udpStreamTimeout", &s.udp_stream}}) {
    auto d = read_timeout(c, field);
    if (!d) return propagate(d);
    *out = *d;
  }
  s.max_given = c.given("conntrack.maxPerCore") || c.given("conntrack.min");
  s.tcp_be_liberal = c.flag("conntrack.tcpBeLiberal");
  return {};
}

Result<> read_periods(const Config& c, ProxyOptions& o) {
  // 0 in a file stands for the default, as with kube-proxy.
  o.sync_period = c.duration("nftables.syncPeriod");
  if (o.sync_period == Nanos{0}) o.sync_period = seconds(30);
  o.min_sync_period = c.duration("nftables.minSyncPeriod");
  if (o.sync_period < Nanos{0}) return fail(EINVAL, "nftables.syncPeriod: must be greater than 0");
  if (o.min_sync_period < Nanos{0}) return fail(EINVAL, "nftables.minSyncPeriod: must not be below 0");
  if (o.min_sync_period > o.sync_period)
    return fail(EINVAL, "nftables.minSyncPeriod: must not be greater than nftables.syncPeriod");
  o.min_sync_period = std::max<Nanos>(o.min_sync_period, std::chrono::milliseconds(5));
  return {};
}

}  // namespace

Result<ProxyOptions> make_options(Config& c) {
  ProxyOptions o;
  o.kubeconfig = c.text("clientConnection.kubeconfig");
  o.master = c.text("--master");
  o.node = c.text("hostnameOverride");
  o.healthz_bind = c.text("healthzBindAddress");
  o.metrics_bind = c.text("metricsBindAddress");
  o.bind_hard_fail = c.flag("bindAddressHardFail");
  o.verbosity = c.number("logging.verbosity");
  if (auto bind = c.text("bindAddress"); !bind.empty() && !IpAddr::parse(bind))
    return fail(EINVAL, "bindAddress: \"{}\" is not an IP address", bind);
  if (c.given("oomScoreAdj")) {
    o.oom_score = static_cast<int>(c.number("oomScoreAdj"));
    if (*o.oom_score < -1000 || *o.oom_score > 1000) return fail(EINVAL, "oomScoreAdj: want -1000 to 1000");
  }
  o.localhost_node_ports = read_localhost(c);
  o.cgroup_root = c.text("--cgroup-root");
  o.traffic.icmp_echo = c.flag("--icmp-echo");
  if (auto r = add_cidrs("--service-cidr", split_list(c.text("--service-cidr")), o.traffic.service_cidrs); !r)
    return propagate(r);
  for (auto r : {read_mode(c), read_detect_local(c, o), read_masquerade(c, o.traffic), read_node_port_addresses(c, o),
                 read_conntrack(c, o.conntrack), read_periods(c, o)})
    if (!r) return propagate(r);
  if (auto r = check(o.traffic); !r) return propagate(r);
  return o;
}

Result<> add_node(const boost::json::object& node, ProxyOptions& o) {
  if (o.node_cidr) {
    Value ranges;
    for (const auto& v : kube::arr(node, {"spec", "podCIDRs"}))
      if (v.is_string()) ranges.emplace_back(v.get_string());
    if (ranges.empty() && !kube::str(node, {"spec", "podCIDR"}).empty())
      ranges.emplace_back(kube::str(node, {"spec", "podCIDR"}));
    if (ranges.empty()) return fail(ENOENT, "detectLocalMode NodeCIDR: the Node object has no spec.podCIDR yet");
    if (auto r = add_cidrs("spec.podCIDRs", ranges, o.traffic.cluster_cidrs); !r) return r;
  }
  if (!o.node_port_primary) return check(o.traffic);
  bool found = false;
  for (const auto& v : kube::arr(node, {"status", "addresses"})) {
    const auto& item = kube::as_obj(v);
    const auto address = IpAddr::parse(kube::str(item, {"address"}));
    if (kube::str(item, {"type"}) != "InternalIP" || !address) continue;
    o.traffic.node_port_addresses.emplace_back(*address, address->bits());
    found = true;
  }
  if (!found) return fail(ENOENT, "nodePortAddresses primary: the Node object has no InternalIP yet");
  return check(o.traffic);
}

std::vector<KernelSetting> conntrack_sysctls(const ConntrackSettings& s, int cores) {
  std::vector<KernelSetting> out;
  const std::string base = "net.netfilter.nf_conntrack_";
  if (s.max_per_core > 0)
    out.push_back({kConntrackMax, std::to_string(std::max(s.max_per_core * cores, s.min)), !s.max_given});
  for (auto [key, t] : {std::pair{"tcp_timeout_established", s.tcp_established},
                        {"tcp_timeout_close_wait", s.tcp_close_wait},
                        {"udp_timeout", s.udp},
                        {"udp_timeout_stream", s.udp_stream}})
    if (t) out.push_back({base + key, std::to_string(duration_cast<seconds>(*t).count())});
  if (s.tcp_be_liberal) out.push_back({base + "tcp_be_liberal", "1"});
  return out;
}

}  // namespace hawser::proxy
