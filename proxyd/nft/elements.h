// SPDX-License-Identifier: Apache-2.0
// Frontends as elements of the table: what its maps hold, or should hold, for one look-up key. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/nft/object.h"
#include "proxyd/model/desired_state.h"
#include "proxyd/nft/layout.h"

namespace hawser::proxy {

// A look-up key. `local`: in the maps that only externalTrafficPolicy Local uses.
struct SideId {
  IpAddr addr;  // invalid: node port
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  bool v6 = false;
  bool local = false;
  [[nodiscard]] bool node_port() const { return !addr; }
  [[nodiscard]] int family() const;
  auto operator<=>(const SideId&) const = default;
};

// What the maps hold for a key.
struct Side {
  std::optional<nft::Verdict> verdict;   // none: no element
  std::optional<nft::Verdict> remember;  // of the affinity map
  std::vector<Target> slots;             // a target without address: no element for that slot
  bool limited = false;                  // to `sources`, sorted
  std::vector<Cidr> sources;
  bool operator==(const Side&) const = default;
};

struct WantedSide {
  Side side;  // slots: the targets, sorted
  std::optional<PickChain> pick;
  std::optional<RememberChain> remember;
};
// The one or two sides of a frontend.
[[nodiscard]] std::vector<std::pair<SideId, WantedSide>> sides_of(const Frontend& f);
[[nodiscard]] SideId main_side(const Frontend& f);

// Puts the wanted targets into slots so that few elements change: those that stay keep their slot.
[[nodiscard]] std::vector<Target> assign_slots(const std::vector<Target>& have, const std::vector<Target>& want);

[[nodiscard]] nft::Bytes key_of(const SideId& id);
[[nodiscard]] nft::Bytes slot_key(const SideId& id, std::uint32_t slot);
[[nodiscard]] nft::Bytes bytes_of(const Target& t);
[[nodiscard]] nft::Element hairpin_element(const IpAddr& a);
[[nodiscard]] nft::Element left_element(const SideId& id);
[[nodiscard]] std::optional<SideId> left_of(const nft::Element& e, int family);
[[nodiscard]] FrontendKey frontend_key_of(const SideId& id);
[[nodiscard]] nft::Element source_element(const SideId& id, const Cidr& range);
// The maps that hold a side's verdict, slots and affinity time.
[[nodiscard]] std::string verdict_map(const SideId& id);
[[nodiscard]] std::string slot_map(const SideId& id);
[[nodiscard]] std::string remember_map(const SideId& id);

// The inverse, for reading back. Nothing: no key or target that this program writes.
[[nodiscard]] std::optional<Cidr> source_of(const nft::Element& e, const SideId& id);
[[nodiscard]] std::optional<Target> target_of(const nft::Bytes& b, int family);
struct KeyParts {
  SideId id;
  std::uint32_t slot = 0;
};
enum class KeyTail : std::uint8_t { kNone, kSlot };
[[nodiscard]] std::optional<KeyParts> parts_of(const nft::Bytes& key, const SideId& like, KeyTail tail);

}  // namespace hawser::proxy

template <>
struct std::hash<hawser::proxy::SideId> {
  std::size_t operator()(const hawser::proxy::SideId& id) const noexcept;
};
