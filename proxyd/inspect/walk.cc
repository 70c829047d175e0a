// SPDX-License-Identifier: Apache-2.0
#include "proxyd/inspect/walk.h"

#include <algorithm>
#include <charconv>

#include <netinet/in.h>
#include <sys/socket.h>

namespace hawser::proxy {
namespace {

bool is_loopback(const IpAddr& a) {
  static const Cidr kV4 = *Cidr::parse("127.0.0.0/8"), kV6 = *Cidr::parse("::1/128");
  return kV4.contains(a) || kV6.contains(a);
}

bool has(const std::vector<IpAddr>& list, const IpAddr& a) {
  return std::ranges::find(list, a) != list.end();
}

bool from_node(const Query& q, const KernelFacts& k) {
  return is_loopback(q.source) || has(k.addresses, q.source);
}

// An address of this node where node ports are served.
bool takes_node_ports(const Query& q, const std::vector<IpAddr>& addresses, const TrafficOptions& o) {
  return (is_loopback(q.destination) || has(addresses, q.destination)) && serves_node_ports(o, q.destination);
}

SideId key_for(const Query& q, bool node_port) {
  return {.addr = node_port ? IpAddr() : q.destination,
          .protocol = q.protocol,
          .port = q.port,
          .v6 = q.destination.is_v6(),
          .local = false};
}

std::optional<Cidr> containing(const std::vector<Cidr>& ranges, const IpAddr& a) {
  const auto at = std::ranges::find_if(ranges, [&](const Cidr& c) { return c.contains(a); });
  return at == ranges.end() ? std::nullopt : std::optional(*at);
}

std::vector<Target> sorted(std::vector<Target> t) {
  std::erase_if(t, [](const Target& x) { return !x.addr; });
  std::ranges::sort(t);
  return t;
}

// The rules let the packet through to `services`.
void use_virtual_service(const Query& q, const VirtualServices& services, Walk& w) {
  const netlink::IpvsKey key{q.protocol, q.destination, q.port};
  const auto at = services.find(key);
  w.targets.clear();
  if (at == services.end()) {
    if (w.damage.empty()) w.damage = "no virtual service " + key.text();
    return;
  }
  for (const auto& [target, weight] : at->second.weights) w.targets.insert(w.targets.end(), weight, target);
  if (w.targets.empty() && w.damage.empty()) w.damage = key.text() + " has no destination with a weight";
  w.affinity_seconds = at->second.persistence_seconds;
  w.scheduler = at->second.scheduler;
}

// ---- the kernel's side ----

const Side* side_of(const KernelFacts& k, const SideId& id) {
  const auto at = k.found.image.sides.find(id);
  return at == k.found.image.sides.end() ? nullptr : &at->second;
}

// Whether an interval set, as it was read, has `a`.
bool in_ranges(const KernelFacts& k, SetRole role, const IpAddr& a) {
  const auto set = k.found.ranges.find(set_name(role, a.family()));
  if (set == k.found.ranges.end()) return false;
  const nft::Bytes key = nft::Bytes::ip(a);
  const nft::Element* last = nullptr;
  for (const nft::Element& e : set->second) {
    if (e.key > key) continue;
    // One range may begin where another ends.
    if (last == nullptr || e.key > last->key || (e.key == last->key && !e.interval_end)) last = &e;
  }
  return last != nullptr && !last->interval_end;
}

bool kernel_says_pod(const Query& q, const Facts& f) {
  if (f.model.options.detect_local != DetectLocal::kCidr) return from_pod(q, f.model.options);
  return in_ranges(f.kernel, SetRole::kPods, q.source);
}

bool kernel_takes_node_ports(const Query& q, const Facts& f) {
  const auto& o = f.model.options;
  // That of loopback is a matter of rules, which are compared as a whole.
  if (is_loopback(q.destination)) return takes_node_ports(q, f.kernel.addresses, o);
  if (!has(f.kernel.addresses, q.destination)) return false;
  // Without addresses in the options the rule asks no set.
  if (fixed_ranges(SetRole::kNodePortAddresses, q.destination.family(), o).empty())
    return takes_node_ports(q, f.kernel.addresses, o);
  return in_ranges(f.kernel, SetRole::kNodePortAddresses, q.destination);
}

std::string chain_damage(const PickChain& pick, const Facts& f) {
  const std::string name = chain_name(pick);
  const auto chain = f.kernel.found.table.chains.find(name);
  if (chain == f.kernel.found.table.chains.end()) return "chain " + name + " is not there";
  const auto want = pick_rules(pick, f.model.options);
  const bool same = std::ranges::equal(chain->second.rules, want, [](const nft::RuleState& h, const nft::Rule& w) {
    return h.fingerprint == nft::fingerprint(w);
  });
  return same ? "" : "chain " + name + " has other rules";
}

// Enters the pick chain that `side` names. False: a packet of this source comes back from it.
bool enter_pick(const Query& q, const Facts& f, const Side& side, Walk& w) {
  const auto pick = parse_pick_chain(side.verdict->chain, w.id.family(), w.id.node_port());
  if (!pick) {
    w.damage = "no chain of ours: " + side.verdict->chain;
    return true;
  }
  w.damage = chain_damage(*pick, f);
  const bool pod = kernel_says_pod(q, f);
  if (pick->reach == PickReach::kLocal) {
    if (pod && knows_pods(f.model.options, pick->family)) return false;
    if (from_node(q, f.kernel)) {
      w.masquerade = true;
      return false;
    }
    w.kept_local = true;
  }
  if (pick->reach == PickReach::kExternal) w.masquerade = true;
  if (pick->reach == PickReach::kInternal)
    w.masquerade = w.masquerade || f.model.options.masquerade_all ||
                   (knows_pods(f.model.options, pick->family) && !pod) ||
                   (!f.model.options.translate && from_node(q, f.kernel));
  w.affinity_seconds = pick->affinity_seconds;
  w.targets = side.slots;
  w.targets.resize(std::min<std::size_t>(w.targets.size(), pick->count));
  w.targets = sorted(std::move(w.targets));
  if (w.targets.size() != pick->count)
    w.damage = fmt::format("{} of {} slots are empty", pick->count - w.targets.size(), pick->count);
  w.fate = pick->count == 0 ? Fate::kDrop : Fate::kEndpoints;
  return true;
}

// Looks a frontend up, as add_lookups() of the layout writes it. False: no element.
bool look_up(const Query& q, const Facts& f, bool node_port, Walk& w) {
  w.id = key_for(q, node_port);
  const Side* main = side_of(f.kernel, w.id);
  if (main != nullptr && main->limited) {
    w.match = Match::kFrontend;
    w.limited = true;
    w.range = containing(main->sources, q.source);
    if (!w.range) {
      w.fate = Fate::kDrop;
      return true;
    }
  }
  w.id.local = true;
  const Side* local = side_of(f.kernel, w.id);
  if (local != nullptr && local->verdict) {
    w.match = Match::kFrontend;
    w.local_lookup = true;
    if (enter_pick(q, f, *local, w)) return true;
  }
  w.id.local = false;
  if (main == nullptr || !main->verdict) {
    w.match = Match::kNone;
    return false;
  }
  w.match = Match::kFrontend;
  if (main->verdict->kind == nft::Verdict::Kind::kDrop) {
    w.fate = Fate::kDrop;
  } else if (main->verdict->chain == kRejectChain) {
    w.fate = Fate::kReject;
  } else {
    (void)enter_pick(q, f, *main, w);
  }
  return true;
}

}  // namespace

bool knows_pods(const TrafficOptions& o, int family) {
  if (o.detect_local != DetectLocal::kCidr) return o.detect_local != DetectLocal::kNone;
  return !fixed_ranges(SetRole::kPods, family, o).empty();
}

bool from_pod(const Query& q, const TrafficOptions& o) {
  switch (o.detect_local) {
    case DetectLocal::kCidr:
      return containing(o.cluster_cidrs, q.source).has_value();
    case DetectLocal::kBridgeInterface:
      return q.interface == o.local_interface;
    case DetectLocal::kInterfacePrefix:
      return q.interface.starts_with(o.local_interface);
    case DetectLocal::kNone:
      break;
  }
  return false;
}

std::optional<PickChain> parse_pick_chain(const std::string& name, int family, bool node_port) {
  PickChain c{.family = family, .node_port = node_port};
  std::string_view rest = name;
  const auto trailing = [](std::string_view text, std::uint32_t& n) {
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
    return ec == std::errc() && end == text.data() + text.size();
  };
  static constexpr std::string_view kAffinity = "-affinity-";
  if (const auto at = rest.find(kAffinity); at != rest.npos) {
    if (!trailing(rest.substr(at + kAffinity.size()), c.affinity_seconds)) return std::nullopt;
    rest = rest.substr(0, at);
  }
  const auto dash = rest.rfind('-');
  if (dash == rest.npos || !trailing(rest.substr(dash + 1), c.count)) return std::nullopt;
  for (const PickReach reach : {PickReach::kInternal, PickReach::kExternal, PickReach::kLocal}) {
    c.reach = reach;
    if (chain_name(c) == name) return c;
  }
  return std::nullopt;
}

Hit find_frontend(const Query& q, const DesiredState& state, const TrafficOptions& o,
                  const std::vector<IpAddr>& node_addresses) {
  const bool node_ports = takes_node_ports(q, node_addresses, o);
  Hit port;
  for (const auto& s : state.services) {
    for (const Frontend& f : s->frontends) {
      if (f.protocol != q.protocol || f.port != q.port || f.family != q.destination.family()) continue;
      if (f.addr == q.destination) return {s.get(), &f};
      if (f.is_node_port() && node_ports && port.frontend == nullptr) port = {s.get(), &f};
    }
  }
  // A cluster IP's other ports are refused before node ports are looked at.
  const auto owner =
      std::ranges::find_if(state.services, [&](const auto& s) { return has(s->cluster_ips, q.destination); });
  return owner == state.services.end() ? port : Hit{owner->get(), nullptr};
}

Walk walk_model(const Query& q, const Facts& f) {
  const ModelFacts& m = f.model;
  const TrafficOptions& o = m.options;
  Walk w{.id = key_for(q, false)};
  const auto [owner, fe] = find_frontend(q, m.rules_state(), o, f.kernel.addresses);
  if (fe == nullptr) {
    const bool ip = owner != nullptr;
    const bool range = containing(o.service_cidrs, q.destination).has_value();
    w.match = ip ? Match::kClusterIp : range ? Match::kServiceRange : Match::kNone;
    w.fate = ip ? Fate::kReject : range ? Fate::kDrop : Fate::kPass;
    return w;
  }
  w.match = Match::kFrontend;
  w.id = main_side(*fe);
  w.limited = fe->limited;
  if (w.limited) {
    w.range = containing(fe->sources, q.source);
    w.fate = Fate::kDrop;
    if (!w.range) return w;
  }
  const bool pod = from_pod(q, o);
  w.local_lookup = fe->reach == Reach::kExternalLocal && !fe->targets.empty();
  w.kept_local = w.local_lookup && !pod && !from_node(q, f.kernel);
  w.targets = sorted(w.kept_local ? fe->local : fe->targets);
  if (w.targets.empty()) {
    const bool reject = fe->reach == Reach::kExternalLocal ? !w.kept_local : fe->when_empty == WhenEmpty::kReject;
    w.fate = reject ? Fate::kReject : Fate::kDrop;
    w.id.local = w.kept_local;
    return w;
  }
  w.fate = Fate::kEndpoints;
  w.id.local = w.kept_local;
  w.affinity_seconds = fe->affinity_seconds;
  if (fe->reach == Reach::kExternal) {
    w.masquerade = true;
  } else if (!w.kept_local) {
    w.masquerade = o.masquerade_all || (knows_pods(o, fe->family) && !pod) || (w.local_lookup && !pod);
    // Beside IPVS this node's own packets have a Service's address as their source.
    w.masquerade = w.masquerade || (!o.translate && fe->reach == Reach::kInternal && from_node(q, f.kernel));
  }
  if (f.ipvs) use_virtual_service(q, f.ipvs->wanted, w);
  const bool reaches_itself = std::ranges::any_of(w.targets, [&](const Target& t) { return t.addr == q.source; });
  w.hairpin = reaches_itself &&
              std::ranges::any_of(m.state->services, [&](const auto& s) { return has(s->local_addrs, q.source); });
  return w;
}

Walk walk_kernel(const Query& q, const Facts& f) {
  const Found& found = f.kernel.found;
  Walk w;
  const bool vip = look_up(q, f, false, w);
  if (!vip) {
    w = {.id = key_for(q, false)};
    if (found.image.cluster_ips.contains(q.destination)) {
      w.match = Match::kClusterIp;
      w.fate = Fate::kReject;
    } else if (in_ranges(f.kernel, SetRole::kServiceRanges, q.destination)) {
      w.match = Match::kServiceRange;
      w.fate = Fate::kDrop;
    } else if (!kernel_takes_node_ports(q, f) || !look_up(q, f, true, w)) {
      w = {.id = key_for(q, false)};
    }
  }
  if (w.match != Match::kFrontend || w.fate != Fate::kEndpoints) return w;
  if (f.ipvs) {
    use_virtual_service(q, f.ipvs->found, w);
    if (w.damage.empty() && !has(f.kernel.addresses, q.destination))
      w.damage = fmt::format("{} is not on {}", q.destination, kIpvsDevice);
  }
  const bool reaches_itself = std::ranges::any_of(w.targets, [&](const Target& t) { return t.addr == q.source; });
  w.hairpin = reaches_itself && found.image.hairpin.contains(q.source);
  return w;
}

}  // namespace hawser::proxy
