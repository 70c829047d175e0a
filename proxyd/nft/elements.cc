// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/elements.h"

#include <algorithm>
#include <cstring>

#include <sys/socket.h>

namespace hawser::proxy {
namespace {

nft::Verdict jump(std::string chain) {
  return {nft::Verdict::Kind::kJump, std::move(chain)};
}

nft::Verdict empty_verdict(WhenEmpty w) {
  if (w == WhenEmpty::kDrop) return {nft::Verdict::Kind::kDrop, {}};
  return jump(kRejectChain);
}

void fill(WantedSide& w, PickChain pick, const std::vector<Target>& targets) {
  pick.count = static_cast<std::uint32_t>(targets.size());
  w.side.verdict = jump(chain_name(pick));
  w.side.slots = targets;
  w.pick = pick;
}

std::uint16_t be16_at(const nft::Bytes& b, std::size_t at) {
  return static_cast<std::uint16_t>((b.view()[at] << 8) | b.view()[at + 1]);
}

IpAddr any_address(int family) {
  return family == AF_INET ? IpAddr::v4(0) : IpAddr::v6(std::array<std::uint8_t, 16>{});
}

std::size_t addr_bytes(int family) {
  return family == AF_INET ? 4 : 16;
}

}  // namespace

int SideId::family() const {
  return v6 ? AF_INET6 : AF_INET;
}

SideId main_side(const Frontend& f) {
  return {.addr = f.addr, .protocol = f.protocol, .port = f.port, .v6 = f.family == AF_INET6, .local = false};
}

std::vector<std::pair<SideId, WantedSide>> sides_of(const Frontend& f) {
  std::vector<std::pair<SideId, WantedSide>> r;
  SideId id = main_side(f);
  // Pods and this node reach a Local frontend as if it were a cluster IP, their source kept or masqueraded alike.
  PickChain pick{.family = f.family,
                 .node_port = f.is_node_port(),
                 .reach = f.reach == Reach::kExternal ? PickReach::kExternal : PickReach::kInternal,
                 .affinity_seconds = f.affinity_seconds};
  WantedSide w;
  if (f.targets.empty()) {
    w.side.verdict = empty_verdict(f.reach == Reach::kExternalLocal ? WhenEmpty::kReject : f.when_empty);
  } else {
    fill(w, pick, f.targets);
    if (f.affinity_seconds != 0) {
      w.remember = RememberChain{.family = f.family, .node_port = f.is_node_port(), .seconds = f.affinity_seconds};
      // goto: one of the two affinity maps knows the connection, not both.
      w.side.remember = nft::Verdict{nft::Verdict::Kind::kGoto, chain_name(*w.remember)};
    }
  }
  w.side.limited = f.limited;
  w.side.sources = f.sources;
  r.emplace_back(id, std::move(w));
  if (f.reach != Reach::kExternalLocal || f.targets.empty()) return r;
  id.local = true;
  pick.reach = PickReach::kLocal;
  WantedSide local;
  if (f.local.empty()) pick.affinity_seconds = 0;
  fill(local, pick, f.local);
  r.emplace_back(id, std::move(local));
  return r;
}

std::vector<Target> assign_slots(const std::vector<Target>& have, const std::vector<Target>& want) {
  std::vector<Target> slots(want.size());
  std::vector<Target> rest;
  rest.reserve(want.size());
  auto from = have.begin();
  for (std::size_t n = 0; n < want.size(); ++n) {
    const Target& t = want[n];
    // Doubles of a weighted target stand together: the next one has a later slot.
    if (n == 0 || want[n - 1] != t) from = have.begin();
    const auto at = std::find(from, have.end(), t);
    const auto i = static_cast<std::size_t>(at - have.begin());
    if (at != have.end() && i < slots.size()) {
      slots[i] = t;
      from = at + 1;
    } else {
      rest.push_back(t);
      from = have.end();
    }
  }
  auto next = rest.begin();
  for (Target& s : slots) {
    if (!s.addr) s = *next++;
  }
  return slots;
}

nft::Bytes key_of(const SideId& id) {
  nft::Bytes b;
  if (!id.node_port()) b.field(nft::Bytes::ip(id.addr));
  b.field(nft::Bytes::u8(id.protocol)).field(nft::Bytes::be16(id.port));
  return b;
}

nft::Bytes slot_key(const SideId& id, std::uint32_t slot) {
  return key_of(id).field(nft::Bytes::host32(slot));
}

nft::Bytes bytes_of(const Target& t) {
  nft::Bytes b;
  b.field(nft::Bytes::ip(t.addr)).field(nft::Bytes::be16(t.port));
  return b;
}

nft::Element hairpin_element(const IpAddr& a) {
  nft::Element e;
  e.key.field(nft::Bytes::ip(a)).field(nft::Bytes::ip(a));
  return e;
}

nft::Element left_element(const SideId& id) {
  SideId there = id;
  if (id.node_port()) there.addr = any_address(id.family());
  return {.key = key_of(there), .timeout_ms = kLeftMs};
}

std::optional<SideId> left_of(const nft::Element& e, int family) {
  SideId like{.addr = any_address(family), .v6 = family == AF_INET6};
  auto k = parts_of(e.key, like, KeyTail::kNone);
  if (!k || key_of(k->id) != e.key) return std::nullopt;
  if (k->id.addr == any_address(family)) k->id.addr = IpAddr();
  return k->id;
}

FrontendKey frontend_key_of(const SideId& id) {
  return {id.protocol, id.addr, id.family(), id.port};
}

nft::Element source_element(const SideId& id, const Cidr& range) {
  nft::Bytes first = key_of(id), last = first;
  first.field(nft::Bytes::ip(range.network().addr()));
  last.field(nft::Bytes::ip(range.last()));
  return {.key = first, .data = nft::RangeEnd{last}};
}

std::optional<Cidr> source_of(const nft::Element& e, const SideId& id) {
  const auto* end = std::get_if<nft::RangeEnd>(&e.data);
  const std::size_t n = addr_bytes(id.family()), at = key_of(id).padded().size();
  if (end == nullptr || e.key.size() < at + n || end->key.size() < at + n) return std::nullopt;
  const auto first = IpAddr::from_bytes(e.key.sub(at, n)), last = IpAddr::from_bytes(end->key.sub(at, n));
  if (!first || !last) return std::nullopt;
  for (int prefix = 0; prefix <= first->bits(); ++prefix) {
    const Cidr c(*first, prefix);
    if (c.network() == c && c.last() == *last && source_element(id, c) == e) return c;
  }
  return std::nullopt;
}

std::string verdict_map(const SideId& id) {
  if (id.node_port()) return set_name(id.local ? SetRole::kLocalNodePorts : SetRole::kNodePorts, id.family());
  return set_name(id.local ? SetRole::kLocalServices : SetRole::kServices, id.family());
}

std::string slot_map(const SideId& id) {
  if (id.node_port())
    return set_name(id.local ? SetRole::kLocalNodePortEndpoints : SetRole::kNodePortEndpoints, id.family());
  return set_name(id.local ? SetRole::kLocalEndpoints : SetRole::kEndpoints, id.family());
}

std::string remember_map(const SideId& id) {
  return set_name(id.node_port() ? SetRole::kAffinityNodePorts : SetRole::kAffinityServices, id.family());
}

std::optional<Target> target_of(const nft::Bytes& b, int family) {
  const std::size_t n = addr_bytes(family);
  if (b.size() < n + 2) return std::nullopt;
  auto a = IpAddr::from_bytes(b.sub(0, n));
  if (!a) return std::nullopt;
  return Target{*a, be16_at(b, n)};
}

std::optional<KeyParts> parts_of(const nft::Bytes& key, const SideId& like, KeyTail tail) {
  KeyParts r{.id = like};
  std::size_t at = 0;
  const std::size_t n = like.node_port() ? 0 : addr_bytes(like.family());
  if (key.size() < n + (tail == KeyTail::kSlot ? 12 : 8)) return std::nullopt;
  if (n != 0) {
    auto a = IpAddr::from_bytes(key.sub(0, n));
    if (!a) return std::nullopt;
    r.id.addr = *a;
    at = n;
  }
  r.id.protocol = key.view()[at];
  r.id.port = be16_at(key, at + 4);
  if (tail == KeyTail::kSlot) std::memcpy(&r.slot, key.view().data() + at + 8, sizeof r.slot);
  return r;
}

}  // namespace hawser::proxy

std::size_t std::hash<hawser::proxy::SideId>::operator()(const hawser::proxy::SideId& id) const noexcept {
  const auto bytes = id.addr.bytes();
  const std::size_t h =
      std::hash<std::string_view>{}({reinterpret_cast<const char*>(bytes.data()), id.node_port() ? 0 : bytes.size()});
  const std::size_t rest =
      (std::size_t{id.protocol} << 24) | (std::size_t{id.port} << 8) | (id.v6 ? 2u : 0u) | (id.local ? 1u : 0u);
  return h ^ (rest * 0x9e3779b97f4a7c15ull);
}
