// SPDX-License-Identifier: Apache-2.0
#include "proxyd/switch/switch_backend.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/log.h"
#include "proxyd/switch/clients.h"

namespace hawser::proxy {
namespace {

constexpr int kVerifyTries = 5;

bool needs_ipvs(Step s) {
  return s == Step::kCheckIpvs || s == Step::kFillIpvs || s == Step::kVerifyIpvs;
}

TrafficOptions alone(TrafficOptions o) {
  o.translate = true;
  o.beside_ipvs = false;
  return o;
}

void add_to(SyncReport& sum, SyncReport r) {
  sum.full = sum.full || r.full;
  sum.changes += r.changes;
  sum.frontends = r.frontends;
  sum.flows = sum.flows || r.flows;
  sum.left.insert(sum.left.end(), r.left.begin(), r.left.end());
}

}  // namespace

SwitchBackend::SwitchBackend(SwitchKernel kernel, SwitchOptions options, metrics::Registry& registry, Clock& clock)
    : kernel_(std::move(kernel)),
      options_(std::move(options)),
      clock_(clock),
      table_(kernel_.ipvs.nft, alone(options_.traffic)),
      ipvs_(kernel_.ipvs, options_.traffic, options_.ipvs, clock),
      current_(options_.mode),
      mode_metric_(
          registry.gauge("hawser_proxyd_mode", "1 for the mode that decides about new connections.", {"mode"})),
      switching_metric_(
          registry.gauge("hawser_proxyd_mode_switching", "1 while a switch of modes is not finished.").with()),
      draining_metric_(
          registry.gauge("hawser_proxyd_mode_draining", "Connections that end in the mode of before.").with()),
      switches_metric_(
          registry.counter("hawser_proxyd_mode_switches_total", "Times new connections moved to the other mode.")
              .with()) {
  status_.current = status_.wanted = mode_name(options_.mode);
}

ModeStatus SwitchBackend::status() const {
  std::lock_guard l(mu_);
  return status_;
}

void SwitchBackend::invalidate() {
  kept_.reset();
  table_.invalidate();
  ipvs_.invalidate();
}

Result<SyncReport> SwitchBackend::apply(const DesiredStatePtr& state) {
  const bool audit = state == applied_;
  auto r = !kept_ || (audit && !settled_) ? advance(state) : keep(state);
  if (!r) {
    invalidate();
    return r;
  }
  applied_ = state;
  return r;
}

Result<SwitchFacts> SwitchBackend::read_facts() {
  SwitchFacts f;
  auto table = kernel_.ipvs.nft.read_table(kTableFamily, kTable);
  if (!table) return propagate(table);
  // One that is still being filled does not see packets yet.
  const auto entry = table->chains.find("prerouting");
  f.table = table->exists && !must_rebuild(*table) && entry != table->chains.end() && !entry->second.rules.empty();
  f.decides = ipvs_decides(*table) ? Mode::kIpvs : Mode::kNftables;
  auto present = ipvs_.present();
  if (!present) return propagate(present);
  f.ipvs = *present;
  if (!f.table) return f;
  auto clients = count_clients(kernel_.ipvs.nft);
  // A table of ours that lacks one of its sets has no clients; it is repaired at the next writing.
  f.clients = clients && *clients > 0;
  return f;
}

Result<SyncReport> SwitchBackend::advance(const DesiredStatePtr& state) {
  auto facts = read_facts();
  if (!facts) return propagate(facts);
  const auto steps = plan_switch(options_.mode, *facts);
  note_deciding(!facts->table                   ? (facts->ipvs ? Mode::kIpvs : options_.mode)
                : facts->decides == Mode::kIpvs ? Mode::kIpvs
                                                : Mode::kNftables);
  settled_ = false;
  if (mode_name(options_.mode) != name() && !std::exchange(switching_, true))
    tell("ModeSwitching", fmt::format("from {} to {}", name(), mode_name(options_.mode)));
  SyncReport report;
  for (const Step s : steps) {
    // An audit while IPVS drains begins with the rules it already has.
    if (steps.size() > 2 && kept_ != s) note_step(step_name(s));
    auto more = run(s, state, report);
    if (!more && options_.mode == Mode::kIpvs && needs_ipvs(s) && facts->table && facts->decides == Mode::kNftables)
      return fall_back(state, s, more.error());
    if (!more) return propagate(more, "{}", step_name(s));
    if (!*more) return report;
  }
  note_problem("");
  settled_ = kept_ == Step::kOnlyTable || kept_ == Step::kOnlyIpvs;
  note_step(settled_ ? "" : step_name(*kept_));
  if (settled_ && std::exchange(switching_, false)) tell("ModeDrained", "nothing is left of the mode before");
  return report;
}

Result<SyncReport> SwitchBackend::keep(const DesiredStatePtr& state) {
  return run_rules(*kept_, state);
}

Result<SyncReport> SwitchBackend::fall_back(const DesiredStatePtr& state, Step failed, const Error& why) {
  // Without the device nothing of IPVS is there to stand beside.
  auto present = ipvs_.present();
  const Step stay = present && !*present ? Step::kOnlyTable : Step::kTableDecides;
  note_problem(fmt::format("{}: {}; nftables goes on serving", step_name(failed), why.text));
  return run_rules(stay, state);
}

Result<SyncReport> SwitchBackend::run_rules(Step s, const DesiredStatePtr& state) {
  // What one of them knows of the table, the other may have changed since.
  if (kept_ != s) {
    table_.invalidate();
    ipvs_.invalidate();
  }
  Result<SyncReport> r;
  switch (s) {
    case Step::kOnlyTable:
      r = table_.apply(state);
      break;
    case Step::kTableDecides:
      // The node's addresses are part of these rules.
      if (auto node = ipvs_.read_addresses(); !node) return propagate(node);
      r = ipvs_.apply_beside(state, IpvsBackend::Decides::kTable);
      break;
    case Step::kIpvsDecides:
      if (auto node = ipvs_.read_addresses(); !node) return propagate(node);
      r = ipvs_.apply_beside(state, IpvsBackend::Decides::kIpvs);
      break;
    default:
      ipvs_.keep_clients(s == Step::kIpvsAndClients);
      r = ipvs_.apply(state);
  }
  if (!r) return r;
  kept_ = s;
  note_deciding(s == Step::kOnlyTable || s == Step::kTableDecides ? Mode::kNftables : Mode::kIpvs);
  return r;
}

Result<bool> SwitchBackend::run(Step s, const DesiredStatePtr& state, SyncReport& report) {
  const auto done = [](Result<> r) -> Result<bool> {
    if (!r) return propagate(r);
    return true;
  };
  switch (s) {
    case Step::kCheckIpvs:
      return done(check_kernel(kernel_.ipvs.ipvs));
    case Step::kFillIpvs:
      return done(ipvs_.fill(state));
    case Step::kVerifyIpvs:
    case Step::kVerifyTable:
      return done(verify(s, state));
    case Step::kClients:
      return done(hand_over_clients(*state));
    case Step::kDrain:
      return drained();
    case Step::kRemoveIpvs:
      return done(remove_ipvs());
    case Step::kTableDecides:
    case Step::kIpvsDecides:
    case Step::kOnlyTable:
    case Step::kOnlyIpvs:
    case Step::kIpvsAndClients: {
      auto r = run_rules(s, state);
      if (!r) return propagate(r);
      add_to(report, std::move(*r));
      return true;
    }
  }
  return fail(EINVAL, "no such step");
}

Result<> SwitchBackend::verify(Step s, const DesiredStatePtr& state) {
  for (int i = 0; i < kVerifyTries; ++i) {
    std::size_t lacking = 0;
    if (s == Step::kVerifyIpvs) {
      auto n = ipvs_.lacking(state);
      if (!n) return propagate(n);
      if ((lacking = *n) > 0) {
        if (auto r = ipvs_.fill(state); !r) return r;
      }
    } else {
      ipvs_.invalidate();
      auto r = run_rules(Step::kIpvsDecides, state);
      if (!r) return propagate(r);
      lacking = r->changes;
    }
    if (lacking == 0) return {};
  }
  return fail(EBUSY, "what was written is not there when it is read back: somebody else changes it");
}

Result<> SwitchBackend::hand_over_clients(const DesiredState& state) {
  auto text = kernel_.connections();
  if (!text && is_not_found(text.error())) return {};  // this kernel has no IPVS, so it remembers nobody
  if (!text) return propagate(text, "clients that IPVS remembers");
  auto node = ipvs_.read_addresses();
  if (!node) return propagate(node);
  auto n = remember_clients(kernel_.ipvs.nft, clients_of(parse_connections(*text), state, *node));
  if (!n) return propagate(n);
  if (*n > 0) log::info("{} clients that IPVS remembers stay where they are", *n);
  return {};
}

// A connection that this node opened while Services' addresses were its own has such an address for its source, and
// ends with it.
Result<std::size_t> SwitchBackend::local_flows() {
  auto own = ipvs_.own_addresses();
  if (!own) return propagate(own);
  std::size_t n = 0;
  for (const int family : {AF_INET, AF_INET6}) {
    auto flows = kernel_.conntrack.list(family, IPPROTO_TCP);
    if (!flows) return propagate(flows);
    n += static_cast<std::size_t>(
        std::ranges::count_if(*flows, [&](const auto& f) { return std::ranges::binary_search(*own, f.source.addr); }));
  }
  return n;
}

Result<bool> SwitchBackend::drained() {
  const MonoTime now = clock_.now();
  if (!drain_since_) drain_since_ = now;
  auto left = ipvs_.connections();
  if (!left) return propagate(left);
  auto local = local_flows();
  if (!local) return propagate(local);
  const std::size_t n = *left + *local;
  if (n > 0 && now - *drain_since_ < options_.ipvs.drain_limit) {
    note_draining(n);
    return false;
  }
  if (n > 0) log::warn("{} connections that IPVS has had for too long are ended", n);
  note_draining(0);
  return true;
}

// Conntrack would go on to take packets of what IPVS had at the end for an established connection, and nobody would
// translate them: those flows go too, and start anew with the table.
Result<> SwitchBackend::remove_ipvs() {
  drain_since_.reset();
  auto text = kernel_.connections();
  if (!text && !is_not_found(text.error())) return propagate(text);
  if (auto r = ipvs_.remove(); !r || !text) return r;
  std::set<std::tuple<std::uint8_t, netlink::FlowEnd, netlink::FlowEnd>> had;
  std::set<std::pair<int, std::uint8_t>> kinds;
  for (const auto& c : parse_connections(*text)) {
    if (c.client_port == 0) continue;
    const auto& s = c.service;
    had.emplace(s.protocol, netlink::FlowEnd{c.client, c.client_port}, netlink::FlowEnd{s.address, s.port});
    kinds.emplace(s.address.family(), s.protocol);
  }
  for (const auto& [family, protocol] : kinds) {
    auto flows = kernel_.conntrack.list(family, protocol);
    if (!flows) return propagate(flows);
    for (const auto& f : *flows) {
      if (!had.contains({f.protocol, f.source, f.destination})) continue;
      if (auto r = kernel_.conntrack.remove(f); !r) return r;
    }
  }
  return {};
}

void SwitchBackend::note_step(std::string_view step) {
  switching_metric_.set(step.empty() ? 0 : 1);
  std::lock_guard l(mu_);
  if (status_.step == step) return;
  status_.step = step;
  if (!step.empty()) log::info("mode {}: {}", mode_name(options_.mode), step);
}

void SwitchBackend::note_deciding(Mode m) {
  const Mode before = current_.exchange(m);
  for (const Mode each : {Mode::kNftables, Mode::kIpvs})
    mode_metric_.with({std::string(mode_name(each))}).set(each == m ? 1 : 0);
  {
    std::lock_guard l(mu_);
    status_.current = mode_name(m);
  }
  if (before == m || !kept_) return;
  switches_metric_.add();
  const auto text = fmt::format("new connections are decided by {} from now on", mode_name(m));
  log::info("{}", text);
  tell("ModeSwitched", text);
}

void SwitchBackend::note_problem(std::string text) {
  {
    std::lock_guard l(mu_);
    if (status_.problem == text) return;
    status_.problem = text;
  }
  if (text.empty()) return;
  log::error("mode {} cannot be had: {}", mode_name(options_.mode), text);
  tell("ModeSwitchFailed", text, true);
}

void SwitchBackend::note_draining(std::size_t connections) {
  draining_metric_.set(static_cast<double>(connections));
  std::lock_guard l(mu_);
  status_.draining = connections;
}

void SwitchBackend::tell(const char* reason, const std::string& message, bool warning) {
  if (options_.on_event) options_.on_event(reason, message, warning);
}

}  // namespace hawser::proxy
