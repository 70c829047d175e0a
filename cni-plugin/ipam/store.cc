// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/ipam/store.h"

#include <algorithm>
#include <filesystem>
#include <ranges>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <unistd.h>

namespace hawser::cni::ipam {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPoolPrefix = "pool-";
constexpr const char* kImportsFile = "/host-local.imported";

class DiskPoolFile final : public PoolFile {
 public:
  explicit DiskPoolFile(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    auto n = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0) return fail_errno(errno, "read the address pool");
    if (static_cast<std::size_t>(n) != into.size()) return fail(ESTALE, "the address pool is cut short");
    return {};
  }
  Result<> write(std::uint64_t offset, std::span<const std::uint8_t> from) override {
    auto n = pwrite(fd_.get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (n < 0) return fail_errno(errno, "write the address pool");
    if (static_cast<std::size_t>(n) != from.size()) return fail(ENOSPC, "write the address pool: no space");
    return {};
  }

 private:
  UniqueFd fd_;
};

// "pool-10.244.1.1-10.244.1.254" to its two ends; nullopt: not a pool file.
std::optional<Range> range_of_file(std::string_view name) {
  if (!name.starts_with(kPoolPrefix)) return std::nullopt;
  name.remove_prefix(kPoolPrefix.size());
  auto dash = name.find('-');
  if (dash == name.npos) return std::nullopt;
  auto first = IpAddr::parse(name.substr(0, dash));
  auto last = IpAddr::parse(name.substr(dash + 1));
  if (!first || !last || first->family() != last->family() || *last < *first) return std::nullopt;
  return Range{.first = *first, .last = *last};
}

}  // namespace

Result<Store> Store::open(const std::string& folder, Clock& clock) {
  if (auto r = make_folders(folder, 0700); !r) return propagate(r, "address store");
  auto lock = FileLock::acquire(folder + "/lock");
  if (!lock) return propagate(lock, "address store");
  auto boot = read_file("/proc/sys/kernel/random/boot_id", kPageBytes);
  if (!boot) return propagate(boot, "address store");
  while (!boot->empty() && boot->back() == '\n') boot->pop_back();
  Store s(folder, std::move(*lock), std::move(*boot), clock);
  if (auto r = s.read_imports(); !r) return propagate(r, "address store");
  return s;
}

// "host-local.imported": the boot id, then a folder a line. It is written after the records, so that an import that was
// killed is done again, and counts in its own boot only, as the records do.
Result<> Store::read_imports() {
  auto text = read_file(folder_ + kImportsFile);
  if (!text) return is_not_found(text.error()) ? Result<>() : Result<>(propagate(text));
  std::istringstream lines(*text);
  std::string line;
  if (!std::getline(lines, line) || line != boot_id_) return {};
  while (std::getline(lines, line)) imports_.push_back(line);
  return {};
}

Result<Store::Imported> Store::import_host_local(const std::string& folder, const std::vector<RangeSet>& sets) {
  Imported done;
  if (std::ranges::find(imports_, folder) != imports_.end()) return done;
  auto host_local = HostLocal::open(folder, folder_);
  if (!host_local && is_not_found(host_local.error())) return done;
  if (!host_local) return propagate(host_local);
  auto content = host_local->read();
  if (!content) return propagate(content);
  done.ignored = content->ignored;
  std::set<IpAddr> outside;
  for (const auto& r : content->held) outside.insert(r.address);
  for (const auto& range : sets | std::views::join) {
    auto pool = open_pool(range);
    if (!pool) return propagate(pool);
    for (const auto& r : content->held) {
      if (!range.contains(r.address)) continue;
      outside.erase(r.address);
      auto held = pool->adopt(r.owner, r.address, clock_->now());
      if (!held && held.error().code != EADDRINUSE && held.error().code != EINVAL) return propagate(held);
      if (held)
        done.held++;
      else
        done.ignored.push_back(held.error().text);
    }
    for (const auto& last : content->last) {
      if (!range.contains(last)) continue;
      if (auto r = pool->continue_after(last); !r && r.error().code != EINVAL) return propagate(r);
    }
  }
  for (const auto& a : outside) done.ignored.push_back(fmt::format("{} is in no configured range", a));
  imports_.push_back(folder);
  std::string text = boot_id_ + "\n";
  for (const auto& f : imports_) text += f + "\n";
  if (auto r = write_file(folder_ + kImportsFile, text, {.mode = 0600}); !r) return propagate(r);
  return done;
}

Result<> Store::forget_host_local(const std::string& folder, const Owner& owner) {
  auto host_local = HostLocal::open(folder, folder_);
  if (!host_local) return is_not_found(host_local.error()) ? Result<>() : Result<>(propagate(host_local));
  return host_local->release(owner);
}

Result<> Store::release_reservations(Pool& pool, const Owner& owner) {
  if (imports_.empty()) return {};
  auto held = pool.held_by(owner);
  if (!held) return propagate(held);
  for (const auto& folder : imports_) {
    for (const auto& a : *held) {
      if (!stands(folder, {a, owner})) continue;
      auto host_local = HostLocal::open(folder, folder_);
      if (!host_local) return propagate(host_local);
      if (auto gone = host_local->release({a, owner}); !gone) return gone;
    }
  }
  return {};
}

void Store::mark_imported(std::vector<Held>& held) const {
  for (auto& h : held)
    h.imported = std::ranges::any_of(imports_, [&](const auto& f) { return stands(f, {h.address, h.owner}); });
}

Result<Pool> Store::make_pool(const Range& range) {
  const std::string path = fmt::format("{}/{}{}", folder_, kPoolPrefix, range.file_name());
  const std::string fresh = path + ".new";  // not a pool name, so a half-made one is never read
  auto fd = UniqueFd::open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (!fd) return propagate(fd, "address store");
  if (ftruncate(fd->get(), static_cast<off_t>(Pool::file_bytes(range.slots()))) != 0)
    return fail_errno(errno, "size {}", fresh);
  auto file = std::make_unique<DiskPoolFile>(std::move(*fd));
  if (auto r = Pool::format(*file, range.slots(), boot_id_); !r) return propagate(r);
  if (rename(fresh.c_str(), path.c_str()) != 0) return fail_errno(errno, "rename {}", fresh);
  return Pool::open(std::move(file), range, boot_id_);
}

Result<Pool> Store::open_pool(const Range& range) {
  const std::string path = fmt::format("{}/{}{}", folder_, kPoolPrefix, range.file_name());
  auto fd = UniqueFd::open(path.c_str(), O_RDWR);
  if (!fd && fd.error().code == ENOENT) return make_pool(range);
  if (!fd) return propagate(fd);
  auto pool = Pool::open(std::make_unique<DiskPoolFile>(std::move(*fd)), range, boot_id_);
  if (!pool && pool.error().code == ESTALE) return make_pool(range);
  return pool;
}

Result<std::vector<Pool>> Store::open_all() {
  std::vector<Pool> pools;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder_, ec)) {
    auto range = range_of_file(entry.path().filename().native());
    if (!range) continue;
    auto fd = UniqueFd::open(entry.path().c_str(), O_RDWR);
    if (!fd) return propagate(fd);
    auto pool = Pool::open(std::make_unique<DiskPoolFile>(std::move(*fd)), *range, boot_id_);
    if (!pool && pool.error().code == ESTALE) continue;  // made anew when its range is next used
    if (!pool) return propagate(pool);
    pools.push_back(std::move(*pool));
  }
  if (ec) return fail_errno(ec.value(), "list {}", folder_);
  return pools;
}

Result<Store::Taken> Store::take_from_set(const RangeSet& set, const Owner& owner, std::vector<IpAddr>& requested) {
  for (const auto& range : set) {
    auto wanted = std::ranges::find_if(requested, [&](const IpAddr& a) { return range.contains(a); });
    if (wanted == requested.end()) continue;
    auto pool = open_pool(range);
    if (!pool) return propagate(pool);
    auto got = pool->take_requested(owner, *wanted, clock_->now());
    if (!got) return propagate(got);
    requested.erase(wanted);
    return Taken{*got, range};
  }
  Result<Taken> full = fail(ENOSPC, "the range set is empty");
  for (const auto& range : set) {
    auto pool = open_pool(range);
    if (!pool) return propagate(pool);
    auto got = pool->take(owner, clock_->now());
    if (got) return Taken{*got, range};
    if (got.error().code != ENOSPC) return propagate(got);
    full = propagate(got);
  }
  return full;
}

Result<std::vector<Store::Taken>> Store::take(const std::vector<RangeSet>& sets, const Owner& owner,
                                              const std::vector<IpAddr>& requested) {
  auto held = held_by(owner);
  if (!held) return propagate(held);
  if (!held->empty())
    return fail(EEXIST, "interface {} of container {} already holds {}", owner.ifname, owner.container, held->front());
  std::vector<Taken> taken;
  std::vector<IpAddr> open_requests = requested;
  for (const auto& set : sets) {
    auto t = take_from_set(set, owner, open_requests);
    if (!t) {
      (void)give_back(owner);  // the error that stopped us says more than one met while tidying up
      return propagate(t);
    }
    taken.push_back(std::move(*t));
  }
  if (!open_requests.empty()) {
    (void)give_back(owner);
    return fail(EINVAL, "requested address {}: is in no configured range, or its range set gave another",
                open_requests[0]);
  }
  return taken;
}

Result<std::vector<IpAddr>> Store::give_back(const Owner& owner) {
  auto pools = open_all();
  if (!pools) return propagate(pools);
  std::vector<IpAddr> freed;
  for (auto& p : *pools) {
    if (auto r = release_reservations(p, owner); !r) return propagate(r);
    auto f = p.give_back(owner, clock_->now());
    if (!f) return f;
    freed.insert(freed.end(), f->begin(), f->end());
  }
  return freed;
}

Result<std::vector<IpAddr>> Store::held_by(const Owner& owner) {
  auto pools = open_all();
  if (!pools) return propagate(pools);
  std::vector<IpAddr> out;
  for (auto& p : *pools) {
    auto h = p.held_by(owner);
    if (!h) return h;
    out.insert(out.end(), h->begin(), h->end());
  }
  return out;
}

Result<std::vector<Held>> Store::list() {
  auto pools = open_all();
  if (!pools) return propagate(pools);
  std::vector<Held> out;
  for (auto& p : *pools) {
    auto l = p.list();
    if (!l) return l;
    mark_imported(*l);
    out.insert(out.end(), l->begin(), l->end());
  }
  return out;
}

Result<std::vector<Held>> Store::keep_only(const std::function<bool(const Held&)>& live) {
  auto pools = open_all();
  if (!pools) return propagate(pools);
  std::vector<Held> dropped;
  for (auto& p : *pools) {
    auto held = p.list();
    if (!held) return propagate(held);
    mark_imported(*held);
    for (const auto& h : *held) {
      if (live(h)) continue;
      if (auto r = release_reservations(p, h.owner); !r) return propagate(r);
      if (auto r = p.give_back(h.owner, clock_->now()); !r) return propagate(r);
      dropped.push_back(h);
    }
    if (auto r = p.verify(); !r) return propagate(r);
  }
  return dropped;
}

std::vector<Range> Store::former_subnets(const std::string& folder, const std::vector<RangeSet>& sets) {
  std::vector<Range> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const auto ends = range_of_file(entry.path().filename().native());
    const auto subnet = ends ? whole_subnet_between(ends->first, ends->last) : std::nullopt;
    auto same = [&](const Range& r) { return r.file_name() == subnet->file_name(); };
    if (subnet && std::ranges::none_of(sets | std::views::join, same)) out.push_back(*subnet);
  }
  return out;
}

Result<bool> Store::retire(const Range& range, const std::function<Result<>()>& drop) {
  const std::string path = fmt::format("{}/{}{}", folder_, kPoolPrefix, range.file_name());
  auto fd = UniqueFd::open(path.c_str(), O_RDWR);
  if (!fd && is_not_found(fd.error())) return true;
  if (!fd) return propagate(fd);
  auto pool = Pool::open(std::make_unique<DiskPoolFile>(std::move(*fd)), range, boot_id_);
  if (!pool && pool.error().code != ESTALE) return propagate(pool);
  if (pool) {
    auto held = pool->list();
    if (!held) return propagate(held);
    if (!held->empty()) return false;
  }
  if (auto r = drop(); !r) return propagate(r);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove {}", path);
  return true;
}

Result<std::uint64_t> Store::available(const RangeSet& set) {
  std::uint64_t free = 0;
  for (const auto& range : set) {
    auto pool = open_pool(range);
    if (!pool) return propagate(pool);
    auto held = pool->list();
    if (!held) return propagate(held);
    // One held since before it was excluded is none of those that may be given out.
    const auto in_use = std::ranges::count_if(*held, [&](const Held& h) { return range.gives(h.address); });
    free += range.capacity() - static_cast<std::uint64_t>(in_use);
  }
  return free;
}

}  // namespace hawser::cni::ipam
