// SPDX-License-Identifier: Apache-2.0
// Pool: who holds which address of one range. The caller holds the network's lock for the life of the object.
//
// Theory of operation. Taking an address writes tag, record, cursor, in this order; giving it back writes record, tag.
// A kill between two writes therefore leaves at worst a tag without a held record: the address is not given out,
// verify() (run when the range looks full, and by GC) finds it, and no address is ever given out twice. The search
// starts after the address given out last and wraps, so a freed address rests as long as the range allows; one freed
// less than `quarantine` ago is taken only when nothing else is left.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "cni-plugin/ipam/range.h"
#include "cni-plugin/ipam/record.h"
#include "lib/base/clock.h"

namespace hawser::cni::ipam {

// The bytes of a pool. Real: a file (store.cc). Tests: memory, with failures.
class PoolFile {
 public:
  virtual ~PoolFile() = default;
  virtual Result<> read(std::uint64_t offset, std::span<std::uint8_t> into) = 0;
  virtual Result<> write(std::uint64_t offset, std::span<const std::uint8_t> from) = 0;
};

inline constexpr Nanos kQuarantine = std::chrono::seconds(30);

struct Held {
  IpAddr address;
  Owner owner;
  MonoTime since;
  bool imported = false;  // host-local's reservation of it still stands
};

class Pool {
 public:
  // Bytes of a pool file of `slots`.
  [[nodiscard]] static std::uint64_t file_bytes(std::uint32_t slots);
  // Writes the header of a new, zeroed file.
  static Result<> format(PoolFile& file, std::uint32_t slots, std::string_view boot_id);
  // ESTALE: another layout, or the records are of another boot; the file must be made anew.
  static Result<Pool> open(std::unique_ptr<PoolFile> file, const Range& range, std::string_view boot_id);

  // ENOSPC: every address is held.
  Result<IpAddr> take(const Owner& owner, MonoTime now);
  // That very address. EADDRINUSE: held; EINVAL: the gateway, excluded, or past the pool's end.
  Result<IpAddr> take_requested(const Owner& owner, const IpAddr& address, MonoTime now);
  // That very address as another plugin gave it out, excluded or not; no error if the owner has it already. EADDRINUSE,
  // EINVAL as above.
  Result<> adopt(const Owner& owner, const IpAddr& address, MonoTime now);
  // The search goes on after that address.
  Result<> continue_after(const IpAddr& address);
  // Every address of that owner; an empty list is no error.
  Result<std::vector<IpAddr>> give_back(const Owner& owner, MonoTime now);
  [[nodiscard]] Result<std::vector<IpAddr>> held_by(const Owner& owner);
  [[nodiscard]] Result<std::vector<Held>> list();
  // Clears the tags that have no held record; how many.
  Result<int> verify();

 private:
  Pool(std::unique_ptr<PoolFile> file, const Range& range, PoolHeader header, std::vector<std::uint32_t> tags)
      : file_(std::move(file)), range_(range), header_(header), tags_(std::move(tags)) {}
  Result<std::optional<std::uint32_t>> choose(MonoTime now);
  Result<> hold(std::uint32_t slot, const Owner& owner, MonoTime now);
  Result<std::uint32_t> managed_slot(const IpAddr& address) const;
  Result<Record> read_record(std::uint32_t slot);
  Result<> write_record(std::uint32_t slot, const Record& r);
  Result<> write_tag(std::uint32_t slot, std::uint32_t tag);
  Result<std::vector<std::uint32_t>> slots_of(const Owner& owner);
  [[nodiscard]] bool usable(std::uint32_t slot) const { return range_.gives(range_.at(slot)); }

  std::unique_ptr<PoolFile> file_;
  Range range_;
  PoolHeader header_;
  std::vector<std::uint32_t> tags_;  // of the slots that may have one; none past its end has
};

}  // namespace hawser::cni::ipam
