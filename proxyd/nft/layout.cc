// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/layout.h"

#include <algorithm>
#include <utility>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

using nft::Op;
using nft::RuleBuilder;
using nft::Verdict;
using Hook = nft::BaseHook::Hook;

constexpr int kFamilies[] = {AF_INET, AF_INET6};
constexpr std::uint16_t kClosedPort = 1;      // tcpmux, which no one serves by UDP
constexpr std::int32_t kDnatPriority = -100;  // NF_IP_PRI_NAT_DST
// One before everybody else's source NAT (100): a connection takes its source from the first chain that gives it one,
// and only this chain clears our marks.
constexpr std::int32_t kSnatPriority = 99;

const Verdict kReturn{Verdict::Kind::kReturn, {}};
const Verdict kDrop{Verdict::Kind::kDrop, {}};
const Verdict kAccept{Verdict::Kind::kAccept, {}};

Verdict jump(std::string chain) {
  return {Verdict::Kind::kJump, std::move(chain)};
}

const char* family_word(int family) {
  return family == AF_INET ? "ip" : "ip6";
}
// Whether a pod's packet can be told from others.
bool knows_pods(const LayoutOptions& o, int family) {
  if (o.detect_local != DetectLocal::kCidr) return o.detect_local != DetectLocal::kNone;
  return !fixed_ranges(SetRole::kPods, family, o).empty();
}

// Adds the match on packets from pods (or, by kNeq, on the others), for options that know_pods().
RuleBuilder& match_pods(RuleBuilder&& b, int family, Op op, const LayoutOptions& o) {
  if (o.detect_local == DetectLocal::kCidr)
    return b.match_set({nft::ip_saddr(family)}, set_name(SetRole::kPods, family), op);
  return b.match_iifname(o.detect_local == DetectLocal::kInterfacePrefix ? o.local_interface + "*" : o.local_interface,
                         op);
}

// A rule that looks a frontend up. Keys without an address say the family themselves.
RuleBuilder frontend_rule(std::string chain, int family, bool node_port) {
  RuleBuilder b(std::move(chain));
  if (node_port) b.match_nfproto(family);
  return b;
}

std::vector<nft::Field> original_key(int family, bool node_port) {
  std::vector<nft::Field> k;
  if (!node_port) k.push_back(nft::ct_original_daddr(family));
  k.push_back(nft::meta_l4proto());
  k.push_back(nft::ct_original_proto_dst());
  return k;
}

void add_lookups(std::vector<nft::Rule>& r, const std::string& chain, bool node_port) {
  for (const int family : kFamilies) {
    if (!node_port) {
      r.push_back(RuleBuilder(chain)
                      .match_set(frontend_key(family, false), set_name(SetRole::kLimited, family))
                      .verdict(jump("sources"))
                      .comment("loadBalancerSourceRanges")
                      .build());
    }
    const auto look = [&](SetRole role, const char* comment) {
      r.push_back(frontend_rule(chain, family, node_port)
                      .vmap(frontend_key(family, node_port), set_name(role, family))
                      .comment(comment)
                      .build());
    };
    look(node_port ? SetRole::kLocalNodePorts : SetRole::kLocalServices, "externalTrafficPolicy Local");
    look(node_port ? SetRole::kNodePorts : SetRole::kServices, "");
    // A packet may be between the look-up of its frontend and that of its slot when a transaction takes the slot away.
    // It then comes back here and finds the new state.
    look(node_port ? SetRole::kNodePorts : SetRole::kServices, "again, if changed meanwhile");
  }
}

// What is to a cluster IP but to no frontend: an answer instead of a way out through the default route [P30].
void add_cluster_ips(std::vector<nft::Rule>& r, const LayoutOptions& o) {
  for (const int family : kFamilies) {
    const std::vector<nft::Field> to = {nft::ip_daddr(family)};
    const std::string ips = set_name(SetRole::kClusterIps, family);
    if (o.icmp_echo) {
      RuleBuilder b("services");
      b.match_echo_request(family).match_set(to, ips);
      // Under IPVS these addresses are this node's own already.
      r.push_back((o.translate ? b.redirect() : b.verdict(kAccept)).build());
    }
    // Under IPVS this node talks to its Services from their own addresses; the reset of a refusal comes by here.
    if (!o.translate || o.beside_ipvs)
      r.push_back(RuleBuilder("services").match_set(to, ips).match_fib_saddr_local().verdict(kAccept).build());
    r.push_back(RuleBuilder("services").match_set(to, ips).verdict(jump(kRejectChain)).comment("no such port").build());
    if (!fixed_ranges(SetRole::kServiceRanges, family, o).empty()) {
      r.push_back(
          RuleBuilder("services").match_set(to, set_name(SetRole::kServiceRanges, family)).verdict(kDrop).build());
    }
  }
}

void add_sources(std::vector<nft::Rule>& r) {
  for (const int family : kFamilies) {
    auto key = frontend_key(family, false);
    key.push_back(nft::ip_saddr(family));
    r.push_back(RuleBuilder("sources").match_set(key, set_name(SetRole::kSources, family)).verdict(kReturn).build());
  }
  r.push_back(RuleBuilder("sources").verdict(kDrop).build());
}

void add_reject(std::vector<nft::Rule>& r) {
  r.push_back(RuleBuilder(kRejectChain).reject_tcp_reset().build());
  // A datagram of this host that is rejected on its way out fails with EPERM. Sent to a port of loopback where nobody
  // listens it gets the same ICMP error as others, and its sender ECONNREFUSED.
  for (const int family : kFamilies) {
    r.push_back(RuleBuilder(kRejectChain)
                    .match_nfproto(family)
                    .match_l4proto(IPPROTO_UDP)
                    .match_fib_saddr_local()
                    .dnat(*IpAddr::parse(family == AF_INET ? "127.0.0.1" : "::1"), kClosedPort)
                    .build());
  }
  r.push_back(RuleBuilder(kRejectChain).reject_port_unreachable().build());
}

void add_node_port_entry(std::vector<nft::Rule>& r, const LayoutOptions& o) {
  if (o.node_port_addresses.empty()) {
    r.push_back(RuleBuilder("services").match_fib_daddr_local().verdict(jump("node-ports")).build());
    return;
  }
  for (const int family : kFamilies) {
    RuleBuilder b("services");
    if (fixed_ranges(SetRole::kNodePortAddresses, family, o).empty()) {
      b.match_nfproto(family);
    } else {
      b.match_set({nft::ip_daddr(family)}, set_name(SetRole::kNodePortAddresses, family));
    }
    r.push_back(b.match_fib_daddr_local().verdict(jump("node-ports")).build());
  }
}

void add_node_ports(std::vector<nft::Rule>& r) {
  // A node port on loopback would need route_localnet here, which opens 127/8 to neighbours (CVE-2020-8558). Sockets
  // are led away from there instead (localhost/).
  r.push_back(RuleBuilder("node-ports")
                  .match_cidr(nft::ip_daddr(AF_INET), Op::kEq, *Cidr::parse("127.0.0.0/8"))
                  .verdict(kReturn)
                  .build());
  r.push_back(RuleBuilder("node-ports")
                  .match_cidr(nft::ip_daddr(AF_INET6), Op::kEq, *Cidr::parse("::1/128"))
                  .verdict(kReturn)
                  .build());
  add_lookups(r, "node-ports", true);
}

void add_postrouting(std::vector<nft::Rule>& r, const LayoutOptions& o) {
  const std::uint32_t remember = affinity_mark(o);
  r.push_back(RuleBuilder("postrouting").match_mark(remember, Op::kEq).verdict(jump("remember")).build());
  r.push_back(RuleBuilder("postrouting")
                  .match_mark(o.masquerade_mark, Op::kEq)
                  .clear_mark_bits(o.masquerade_mark)
                  .masquerade(true)
                  .build());
  for (const int family : kFamilies) {
    RuleBuilder b("postrouting");
    if (o.translate) b.match_ct_status_dnat();  // IPVS does not tell conntrack
    r.push_back(b.match_set({nft::ip_saddr(family), nft::ip_daddr(family)}, set_name(SetRole::kHairpin, family))
                    .masquerade(true)
                    .comment("hairpin")
                    .build());
  }
  // To endpoints on the host's own network, which postrouting never sees.
  r.push_back(RuleBuilder("input").match_mark(remember, Op::kEq).verdict(jump("remember")).build());
  r.push_back(RuleBuilder("remember").clear_mark_bits(remember).build());
  for (const bool node_port : {false, true}) {
    for (const int family : kFamilies) {
      r.push_back(frontend_rule("remember", family, node_port)
                      .vmap(original_key(family, node_port),
                            set_name(node_port ? SetRole::kAffinityNodePorts : SetRole::kAffinityServices, family))
                      .build());
    }
  }
}

}  // namespace

std::uint32_t affinity_mark(const LayoutOptions& o) {
  return o.masquerade_mark == kAffinityMark ? kAffinityMark << 1 : kAffinityMark;
}

std::vector<nft::Field> frontend_key(int family, bool node_port) {
  std::vector<nft::Field> k;
  if (!node_port) k.push_back(nft::ip_daddr(family));
  k.push_back(nft::meta_l4proto());
  k.push_back(nft::th_dport());
  return k;
}

std::string chain_name(const PickChain& c) {
  static constexpr const char* kReach[] = {"internal", "external", "local"};
  std::string n = fmt::format("{}-{}{}-{}", family_word(c.family), kReach[std::to_underlying(c.reach)],
                              c.node_port ? "-node-port" : "", c.count);
  return c.affinity_seconds == 0 ? n : fmt::format("{}-affinity-{}", n, c.affinity_seconds);
}

std::vector<nft::Rule> pick_rules(const PickChain& c, const LayoutOptions& o) {
  const std::string chain = chain_name(c);
  const bool local = c.reach == PickReach::kLocal;
  std::vector<nft::Rule> r;
  if (local) {
    // Pods and this node itself may use every endpoint: back to the look-up that knows them all.
    if (knows_pods(o, c.family)) {
      r.push_back(match_pods(RuleBuilder(chain), c.family, Op::kEq, o).verdict(kReturn).build());
    }
    // This node's own packets may go to other nodes' pods, from an address that those cannot answer (127.0.0.1).
    r.push_back(RuleBuilder(chain).match_fib_saddr_local().set_mark_bits(o.masquerade_mark).verdict(kReturn).build());
    if (c.count == 0) {
      r.push_back(RuleBuilder(chain).verdict(kDrop).build());
      return r;
    }
  }
  if (c.reach == PickReach::kExternal || (c.reach == PickReach::kInternal && o.masquerade_all)) {
    r.push_back(RuleBuilder(chain).set_mark_bits(o.masquerade_mark).build());
  } else if (c.reach == PickReach::kInternal && knows_pods(o, c.family)) {
    r.push_back(match_pods(RuleBuilder(chain), c.family, Op::kNeq, o).set_mark_bits(o.masquerade_mark).build());
  }
  // The address is on a device of this node, which takes it for the source of what it sends there itself.
  if ((!o.translate || o.beside_ipvs) && c.reach == PickReach::kInternal)
    r.push_back(RuleBuilder(chain).match_fib_saddr_local().set_mark_bits(o.masquerade_mark).build());
  const auto key = frontend_key(c.family, c.node_port);
  if (c.affinity_seconds != 0 && (o.translate || o.beside_ipvs)) {
    r.push_back(RuleBuilder(chain).set_mark_bits(affinity_mark(o)).build());
    auto client = key;
    client.insert(client.begin(), nft::ip_saddr(c.family));
    r.push_back(RuleBuilder(chain)
                    .dnat_map(c.family, client,
                              set_name(c.node_port ? SetRole::kNodePortAffinity : SetRole::kAffinity, c.family))
                    .build());
  }
  if (!o.translate) {
    if (c.affinity_seconds != 0 && o.beside_ipvs)
      r.push_back(RuleBuilder(chain).clear_mark_bits(affinity_mark(o)).build());
    r.push_back(RuleBuilder(chain).verdict(kAccept).build());
    return r;
  }
  auto slot = key;
  slot.push_back(nft::numgen_random(c.count));
  const SetRole vip_role = local ? SetRole::kLocalEndpoints : SetRole::kEndpoints;
  const SetRole port_role = local ? SetRole::kLocalNodePortEndpoints : SetRole::kNodePortEndpoints;
  r.push_back(
      RuleBuilder(chain).dnat_map(c.family, slot, set_name(c.node_port ? port_role : vip_role, c.family)).build());
  return r;
}

std::string chain_name(const RememberChain& c) {
  return fmt::format("{}-remember{}-{}", family_word(c.family), c.node_port ? "-node-port" : "", c.seconds);
}

std::vector<nft::Rule> remember_rules(const RememberChain& c) {
  auto key = original_key(c.family, c.node_port);
  key.insert(key.begin(), nft::ip_saddr(c.family));
  const std::string map = set_name(c.node_port ? SetRole::kNodePortAffinity : SetRole::kAffinity, c.family);
  return {RuleBuilder(chain_name(c))
              .update_map(key, map, std::uint64_t{c.seconds} * 1000, {nft::ip_daddr(c.family), nft::th_dport()})
              .build()};
}

const std::vector<nft::Chain>& fixed_chains() {
  static const std::vector<nft::Chain> kAll = {
      {"prerouting", nft::BaseHook{"nat", Hook::kPrerouting, kDnatPriority}},
      {"output", nft::BaseHook{"nat", Hook::kOutput, kDnatPriority}},
      {"postrouting", nft::BaseHook{"nat", Hook::kPostrouting, kSnatPriority}},
      {"input", nft::BaseHook{"nat", Hook::kInput, kSnatPriority}},
      {"forward", nft::BaseHook{"filter", Hook::kForward, 0}},
      {"services", {}},
      {"node-ports", {}},
      {"remember", {}},
      {"sources", {}},
      {kRejectChain, {}},
  };
  return kAll;
}

bool ipvs_decides(const nft::TableState& table) {
  const auto it = table.chains.find("prerouting");
  return it != table.chains.end() &&
         std::ranges::any_of(it->second.rules, [](const auto& rule) { return rule.comment == kIpvsDecides; });
}

std::vector<nft::Rule> fixed_rules(const LayoutOptions& o) {
  std::vector<nft::Rule> r;
  for (const char* hook : {"prerouting", "output"}) {
    RuleBuilder b(hook);
    b.verdict(jump("services"));
    r.push_back((o.translate ? b : b.comment(kIpvsDecides)).build());
  }
  add_lookups(r, "services", false);
  add_cluster_ips(r, o);
  add_node_port_entry(r, o);
  add_node_ports(r);
  add_sources(r);
  add_postrouting(r, o);
  for (const int family : kFamilies) {
    // IPVS translates replies back by its own table.
    if (!knows_pods(o, family) || !o.translate || o.beside_ipvs) continue;
    // A late packet that conntrack does not take for its connection is not translated back; the client would answer the
    // unknown address with a reset and end the connection (kubernetes issue 74839).
    RuleBuilder b("forward");
    if (o.detect_local != DetectLocal::kCidr) b.match_nfproto(family);
    b.match_ct_state(nft::kCtInvalid, Op::kEq);
    r.push_back(match_pods(std::move(b), family, Op::kEq, o).counter().verdict(kDrop).build());
  }
  add_reject(r);
  return r;
}

}  // namespace hawser::proxy
