// SPDX-License-Identifier: Apache-2.0
// The address pool. Line 1: a program of two-character steps on owners 0-9; the rest: damage to the file, as pairs of
// bytes (place in the file, new value). Steps: t take, q take the address with that number, g give back, k let the
// process die before its n-th write from here, o open again, v verify, s let n x 10 s pass. On an undamaged file no
// address is ever held twice and what was taken stays held until given back; on a damaged one nothing but refusals may
// happen.
#include <map>
#include <vector>

#include "cni-plugin/ipam/pool.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using namespace hawser::cni::ipam;
using fuzz::check;

struct Disk {
  std::vector<std::uint8_t> bytes;
  int writes_left = -1;  // -1: no limit
};

class DiskFile final : public PoolFile {
 public:
  explicit DiskFile(Disk& disk) : disk_(disk) {}
  Result<> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    if (offset + into.size() > disk_.bytes.size()) return fail(EIO, "past the end");
    std::copy_n(disk_.bytes.begin() + static_cast<std::ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }
  Result<> write(std::uint64_t offset, std::span<const std::uint8_t> from) override {
    if (offset + from.size() > disk_.bytes.size()) return fail(EIO, "past the end");
    if (disk_.writes_left == 0) return fail(EIO, "killed");
    if (disk_.writes_left > 0) disk_.writes_left--;
    std::ranges::copy(from, disk_.bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }

 private:
  Disk& disk_;
};

class Machine {
 public:
  Machine() {
    disk_.bytes.resize(Pool::file_bytes(range_.slots()));
    DiskFile file(disk_);
    check(Pool::format(file, range_.slots(), "boot").has_value());
  }
  void damage(std::string_view pairs) {
    damaged_ = pairs.size() >= 2;
    // The interesting places: the header, the tags, the first records.
    for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
      auto place = static_cast<unsigned char>(pairs[i]);
      std::size_t at = place < 64 ? place : place < 128 ? kPageBytes + place - 64 : 2 * kPageBytes + (place - 128) * 8;
      if (at < disk_.bytes.size()) disk_.bytes[at] = static_cast<std::uint8_t>(pairs[i + 1]);
    }
  }
  void run(std::string_view program) {
    for (std::size_t i = 0; i + 1 < program.size(); i += 2) {
      if (!pool_ && !open()) return;
      step(program[i], program[i + 1]);
    }
    disk_.writes_left = -1;
    pool_.reset();
    if (open() && !damaged_) check_held();
  }

 private:
  bool open() {
    disk_.writes_left = -1;
    auto p = Pool::open(std::make_unique<DiskFile>(disk_), range_, "boot");
    check(p || damaged_, "an undamaged file does not open");
    if (p) pool_.emplace(std::move(*p));
    return pool_.has_value();
  }

  void step(char what, char which) {
    Owner owner{.container = std::string(1 + (which & 7), which), .ifname = "eth0"};
    if (what == 't') took(owner, pool_->take(owner, now_));
    if (what == 'q')
      if (auto a = range_.first.plus(static_cast<unsigned char>(which) % 16); range_.contains(a))
        took(owner, pool_->take_requested(owner, a, now_));
    if (what == 'g') gave(owner, pool_->give_back(owner, now_));
    if (what == 'v' && !pool_->verify()) pool_.reset();
    if (what == 'k') disk_.writes_left = which & 3;
    if (what == 'o') pool_.reset();
    if (what == 's') now_ += std::chrono::seconds(10) * (which & 7);
    if (pool_ && !damaged_ && disk_.writes_left < 0) check_held();
  }
  void took(const Owner& owner, Result<IpAddr> a) {
    if (a) {
      check(range_.contains(*a) && *a != range_.gateway, a->text());
      check(damaged_ || !held_.contains(*a), a->text() + " was given out twice");
      held_[*a] = owner;
    } else if (a.error().code == EIO) {
      lost(owner);
    }
  }
  void gave(const Owner& owner, const Result<std::vector<IpAddr>>& freed) {
    if (!freed) return lost(owner);
    for (const auto& a : *freed) {
      check(damaged_ || (held_.contains(a) && held_[a] == owner) || unsure_.contains(owner), a.text());
    }
    std::erase_if(held_, [&](const auto& h) { return h.second == owner; });
    unsure_.erase(owner);
  }
  // The process died in a step of this owner: whether it took place is only known to the file.
  void lost(const Owner& owner) {
    pool_.reset();
    std::erase_if(held_, [&](const auto& h) { return h.second == owner; });
    unsure_[owner] = true;
  }
  void check_held() {
    auto list = pool_->list();
    check(list.has_value());
    std::map<IpAddr, Owner> on_disk;
    for (const auto& h : *list) on_disk[h.address] = h.owner;
    for (const auto& [address, owner] : held_) {
      check(on_disk.contains(address) && on_disk[address] == owner, address.text() + " was forgotten");
    }
    for (const auto& [address, owner] : on_disk) {
      check(held_.contains(address) || unsure_.contains(owner), address.text() + " is held by nobody");
    }
  }

  Range range_ = *whole_subnet(*Cidr::parse("10.1.2.0/28"));
  Disk disk_;
  std::optional<Pool> pool_;
  MonoTime now_{};
  bool damaged_ = false;
  std::map<IpAddr, Owner> held_;
  std::map<Owner, bool> unsure_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input in(data, size);
  auto program = in.line();
  Machine m;
  m.damage(in.rest());
  m.run(program.substr(0, 200));
  return 0;
}
