// SPDX-License-Identifier: Apache-2.0
// The on-disk form of an address pool: one header, one tag per address, one record per address. Version 1, host byte
// order (the file never leaves the machine). The record is the truth; a tag only says which records are worth reading.
//
//   0      PoolHeader
//   4096   uint32 tags[slots]     0: not held; else a hash of the owner
//   ...    Record records[slots]  page aligned; 256 bytes each, so none crosses a page and each is written by one
//   pwrite()
//
// Invariant at every instant, a kill between any two writes included: a held record has a non-zero tag. So an address
// whose tag is 0 is free without looking further. The opposite state, a tag without a held record, wastes the address
// until verify() runs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace hawser::cni::ipam {

inline constexpr std::size_t kMaxContainerBytes = 200;
inline constexpr std::uint32_t kMaxSlots = 65536;
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::uint64_t kPoolMagic = 0x6c6f6f7052535748;  // "HWSRpool"
inline constexpr std::uint32_t kPoolVersion = 1;

struct PoolHeader {
  std::uint64_t magic = kPoolMagic;
  std::uint32_t version = kPoolVersion;
  std::uint32_t slots = 0;
  std::uint32_t cursor = 0;  // the slot given out last
  std::uint32_t tagged = 0;  // slots from here on have never had a tag; 0: not known (written before this field was)
  std::array<char, 40> boot_id{};  // the boot whose pods these records are of
};
static_assert(sizeof(PoolHeader) == 64 && std::is_trivially_copyable_v<PoolHeader>);

enum class State : std::uint8_t { kNever = 0, kHeld = 1, kFreed = 2 };

struct Record {
  State state = State::kNever;
  std::uint8_t container_bytes = 0;
  std::uint8_t ifname_bytes = 0;
  std::array<std::uint8_t, 5> reserved{};
  std::int64_t time_ns = 0;  // of the last change, on the monotonic clock
  std::array<char, kMaxContainerBytes> container{};
  std::array<char, 40> ifname{};
};
static_assert(sizeof(Record) == 256 && std::is_trivially_copyable_v<Record>);

// Who holds an address: one interface of one container.
struct Owner {
  std::string container;
  std::string ifname;
  auto operator<=>(const Owner&) const = default;
};

// FNV-1a over both names; 64 bits. Also the source of host link names.
[[nodiscard]] constexpr std::uint64_t hash_text(std::string_view s, std::uint64_t h = 0xcbf29ce484222325) {
  for (unsigned char c : s) h = (h ^ c) * 0x100000001b3;
  return h;
}
[[nodiscard]] inline std::uint64_t hash_owner(const Owner& o) {
  // The separator cannot be part of a container id, so no two owners give one text.
  return hash_text(o.ifname, hash_text("/", hash_text(o.container)));
}

}  // namespace hawser::cni::ipam
