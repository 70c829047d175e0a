// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/layout.h"

#include <algorithm>
#include <utility>

#include <sys/socket.h>

namespace hawser::proxy {
namespace {

using nft::Op;
using nft::RuleBuilder;
using nft::Verdict;
using Hook = nft::BaseHook::Hook;

constexpr int kFamilies[] = {AF_INET, AF_INET6};
constexpr std::uint32_t kMaxAffinityEntries = 1u << 18;  // a family; beyond it new clients are not remembered
constexpr std::int32_t kDnatPriority = -100;             // NF_IP_PRI_NAT_DST
// One before everybody else's source NAT (100): a connection takes its source from the first chain that gives it one,
// and only this chain clears our marks.
constexpr std::int32_t kSnatPriority = 99;

const Verdict kReturn{Verdict::Kind::kReturn, {}};
const Verdict kDrop{Verdict::Kind::kDrop, {}};

Verdict jump(std::string chain) {
  return {Verdict::Kind::kJump, std::move(chain)};
}

const char* family_word(int family) {
  return family == AF_INET ? "ip" : "ip6";
}
char family_digit(int family) {
  return family == AF_INET ? '4' : '6';
}
nft::DataType addr_type(int family) {
  return family == AF_INET ? nft::DataType::kIpv4Addr : nft::DataType::kIpv6Addr;
}

bool has_pods(const LayoutOptions& o, int family) {
  return std::ranges::any_of(o.cluster_cidrs, [&](const Cidr& c) { return c.family() == family; });
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

void add_node_ports(std::vector<nft::Rule>& r) {
  // A node port on loopback would need route_localnet, which opens 127/8 to neighbours (CVE-2020-8558).
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

void add_postrouting(std::vector<nft::Rule>& r) {
  r.push_back(RuleBuilder("postrouting").match_mark(kAffinityMark, Op::kEq).verdict(jump("remember")).build());
  r.push_back(RuleBuilder("postrouting")
                  .match_mark(kMasqueradeMark, Op::kEq)
                  .clear_mark_bits(kMasqueradeMark)
                  .masquerade(true)
                  .build());
  for (const int family : kFamilies) {
    r.push_back(RuleBuilder("postrouting")
                    .match_ct_status_dnat()
                    .match_set({nft::ip_saddr(family), nft::ip_daddr(family)}, set_name(SetRole::kHairpin, family))
                    .masquerade(true)
                    .comment("hairpin")
                    .build());
  }
  // To endpoints on the host's own network, which postrouting never sees.
  r.push_back(RuleBuilder("input").match_mark(kAffinityMark, Op::kEq).verdict(jump("remember")).build());
  r.push_back(RuleBuilder("remember").clear_mark_bits(kAffinityMark).build());
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

const std::vector<SetRole>& all_roles() {
  static const std::vector<SetRole> kAll = {SetRole::kServices,          SetRole::kLocalServices,
                                            SetRole::kNodePorts,         SetRole::kLocalNodePorts,
                                            SetRole::kEndpoints,         SetRole::kLocalEndpoints,
                                            SetRole::kNodePortEndpoints, SetRole::kLocalNodePortEndpoints,
                                            SetRole::kAffinityServices,  SetRole::kAffinityNodePorts,
                                            SetRole::kAffinity,          SetRole::kNodePortAffinity,
                                            SetRole::kHairpin,           SetRole::kPods};
  return kAll;
}

std::string set_name(SetRole role, int family) {
  const char* base = "";
  switch (role) {
    case SetRole::kServices:
      base = "services";
      break;
    case SetRole::kLocalServices:
      base = "local-services";
      break;
    case SetRole::kNodePorts:
      base = "node-ports";
      break;
    case SetRole::kLocalNodePorts:
      base = "local-node-ports";
      break;
    case SetRole::kEndpoints:
      base = "endpoints";
      break;
    case SetRole::kLocalEndpoints:
      base = "local-endpoints";
      break;
    case SetRole::kNodePortEndpoints:
      base = "node-port-endpoints";
      break;
    case SetRole::kLocalNodePortEndpoints:
      base = "local-node-port-endpoints";
      break;
    case SetRole::kAffinityServices:
      base = "affinity-services";
      break;
    case SetRole::kAffinityNodePorts:
      base = "affinity-node-ports";
      break;
    case SetRole::kAffinity:
      base = "affinity";
      break;
    case SetRole::kNodePortAffinity:
      base = "node-port-affinity";
      break;
    case SetRole::kHairpin:
      base = "hairpin";
      break;
    case SetRole::kPods:
      base = "pods";
      break;
  }
  return std::string(base) + family_digit(family);
}

nft::Set set_spec(SetRole role, int family) {
  using nft::DataType;
  const DataType addr = addr_type(family);
  const std::vector<DataType> vip = {addr, DataType::kInetProto, DataType::kInetService};
  const std::vector<DataType> port = {DataType::kInetProto, DataType::kInetService};
  const std::vector<DataType> target = {addr, DataType::kInetService};
  const auto with = [](std::vector<DataType> v, DataType last) {
    v.push_back(last);
    return v;
  };
  nft::Set s{.name = set_name(role, family)};
  switch (role) {
    case SetRole::kServices:
    case SetRole::kLocalServices:
    case SetRole::kAffinityServices:
      s.key = vip;
      s.verdict_map = true;
      break;
    case SetRole::kNodePorts:
    case SetRole::kLocalNodePorts:
    case SetRole::kAffinityNodePorts:
      s.key = port;
      s.verdict_map = true;
      break;
    case SetRole::kEndpoints:
    case SetRole::kLocalEndpoints:
      // "mark" is nft's only named type for a number of 4 bytes in host order, which is what numgen gives.
      s.key = with(vip, DataType::kMark);
      s.data = target;
      break;
    case SetRole::kNodePortEndpoints:
    case SetRole::kLocalNodePortEndpoints:
      s.key = with(port, DataType::kMark);
      s.data = target;
      break;
    case SetRole::kAffinity:
    case SetRole::kNodePortAffinity:
      s.key = role == SetRole::kAffinity ? vip : port;
      s.key.insert(s.key.begin(), addr);
      s.data = target;
      s.timeout = s.dynamic = true;
      s.size = kMaxAffinityEntries;
      break;
    case SetRole::kHairpin:
      s.key = {addr, addr};
      break;
    case SetRole::kPods:
      s.key = {addr};
      s.interval = true;
      break;
  }
  return s;
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
    if (has_pods(o, c.family)) {
      r.push_back(RuleBuilder(chain)
                      .match_set({nft::ip_saddr(c.family)}, set_name(SetRole::kPods, c.family))
                      .verdict(kReturn)
                      .build());
    }
    r.push_back(RuleBuilder(chain).match_fib_saddr_local().verdict(kReturn).build());
    if (c.count == 0) {
      r.push_back(RuleBuilder(chain).verdict(kDrop).build());
      return r;
    }
  }
  if (c.reach == PickReach::kExternal) r.push_back(RuleBuilder(chain).set_mark_bits(kMasqueradeMark).build());
  if (c.reach == PickReach::kInternal && has_pods(o, c.family)) {
    r.push_back(RuleBuilder(chain)
                    .match_set({nft::ip_saddr(c.family)}, set_name(SetRole::kPods, c.family), Op::kNeq)
                    .set_mark_bits(kMasqueradeMark)
                    .build());
  }
  const auto key = frontend_key(c.family, c.node_port);
  if (c.affinity_seconds != 0) {
    r.push_back(RuleBuilder(chain).set_mark_bits(kAffinityMark).build());
    auto client = key;
    client.insert(client.begin(), nft::ip_saddr(c.family));
    r.push_back(RuleBuilder(chain)
                    .dnat_map(c.family, client,
                              set_name(c.node_port ? SetRole::kNodePortAffinity : SetRole::kAffinity, c.family))
                    .build());
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
      {kRejectChain, {}},
  };
  return kAll;
}

std::vector<nft::Rule> fixed_rules(const LayoutOptions& o) {
  std::vector<nft::Rule> r;
  r.push_back(RuleBuilder("prerouting").verdict(jump("services")).build());
  r.push_back(RuleBuilder("output").verdict(jump("services")).build());
  add_lookups(r, "services", false);
  r.push_back(RuleBuilder("services").match_fib_daddr_local().verdict(jump("node-ports")).build());
  add_node_ports(r);
  add_postrouting(r);
  for (const int family : kFamilies) {
    if (!has_pods(o, family)) continue;
    // A late packet that conntrack does not take for its connection is not translated back; the client would answer the
    // unknown address with a reset and end the connection (kubernetes issue 74839).
    r.push_back(RuleBuilder("forward")
                    .match_ct_state(nft::kCtInvalid, Op::kEq)
                    .match_set({nft::ip_saddr(family)}, set_name(SetRole::kPods, family))
                    .counter()
                    .verdict(kDrop)
                    .build());
  }
  r.push_back(RuleBuilder(kRejectChain).reject_tcp_reset().build());
  r.push_back(RuleBuilder(kRejectChain).reject_port_unreachable().build());
  return r;
}

}  // namespace hawser::proxy
