// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/ipam/pool.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace hawser::cni::ipam {
namespace {

std::uint64_t records_offset(std::uint32_t slots) {
  std::uint64_t tags_end = kPageBytes + std::uint64_t{slots} * sizeof(std::uint32_t);
  return (tags_end + kPageBytes - 1) / kPageBytes * kPageBytes;
}
std::uint64_t record_offset(std::uint32_t slots, std::uint32_t slot) {
  return records_offset(slots) + std::uint64_t{slot} * sizeof(Record);
}
template <class T>
std::span<const std::uint8_t> bytes_of(const T& v) {
  return {reinterpret_cast<const std::uint8_t*>(&v), sizeof v};
}
template <class T>
std::span<std::uint8_t> bytes_into(T& v) {
  return {reinterpret_cast<std::uint8_t*>(&v), sizeof v};
}

std::uint32_t tag_of(const Owner& o) {
  auto h = static_cast<std::uint32_t>(hash_owner(o));
  return h == 0 ? 1 : h;  // 0 means "not held"
}
Owner owner_of(const Record& r) {
  return {std::string(r.container.data(), std::min<std::size_t>(r.container_bytes, r.container.size())),
          std::string(r.ifname.data(), std::min<std::size_t>(r.ifname_bytes, r.ifname.size()))};
}
std::array<char, 40> boot_field(std::string_view boot_id) {
  std::array<char, 40> f{};
  std::memcpy(f.data(), boot_id.data(), std::min(boot_id.size(), f.size()));
  return f;
}

}  // namespace

std::uint64_t Pool::file_bytes(std::uint32_t slots) {
  return record_offset(slots, slots);
}

Result<> Pool::format(PoolFile& file, std::uint32_t slots, std::string_view boot_id) {
  PoolHeader h;
  h.slots = slots;
  h.cursor = slots - 1;  // the search starts after it: at slot 0
  h.tagged = 1;          // the least that says it is known
  h.boot_id = boot_field(boot_id);
  return file.write(0, bytes_of(h));
}

Result<Pool> Pool::open(std::unique_ptr<PoolFile> file, const Range& range, std::string_view boot_id) {
  PoolHeader h;
  if (auto r = file->read(0, bytes_into(h)); !r) return propagate(r);
  if (h.magic != kPoolMagic || h.version != kPoolVersion || h.slots != range.slots() ||
      h.boot_id != boot_field(boot_id))
    return fail(ESTALE, "pool {}: of another boot or layout", range.file_name());
  // A /64's tags are 256 KiB; few of them have ever been used.
  std::vector<std::uint32_t> tags(h.tagged == 0 ? h.slots : std::min(h.tagged, h.slots));
  auto r = file->read(kPageBytes, {reinterpret_cast<std::uint8_t*>(tags.data()), tags.size() * sizeof(std::uint32_t)});
  if (!r) return propagate(r);
  return Pool(std::move(file), range, h, std::move(tags));
}

Result<Record> Pool::read_record(std::uint32_t slot) {
  Record rec;
  if (auto r = file_->read(record_offset(header_.slots, slot), bytes_into(rec)); !r) return propagate(r);
  return rec;
}
Result<> Pool::write_record(std::uint32_t slot, const Record& rec) {
  return file_->write(record_offset(header_.slots, slot), bytes_of(rec));
}
Result<> Pool::write_tag(std::uint32_t slot, std::uint32_t tag) {
  auto r = file_->write(kPageBytes + std::uint64_t{slot} * sizeof tag, bytes_of(tag));
  if (!r) return r;
  if (slot >= tags_.size()) tags_.resize(slot + 1);
  tags_[slot] = tag;
  return r;
}

Result<> Pool::hold(std::uint32_t slot, const Owner& owner, MonoTime now) {
  Record rec;
  if (owner.container.size() > rec.container.size() || owner.ifname.size() > rec.ifname.size())
    return fail(EINVAL, "container {}: the name is too long", owner.container);
  rec.state = State::kHeld;
  rec.container_bytes = static_cast<std::uint8_t>(owner.container.size());
  rec.ifname_bytes = static_cast<std::uint8_t>(owner.ifname.size());
  rec.time_ns = now.time_since_epoch().count();
  std::ranges::copy(owner.container, rec.container.begin());
  std::ranges::copy(owner.ifname, rec.ifname.begin());
  // The cursor first: a writer killed after it has wasted a slot for the quarantine, one killed before it would make
  // each later search walk over the slots of all that were.
  header_.cursor = slot;
  // A tag past the bound would not be seen again, so the bound goes with it, before the tag.
  if (header_.tagged != 0) header_.tagged = std::max(header_.tagged, slot + 1);
  if (auto r = file_->write(0, bytes_of(header_)); !r) return r;
  if (auto r = write_tag(slot, tag_of(owner)); !r) return r;
  return write_record(slot, rec);
}

Result<std::optional<std::uint32_t>> Pool::choose(MonoTime now) {
  std::optional<std::uint32_t> resting;
  std::int64_t resting_since = 0;
  std::array<Record, kPageBytes / sizeof(Record)> page;
  std::uint32_t page_first = 0;
  std::uint32_t page_records = 0;
  for (std::uint32_t i = 1; i <= header_.slots; i++) {
    const std::uint32_t slot = (header_.cursor + i) % header_.slots;
    if ((slot < tags_.size() && tags_[slot] != 0) || !usable(slot)) continue;
    if (slot < page_first || slot >= page_first + page_records) {
      page_first = slot;
      page_records = std::min<std::uint32_t>(page.size(), header_.slots - slot);
      const auto into = std::as_writable_bytes(std::span(page).first(page_records));
      if (auto r = file_->read(record_offset(header_.slots, slot),
                               {reinterpret_cast<std::uint8_t*>(into.data()), into.size()});
          !r)
        return propagate(r);
    }
    const Record& rec = page[slot - page_first];
    if (rec.state != State::kFreed || now.time_since_epoch().count() - rec.time_ns >= kQuarantine.count()) return slot;
    if (!resting || rec.time_ns < resting_since) {
      resting = slot;
      resting_since = rec.time_ns;
    }
  }
  return resting;
}

Result<IpAddr> Pool::take(const Owner& owner, MonoTime now) {
  auto slot = choose(now);
  if (!slot) return propagate(slot);
  if (!*slot) {
    // Full, or full of tags that a killed writer left behind.
    auto cleared = verify();
    if (!cleared) return propagate(cleared);
    slot = choose(now);
    if (!slot) return propagate(slot);
  }
  if (!*slot) return fail(ENOSPC, "no free address in {}: all {} are held", range_.file_name(), header_.slots);
  if (auto r = hold(**slot, owner, now); !r) return propagate(r);
  return range_.at(**slot);
}

Result<IpAddr> Pool::take_requested(const Owner& owner, const IpAddr& address, MonoTime now) {
  if (address == range_.gateway) return fail(EINVAL, "requested address {}: is the gateway", address);
  if (!range_.gives(address)) return fail(EINVAL, "requested address {}: is excluded", address);
  auto slot = managed_slot(address);
  if (!slot) return propagate(slot, "requested address {}", address);
  auto rec = read_record(*slot);
  if (!rec) return propagate(rec);
  if (rec->state == State::kHeld)
    return fail(EADDRINUSE, "requested address {}: held by container {}", address, owner_of(*rec).container);
  if (auto r = hold(*slot, owner, now); !r) return propagate(r);
  return address;
}

Result<std::uint32_t> Pool::managed_slot(const IpAddr& address) const {
  auto slot = range_.slot_of(address);
  if (!range_.contains(address) || slot >= header_.slots)
    return fail(EINVAL, "past the {} addresses managed", header_.slots);
  return static_cast<std::uint32_t>(slot);
}

Result<> Pool::adopt(const Owner& owner, const IpAddr& address, MonoTime now) {
  auto slot = managed_slot(address);
  if (!slot) return propagate(slot, "{}", address);
  auto rec = read_record(*slot);
  if (!rec) return propagate(rec);
  if (rec->state != State::kHeld) return hold(*slot, owner, now);
  if (owner_of(*rec) == owner) return {};
  return fail(EADDRINUSE, "{}: held by container {}", address, owner_of(*rec).container);
}

Result<> Pool::continue_after(const IpAddr& address) {
  auto slot = managed_slot(address);
  if (!slot) return propagate(slot, "{}", address);
  header_.cursor = *slot;
  return file_->write(0, bytes_of(header_));
}

Result<std::vector<std::uint32_t>> Pool::slots_of(const Owner& owner) {
  std::vector<std::uint32_t> slots;
  const std::uint32_t tag = tag_of(owner);
  for (std::uint32_t s = 0; s < tags_.size(); s++) {
    if (tags_[s] != tag) continue;
    auto rec = read_record(s);
    if (!rec) return propagate(rec);
    if (rec->state == State::kHeld && owner_of(*rec) == owner) slots.push_back(s);
  }
  return slots;
}

Result<std::vector<IpAddr>> Pool::give_back(const Owner& owner, MonoTime now) {
  auto slots = slots_of(owner);
  if (!slots) return propagate(slots);
  std::vector<IpAddr> freed;
  for (std::uint32_t s : *slots) {
    Record rec;
    rec.state = State::kFreed;
    rec.time_ns = now.time_since_epoch().count();
    if (auto r = write_record(s, rec); !r) return propagate(r);
    if (auto r = write_tag(s, 0); !r) return propagate(r);
    freed.push_back(range_.at(s));
  }
  return freed;
}

Result<std::vector<IpAddr>> Pool::held_by(const Owner& owner) {
  auto slots = slots_of(owner);
  if (!slots) return propagate(slots);
  std::vector<IpAddr> out;
  for (std::uint32_t s : *slots) out.push_back(range_.at(s));
  return out;
}

Result<std::vector<Held>> Pool::list() {
  std::vector<Held> out;
  for (std::uint32_t s = 0; s < tags_.size(); s++) {
    if (tags_[s] == 0) continue;
    auto rec = read_record(s);
    if (!rec) return propagate(rec);
    if (rec->state == State::kHeld) out.push_back({range_.at(s), owner_of(*rec), MonoTime(Nanos(rec->time_ns))});
  }
  return out;
}

Result<int> Pool::verify() {
  int cleared = 0;
  for (std::uint32_t s = 0; s < tags_.size(); s++) {
    if (tags_[s] == 0) continue;
    auto rec = read_record(s);
    if (!rec) return propagate(rec);
    if (rec->state == State::kHeld) continue;
    if (auto r = write_tag(s, 0); !r) return propagate(r);
    cleared++;
  }
  return cleared;
}

}  // namespace hawser::cni::ipam
