// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/kind_cache.h"

#include <charconv>

#include "lib/kube/object.h"

namespace hawser::controllers {
namespace {

constexpr std::size_t kRememberedGone = 4096;
constexpr Nanos kUnconfirmedLife = std::chrono::minutes(5);

std::uint64_t version(const Object& o) {
  const std::string_view s = kube::resource_version(o);
  std::uint64_t n = 0;
  std::from_chars(s.data(), s.data() + s.size(), n);
  return n;
}

std::string controller_uid(const Object& o) {
  return std::string(kube::str(kube::controller_of(o), {"uid"}));
}

}  // namespace

KindCache::KindCache(kube::Client& client, const kube::Resource& resource, kube::ListOptions options, Clock& clock)
    : resource_(resource), clock_(clock), informer_(client, resource, std::move(options), clock) {}

void KindCache::subscribe(Handler h) {
  handlers_.push_back(std::move(h));
}

void KindCache::start() {
  informer_.start({.on_change =
                       [this](const ObjectPtr& old, const ObjectPtr& current) {
                         apply(old, current);
                         for (const Handler& h : handlers_) h(old, current);
                       },
                   .on_synced = {}});
}

void KindCache::stop() {
  informer_.stop();
}

ObjectPtr KindCache::get(const std::string& key) const {
  const std::lock_guard lock(mu_);
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : it->second;
}

std::vector<ObjectPtr> KindCache::list() const {
  const std::lock_guard lock(mu_);
  std::vector<ObjectPtr> out;
  out.reserve(by_key_.size());
  for (const auto& [k, o] : by_key_) out.push_back(o);
  return out;
}

std::vector<ObjectPtr> KindCache::in_namespace(std::string_view ns) const {
  const std::string prefix = std::string(ns) + "/";
  const std::lock_guard lock(mu_);
  std::vector<ObjectPtr> out;
  for (auto it = by_key_.lower_bound(prefix); it != by_key_.end() && it->first.starts_with(prefix); ++it)
    out.push_back(it->second);
  return out;
}

std::vector<ObjectPtr> KindCache::owned_by(std::string_view uid) const {
  const std::lock_guard lock(mu_);
  std::vector<ObjectPtr> out;
  const auto owned = by_controller_.find(std::string(uid));
  if (owned == by_controller_.end()) return out;
  for (const std::string& key : owned->second)
    if (const auto it = by_key_.find(key); it != by_key_.end()) out.push_back(it->second);
  return out;
}

void KindCache::put(const std::string& key, const ObjectPtr& object) {
  const auto [it, added] = by_key_.try_emplace(key, object);
  const std::string controller = controller_uid(*object);
  if (!added) {
    if (const std::string before = controller_uid(*it->second); before != controller) {
      by_controller_[before].erase(key);
      if (by_controller_[before].empty()) by_controller_.erase(before);
    }
    it->second = object;
  }
  if (!controller.empty()) by_controller_[controller].insert(key);
}

void KindCache::erase(const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return;
  if (const auto owned = by_controller_.find(controller_uid(*it->second)); owned != by_controller_.end()) {
    owned->second.erase(key);
    if (owned->second.empty()) by_controller_.erase(owned);
  }
  by_key_.erase(it);
}

void KindCache::bury(std::string_view uid) {
  if (uid.empty() || !gone_.emplace(uid).second) return;
  gone_order_.emplace_back(uid);
  if (gone_order_.size() <= kRememberedGone) return;
  gone_.erase(gone_order_.front());
  gone_order_.pop_front();
}

void KindCache::drop_unconfirmed() {
  const MonoTime now = clock_.now();
  for (auto it = unconfirmed_.begin(); it != unconfirmed_.end();) {
    if (now - it->second < kUnconfirmedLife) {
      ++it;
      continue;
    }
    erase(it->first);
    it = unconfirmed_.erase(it);
  }
}

void KindCache::apply(const ObjectPtr& old, const ObjectPtr& current) {
  const std::lock_guard lock(mu_);
  drop_unconfirmed();
  const Object& o = current != nullptr ? *current : *old;
  const std::string key = kube::key(o);
  const auto it = by_key_.find(key);
  const bool same = it != by_key_.end() && kube::uid(*it->second) == kube::uid(o);
  if (current == nullptr) {
    bury(kube::uid(o));
    if (same) {
      erase(key);
      unconfirmed_.erase(key);
    }
    return;
  }
  if (gone_.contains(std::string(kube::uid(o)))) return;
  if (it != by_key_.end() && version(*it->second) > version(o)) {
    if (same) unconfirmed_.erase(key);
    return;
  }
  unconfirmed_.erase(key);
  put(key, current);
}

void KindCache::wrote(const ObjectPtr& object) {
  if (object == nullptr) return;
  const std::lock_guard lock(mu_);
  drop_unconfirmed();
  if (gone_.contains(std::string(kube::uid(*object)))) return;
  const std::string key = kube::key(*object);
  const auto it = by_key_.find(key);
  if (it != by_key_.end() && version(*it->second) >= version(*object)) return;
  if (it == by_key_.end()) unconfirmed_[key] = clock_.now();
  put(key, object);
}

void KindCache::removed(const Object& object) {
  const std::lock_guard lock(mu_);
  bury(kube::uid(object));
  const std::string key = kube::key(object);
  const auto it = by_key_.find(key);
  if (it == by_key_.end() || kube::uid(*it->second) != kube::uid(object)) return;
  erase(key);
  unconfirmed_.erase(key);
}

}  // namespace hawser::controllers
