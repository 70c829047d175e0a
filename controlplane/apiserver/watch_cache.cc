// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/watch_cache.h"

#include <algorithm>

#include "lib/base/clock.h"
#include "lib/base/log.h"

namespace hawser::apiserver {

namespace {

// A watcher that was away for a while resumes without a relist; past these a relist is cheaper than the memory.
constexpr std::size_t kRingEvents = 1024;
constexpr std::size_t kRingBytes = 2u << 20;
// How far back the ring is filled again at start, so that a restart of the control plane relists nobody.
constexpr Revision kReplayRevisions = 1000;
constexpr auto kHealEvery = std::chrono::seconds(1);

// Booleans of the API that a field selector may name; absent, they read as false.
constexpr std::array<std::string_view, 2> kFlags = {"spec.unschedulable", "spec.hostNetwork"};

std::string_view requirement_value(const Object& o, std::string_view path) {
  // An Event's source is selected by its component.
  if (path == "source") {
    auto component = kube::str(o, {"source", "component"});
    return component.empty() ? kube::str(o, {"reportingComponent"}) : component;
  }
  const Object* at = &o;
  std::string_view rest = path;
  for (;;) {
    auto dot = rest.find('.');
    auto* v = at->if_contains(rest.substr(0, dot));
    if (v == nullptr) return {};
    if (dot == std::string_view::npos) {
      if (v->is_string()) return v->get_string();
      if (v->is_bool()) return v->get_bool() ? "true" : "false";
      return {};
    }
    if (!v->is_object()) return {};
    at = &v->get_object();
    rest = rest.substr(dot + 1);
  }
}

bool field_matches(const Object& o, const kube::FieldRequirement& r) {
  auto have = requirement_value(o, r.path);
  if (have.empty() && std::ranges::find(kFlags, r.path) != kFlags.end()) have = "false";
  return (have == r.value) == r.equal;
}

}  // namespace

bool Filter::matches(const Entry& e) const {
  if (!ns.empty() && !(e.key.size() > ns.size() && e.key[ns.size()] == '/' && e.key.starts_with(ns))) return false;
  if (!labels.empty() && !labels.matches(kube::obj(*e.object, {"metadata", "labels"}))) return false;
  return std::ranges::all_of(fields, [&](auto& r) { return field_matches(*e.object, r); });
}

std::string_view event_name(kube::EventType t) {
  switch (t) {
    case kube::EventType::kAdded:
      return "ADDED";
    case kube::EventType::kModified:
      return "MODIFIED";
    case kube::EventType::kDeleted:
      return "DELETED";
    case kube::EventType::kBookmark:
      return "BOOKMARK";
  }
  return "";
}

const std::shared_ptr<const std::string>& Frame::line() {
  if (!line_) {
    std::string s;
    auto name = event_name(type_);
    s.reserve(entry_->json->size() + name.size() + 24);
    s.append("{\"type\":\"").append(name).append("\",\"object\":").append(*entry_->json).append("}\n");
    line_ = std::make_shared<const std::string>(std::move(s));
  }
  return line_;
}

EntryPtr ResourceCache::get(std::string_view key) const {
  std::lock_guard l(mu_);
  auto it = items_.find(key);
  return it == items_.end() ? nullptr : it->second;
}

Snapshot ResourceCache::list(const Filter& f, Revision progress) const {
  Snapshot s;
  std::lock_guard l(mu_);
  s.revision = std::max(progress, last_change_);
  auto it = items_.begin();
  auto end = items_.end();
  if (!f.ns.empty()) {
    it = items_.lower_bound(f.ns + "/");
    end = items_.lower_bound(f.ns + "0");  // '0' follows '/'
  }
  bool all = f.labels.empty() && f.fields.empty();
  for (; it != end; ++it) {
    if (all || f.matches(*it->second)) s.items.push_back(it->second);
  }
  return s;
}

Revision ResourceCache::last_change() const {
  std::lock_guard l(mu_);
  return last_change_;
}

std::size_t ResourceCache::size() const {
  std::lock_guard l(mu_);
  return items_.size();
}

std::size_t ResourceCache::watchers() const {
  std::lock_guard l(mu_);
  return subscriptions_.size();
}

void ResourceCache::reset(std::map<std::string, EntryPtr, std::less<>> items, Revision floor) {
  std::lock_guard l(mu_);
  items_ = std::move(items);
  ring_.clear();
  ring_bytes_ = 0;
  floor_ = floor;
  last_change_ = floor;
  for (auto& s : subscriptions_) s.watcher->expire();
  subscriptions_.clear();
}

void ResourceCache::remember(Change c) {
  ring_bytes_ += c.current ? c.current->json->size() : 0;
  ring_.push_back(std::move(c));
  while (ring_.size() > kRingEvents || (ring_bytes_ > kRingBytes && ring_.size() > 1)) {
    auto& old = ring_.front();
    ring_bytes_ -= old.current ? old.current->json->size() : 0;
    floor_ = old.revision;
    ring_.pop_front();
  }
}

// frames: added/modified, the modified one, the deleted one; each built once per change.
bool ResourceCache::offer(const Subscription& s, const Change& c, std::array<std::unique_ptr<Frame>, 3>& frames) {
  bool before = c.previous && s.filter.matches(*c.previous);
  bool now = c.current && s.filter.matches(*c.current);
  if (!before && !now) return true;
  auto type = !before ? kube::EventType::kAdded : now ? kube::EventType::kModified : kube::EventType::kDeleted;
  auto& frame = frames[static_cast<std::size_t>(type)];
  if (!frame) {
    // An object that leaves is shown in its last state, under the revision at which it left.
    frame = std::make_unique<Frame>(type, now ? c.current : at_revision(*c.previous, c.revision));
  }
  return s.watcher->deliver(*frame);
}

void ResourceCache::apply(std::string_view key, Revision revision, EntryPtr current) {
  std::lock_guard l(mu_);
  auto it = items_.find(key);
  Change c{revision, it == items_.end() ? nullptr : it->second, std::move(current)};
  last_change_ = revision;
  if (!c.previous && !c.current) return;
  if (!c.current) {
    items_.erase(it);
  } else if (it != items_.end()) {
    it->second = c.current;
  } else {
    items_.emplace(std::string(key), c.current);
  }
  std::array<std::unique_ptr<Frame>, 3> frames;
  std::erase_if(subscriptions_, [&](const Subscription& s) { return !offer(s, c, frames); });
  remember(std::move(c));
}

Expected<> ResourceCache::subscribe(const std::shared_ptr<Watcher>& w, Filter f, const WatchStart& start,
                                    Revision progress) {
  std::lock_guard l(mu_);
  if (!start.initial_state && start.after < floor_) {
    return std::unexpected(kube::expired(fmt::format("too old resource version: {} ({})", start.after, floor_)));
  }
  Subscription s{w, std::move(f)};
  bool there = true;
  if (start.initial_state) {
    for (auto& [key, entry] : items_) {
      if (!s.filter.matches(*entry)) continue;
      Frame frame(kube::EventType::kAdded, entry);
      there = there && w->deliver(frame);
    }
    if (start.initial_bookmark) there = there && w->bookmark(std::max(progress, last_change_), true);
  } else {
    auto first = std::ranges::upper_bound(ring_, start.after, {}, &Change::revision);
    for (auto it = first; there && it != ring_.end(); ++it) {
      std::array<std::unique_ptr<Frame>, 3> frames;
      there = offer(s, *it, frames);
    }
  }
  if (there) subscriptions_.push_back(std::move(s));
  return {};
}

void ResourceCache::unsubscribe(const Watcher* w) {
  std::lock_guard l(mu_);
  std::erase_if(subscriptions_, [&](auto& s) { return s.watcher.get() == w; });
}

void ResourceCache::send_bookmark(Watcher& w, Revision progress) {
  std::lock_guard l(mu_);
  w.bookmark(std::max(progress, last_change_), false);
}

WatchCache::WatchCache(store::Store& store, std::span<const Kind> kinds) : store_(store) {
  for (auto& k : kinds) {
    auto cache = std::make_unique<ResourceCache>(k);
    by_kind_[&k] = cache.get();
    by_prefix_[kind_prefix(k)] = std::move(cache);
  }
}

WatchCache::~WatchCache() {
  stop();
}

void WatchCache::stop() {
  {
    std::lock_guard l(heal_mu_);
    stopping_ = true;
  }
  heal_cv_.notify_all();
  if (healer_.joinable()) healer_.join();
  watch_.reset();
}

ResourceCache& WatchCache::of(const Kind& k) {
  return *by_kind_.at(&k);
}

Revision WatchCache::progress() const {
  std::lock_guard l(progress_mu_);
  return progress_;
}

bool WatchCache::wait_for(Revision r, Nanos timeout) {
  std::unique_lock l(progress_mu_);
  return system_clock().wait_until(l, progress_cv_, system_clock().now() + timeout, [&] { return progress_ >= r; });
}

ResourceCache* WatchCache::cache_of_key(std::string_view key, std::string_view& object_key) {
  std::size_t at = 0;
  for (int slash = 0; slash < 3; ++slash) {
    at = key.find('/', at + 1);
    if (at == std::string_view::npos) return nullptr;
  }
  auto it = by_prefix_.find(std::string(key.substr(0, at + 1)));
  object_key = key.substr(at + 1);
  return it == by_prefix_.end() ? nullptr : it->second.get();
}

Result<> WatchCache::load(Revision base) {
  auto got = store_.range({.key = "/", .end = store::prefix_end("/"), .revision = base});
  if (!got) return propagate(got, "load the watch cache");
  on_reload_();
  std::unordered_map<ResourceCache*, std::map<std::string, EntryPtr, std::less<>>> items;
  for (auto& kv : got->kvs) {
    std::string_view object_key;
    auto* cache = cache_of_key(kv.key, object_key);
    if (cache == nullptr) {
      if (other_key_) other_key_({.kv = kv});
      continue;
    }
    auto entry = parse_entry(kv.value, kv.mod_revision);
    if (!entry) {
      log::error("{}: {}; the object is left out", kv.key, entry.error().text);
      continue;
    }
    items[cache].insert_or_assign((*entry)->key, std::move(*entry));
  }
  for (auto& [prefix, cache] : by_prefix_) cache->reset(std::move(items[cache.get()]), base);
  return {};
}

// Loads the state at `base` and follows the store from there.
Result<> WatchCache::follow(Revision base) {
  if (auto ok = load(base); !ok) return ok;
  Revision now = store_.revision();
  {
    std::lock_guard l(progress_mu_);
    progress_ = std::max(progress_, base);
  }
  progress_cv_.notify_all();
  auto w = store_.watch("/", store::prefix_end("/"), base + 1, [this](const store::EventBatch& b) { apply(b); });
  if (!w) return propagate(w, "watch the store");
  watch_ = std::move(*w);
  if (!wait_for(now, std::chrono::seconds(60))) {
    return fail(ETIMEDOUT, "the store's watch did not reach revision {}", now);
  }
  return {};
}

Result<> WatchCache::start() {
  Revision now = store_.revision();
  if (auto ok = follow(std::max({store_.compacted(), now - kReplayRevisions, std::min<Revision>(now, 1)})); !ok)
    return ok;
  healer_ = std::thread([this] { heal(); });
  return {};
}

void WatchCache::heal() {
  std::unique_lock l(heal_mu_);
  for (;;) {
    heal_cv_.wait(l, [&] { return stopping_ || must_heal_; });
    if (stopping_) return;
    must_heal_ = false;
    l.unlock();
    auto ok = follow(store_.revision());
    l.lock();
    if (ok) {
      lost_ = must_heal_;
      continue;
    }
    log::error("{}", ok.error().text);
    must_heal_ = true;
    system_clock().wait_until(l, heal_cv_, system_clock().now() + kHealEvery, [&] { return stopping_; });
  }
}

EntryPtr WatchCache::take_entry(const store::KeyValue& kv) {
  {
    std::lock_guard l(drafts_mu_);
    auto [first, last] = drafts_.equal_range(kv.key);
    for (auto it = first; it != last; ++it) {
      auto& d = *it->second;
      if (d.published || d.stored != kv.value) continue;
      d.published = make_entry(std::move(d.object), d.stored, kv.mod_revision);
      return d.published;
    }
  }
  auto parsed = parse_entry(kv.value, kv.mod_revision);
  if (!parsed) {
    log::error("{}: {}", kv.key, parsed.error().text);
    return nullptr;
  }
  return std::move(*parsed);
}

void WatchCache::apply_one(const store::Event& e) {
  std::string_view object_key;
  auto* cache = cache_of_key(e.kv.key, object_key);
  if (cache == nullptr) {
    if (other_key_) other_key_(e);
    return;
  }
  EntryPtr current;
  if (e.type == store::Event::Type::kPut) {
    current = take_entry(e.kv);
    if (!current) return;
  }
  cache->apply(object_key, e.kv.mod_revision, std::move(current));
}

void WatchCache::apply(const store::EventBatch& b) {
  if (b.lost) {
    log::warn("the store's watch was lost at revision {}; loading everything again", b.progress);
    std::lock_guard l(heal_mu_);
    lost_ = must_heal_ = true;
    heal_cv_.notify_all();
    return;
  }
  for (auto& e : b.events) apply_one(e);
  {
    std::lock_guard l(progress_mu_);
    progress_ = std::max(progress_, b.progress);
  }
  progress_cv_.notify_all();
}

std::shared_ptr<Draft> WatchCache::announce(std::string key, std::string stored, Object object) {
  auto d = std::make_shared<Draft>();
  d->key = key;
  d->stored = std::move(stored);
  d->object = std::move(object);
  std::lock_guard l(drafts_mu_);
  drafts_.emplace(std::move(key), d);
  return d;
}

EntryPtr WatchCache::finish(const std::shared_ptr<Draft>& d) {
  std::lock_guard l(drafts_mu_);
  auto [first, last] = drafts_.equal_range(d->key);
  for (auto it = first; it != last; ++it) {
    if (it->second == d) {
      drafts_.erase(it);
      break;
    }
  }
  return std::move(d->published);
}

}  // namespace hawser::apiserver
