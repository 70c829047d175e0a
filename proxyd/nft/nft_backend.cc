// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/nft_backend.h"

#include <algorithm>
#include <utility>

#include <netinet/in.h>

#include "lib/base/log.h"

namespace hawser::proxy {
namespace {

constexpr int kFamilies[] = {AF_INET, AF_INET6};
constexpr int kForgetTries = 5;
constexpr std::size_t kKeepUnusedChains = 64;
// The kernel holds 8 KiB for each element of a transaction until it is over, if anybody on the machine listens for
// changes: a load of 50,000 Services of 5 endpoints took 2.5 GiB for a moment. Each Service still changes at once.
constexpr std::size_t kMaxElements = 8192, kMaxSides = 2048;

bool contains(const std::vector<Target>& list, const Target& t) {
  return std::ranges::find(list, t) != list.end();
}

// True if `have` sent clients of an affinity frontend to a target that `want` no longer has.
bool loses_clients(const Side& have, const Side* want) {
  if (!have.remember) return false;
  if (want == nullptr || !want->remember) return true;
  return std::ranges::any_of(have.slots, [&](const Target& t) { return !contains(want->slots, t); });
}

}  // namespace

Result<SyncReport> NftBackend::apply(const DesiredStatePtr& state) {
  if (image_ && applied_ == state) return SyncReport{.frontends = image_->sides.size()};
  if (image_) {
    auto r = apply_changes(*state);
    if (!r) {
      // What the table holds is not what was thought; the caller tries again soon and then reads it.
      invalidate();
      return propagate(r);
    }
    if (*r) {
      applied_ = state;
      return **r;
    }
  }
  auto r = apply_full(*state);
  if (r) applied_ = state;
  if (!r) invalidate();
  return r;
}

Result<std::optional<SyncReport>> NftBackend::apply_changes(const DesiredState& state) {
  Wants w;
  if (!changed_wants(*applied_, state, *image_, contested_, w)) return std::nullopt;
  SyncReport report;
  bool stale_clients = false;
  for (const auto& [id, wanted] : w.sides) {
    report.flows = report.flows || flows_are_removed(id.protocol);
    const auto have = image_->sides.find(id);
    if (have == image_->sides.end()) continue;
    stale_clients = stale_clients || loses_clients(have->second, wanted ? &wanted->side : nullptr);
  }
  for (const Wants& part : parts(std::move(w), kMaxSides)) {
    Steps steps;
    plan_changes(part, *image_, options_, kKeepUnusedChains, steps);
    report.changes += steps.prepare.size() + steps.main.size();
    if (auto r = apply_steps(std::move(steps)); !r) return propagate(r);
  }
  image_->left.clear();  // the reconciler knows what it saw go
  report.frontends = image_->sides.size();
  if (stale_clients) {
    if (auto r = forget_stale_clients(); !r) return propagate(r);
  }
  return report;
}

Result<SyncReport> NftBackend::apply_full(const DesiredState& state) {
  auto found = read_back(nft_);
  if (!found) return propagate(found);
  const bool existed = found->table.exists;
  const bool read_back = !image_;  // else only contested keys made this a full comparison
  SyncReport report{.full = true, .flows = true};
  const Wants wants = all_wants(state);
  Steps steps = plan_full(*found, wants, options_);
  report.changes = steps.prepare.size() + steps.main.size();
  if (auto r = apply_steps(std::move(steps)); !r) return propagate(r);
  if (existed && read_back && report.changes > 0)
    log::info("nft: the table differed from what is wanted; {} changes written", report.changes);
  image_ = std::move(found->image);
  for (const SideId& id : std::exchange(image_->left, {})) report.left.push_back(frontend_key_of(id));
  const auto known = std::exchange(contested_, wants.contested);
  for (const SideId& id : contested_) {
    if (std::ranges::find(known, id) != known.end()) continue;  // said before
    log::warn("nft: several Services claim {} port {}; the first by name has it",
              id.node_port() ? "node" : id.addr.text(), id.port);
  }
  report.frontends = image_->sides.size();
  if (auto r = forget_stale_clients(); !r) return propagate(r);
  return report;
}

Result<> NftBackend::apply_steps(Steps steps) {
  std::vector<nft::Transaction> before;
  if (steps.unseen)
    before = std::move(steps.prepare).parts(kMaxElements);
  else
    before.push_back(std::move(steps.prepare));
  for (const auto& t : before) {
    if (auto r = nft_.apply(t); !r) return r;
  }
  return nft_.apply(steps.main);
}

Result<Found> read_back(nft::NftRunner& runner) {
  Found f;
  auto table = runner.read_table(kTableFamily, kTable);
  if (!table) return propagate(table);
  f.table = std::move(*table);
  if (must_rebuild(f.table)) return f;
  for (const int family : kFamilies) {
    for (const SetRole role : all_roles()) {
      if (role == SetRole::kAffinity || role == SetRole::kNodePortAffinity) continue;
      const nft::Set set = set_spec(role, family);
      if (!f.table.sets.contains(set.name)) continue;
      std::vector<nft::Element> elements;
      auto r = runner.read_elements(
          kTableFamily, kTable, set, [&](const nft::Element& e) { elements.push_back(e); }, [&] { elements.clear(); });
      if (!r) return propagate(r);
      for (const auto& e : elements) note_element(role, family, e, f);
    }
  }
  return f;
}

// Clients remembered for a target that is gone would be sent there until their time is over.
Result<> NftBackend::forget_stale_clients() {
  for (const int family : kFamilies) {
    for (const SetRole role : {SetRole::kAffinity, SetRole::kNodePortAffinity}) {
      Result<std::size_t> r;
      // An entry may end by itself between reading and deleting, which fails the whole transaction: again, from a new
      // reading.
      for (int i = 0; i < kForgetTries; ++i) {
        r = delete_stale_clients(role, family);
        if (r || !is_not_found(r.error())) break;
      }
      if (!r) return propagate(r, "forget clients of removed endpoints");
    }
  }
  return {};
}

Result<std::size_t> NftBackend::delete_stale_clients(SetRole role, int family) {
  const bool node_port = role == SetRole::kNodePortAffinity;
  const std::size_t client_bytes = family == AF_INET ? 4 : 16;
  SideId like{.v6 = family == AF_INET6};
  if (!node_port) like.addr = family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(std::array<std::uint8_t, 16>{});
  const auto stale = [&](const nft::Element& e) {
    const auto* data = std::get_if<nft::Bytes>(&e.data);
    if (data == nullptr || e.key.size() < client_bytes) return true;
    const auto k = parts_of(nft::Bytes(e.key.sub(client_bytes, e.key.size() - client_bytes)), like, KeyTail::kNone);
    const auto target = target_of(*data, family);
    if (!k || !target) return true;
    SideId id = k->id;
    for (const bool local : {false, true}) {
      id.local = local;
      const auto it = image_->sides.find(id);
      if (!local && (it == image_->sides.end() || !it->second.remember)) return true;
      if (it != image_->sides.end() && contains(it->second.slots, *target)) return false;
    }
    return true;
  };
  std::vector<nft::Bytes> gone;
  auto r = nft_.read_elements(
      kTableFamily, kTable, set_spec(role, family),
      [&](const nft::Element& e) {
        if (stale(e)) gone.push_back(e.key);
      },
      [&] { gone.clear(); });
  if (!r) return propagate(r);
  nft::Transaction t(kTableFamily, kTable);
  for (const auto& key : gone) t.delete_element(set_name(role, family), key);
  if (auto done = nft_.apply(t); !done) return propagate(done);
  return gone.size();
}

Result<> NftBackend::cleanup() {
  invalidate();
  auto table = nft_.read_table(kTableFamily, kTable);
  if (!table) return propagate(table);
  if (!table->exists) return {};
  nft::Transaction t(kTableFamily, kTable);
  t.delete_table();
  return nft_.apply(t);
}

}  // namespace hawser::proxy
