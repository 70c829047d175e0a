// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/informer.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>

#include "lib/base/log.h"
#include "lib/base/random.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

constexpr Nanos kFirstBackoff = 100ms;
constexpr Nanos kMaxBackoff = 10s;
// A watch that ends sooner without an event says the server is unwell, whatever it calls the end.
constexpr Nanos kShortWatch = 1s;

}  // namespace

struct Informer::Impl {
  Impl(Client& c, const Resource& r, ListOptions o, Clock& k)
      : client(c), resource(r), options(std::move(o)), clock(k) {}

  void loop(const std::stop_token& stop);
  bool list_once();
  bool watch_once(const std::stop_token& stop);
  void apply(const WatchEvent& e);
  void replace_all(const ObjectList& list);
  void put(const std::string& key, const ObjectPtr& current);
  void drop(const std::string& key, const ObjectPtr& last);
  void note_failure(std::string_view step, const Error& e);
  void note_success();
  void back_off();

  Client& client;
  const Resource resource;
  const ListOptions options;
  Clock& clock;
  InformerHandlers handlers;

  // informer thread only
  std::string version;  // of the last event or list seen; empty: list first
  Nanos backoff = kFirstBackoff;

  mutable std::mutex mu;
  std::condition_variable cv;
  std::map<std::string, ObjectPtr> objects;  // guarded by mu; written by the informer thread only
  bool synced = false;                       // guarded by mu
  bool stopping = false;                     // guarded by mu
  int failures = 0;                          // guarded by mu
  std::jthread thread;
};

void Informer::Impl::loop(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    bool ok = version.empty() ? list_once() : watch_once(stop);
    if (!ok && !stop.stop_requested()) back_off();
  }
}

bool Informer::Impl::list_once() {
  auto list = client.list(resource, options);
  if (!list) {
    note_failure("list", list.error());
    return false;
  }
  replace_all(*list);
  version = list->resource_version;
  note_success();
  bool first = false;
  {
    std::lock_guard l(mu);
    first = !std::exchange(synced, true);
    cv.notify_all();
  }
  if (first && handlers.on_synced) handlers.on_synced();
  // Nothing to watch from: only a broken server answers so.
  return !version.empty();
}

bool Informer::Impl::watch_once(const std::stop_token& stop) {
  WatchOptions o;
  static_cast<ListOptions&>(o) = options;
  o.resource_version = version;
  o.on_open = [this] { note_success(); };
  MonoTime began = clock.now();
  int events = 0;
  auto on_event = [&](const WatchEvent& e) {
    if (events++ == 0) note_success();
    apply(e);
    return !stop.stop_requested();
  };
  auto ended = client.watch(resource, o, on_event, stop);
  if (ended || stop.stop_requested()) return events > 0 || clock.now() - began >= kShortWatch;
  note_failure("watch", ended.error());
  const Error& e = ended.error();
  // Gone, or a version the server does not accept (it may have been restored from a backup): what is asked for makes no
  // sense to it, so start over. Rights and load are no reason to.
  if (e.code >= 400 && e.code < 500 && e.code != 401 && e.code != 403 && e.code != 429) version.clear();
  if (e.code == 504 && e.text.contains("resource version")) version.clear();
  // The first relist after a watch that worked is made at once.
  return version.empty() && events > 0;
}

void Informer::Impl::apply(const WatchEvent& e) {
  std::string at(resource_version(*e.object));
  if (e.type != EventType::kBookmark) {
    std::string k = key(*e.object);
    if (e.type == EventType::kDeleted)
      drop(k, e.object);
    else
      put(k, e.object);
  }
  if (!at.empty()) version = std::move(at);
}

void Informer::Impl::replace_all(const ObjectList& list) {
  std::map<std::string, ObjectPtr> fresh;
  for (const auto& o : list.items) fresh.emplace(key(*o), o);
  std::vector<std::string> missing;
  {
    std::lock_guard l(mu);
    for (const auto& [k, o] : objects)
      if (!fresh.contains(k)) missing.push_back(k);
  }
  // Deletes first: a handler that counts addresses or ports sees them free before they are used again.
  for (const auto& k : missing) drop(k, nullptr);
  for (const auto& [k, o] : fresh) put(k, o);
}

void Informer::Impl::put(const std::string& k, const ObjectPtr& current) {
  ObjectPtr old;
  {
    std::lock_guard l(mu);
    auto& slot = objects[k];
    old = slot;
    if (old && resource_version(*old) == resource_version(*current) && uid(*old) == uid(*current)) return;
    slot = current;
  }
  if (!handlers.on_change) return;
  // Deleted and made anew while nobody watched: two objects, not one that changed.
  if (old && uid(*old) != uid(*current)) {
    handlers.on_change(old, nullptr);
    old = nullptr;
  }
  handlers.on_change(old, current);
}

void Informer::Impl::drop(const std::string& k, const ObjectPtr& last) {
  ObjectPtr old;
  {
    std::lock_guard l(mu);
    auto it = objects.find(k);
    if (it == objects.end()) return;
    old = it->second;
    objects.erase(it);
  }
  if (handlers.on_change) handlers.on_change(last ? last : old, nullptr);
}

void Informer::Impl::note_failure(std::string_view step, const Error& e) {
  int n = 0;
  {
    std::lock_guard l(mu);
    n = ++failures;
  }
  // The first is worth a line; the rest of an outage would only repeat it.
  if (n == 1 && !is_gone(e))
    log::warn("{} {}: {}", step, resource.plural, e.text);
  else
    log::debug("{} {}: {} (failure {})", step, resource.plural, e.text, n);
}
void Informer::Impl::note_success() {
  backoff = kFirstBackoff;
  std::lock_guard l(mu);
  failures = 0;
}

void Informer::Impl::back_off() {
  MonoTime until = clock.now() + with_jitter(backoff, 0.5);
  backoff = std::min(backoff * 2, kMaxBackoff);
  std::unique_lock l(mu);
  clock.wait_until(l, cv, until, [&] { return stopping; });
}

Informer::Informer(Client& client, const Resource& resource, ListOptions options, Clock& clock)
    : impl_(std::make_unique<Impl>(client, resource, std::move(options), clock)) {}
Informer::~Informer() {
  stop();
}

void Informer::start(InformerHandlers handlers) {
  impl_->handlers = std::move(handlers);
  impl_->thread = std::jthread([this](const std::stop_token& stop) { impl_->loop(stop); });
}

void Informer::stop() {
  {
    std::lock_guard l(impl_->mu);
    impl_->stopping = true;
    impl_->cv.notify_all();
  }
  impl_->thread.request_stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

bool Informer::synced() const {
  std::lock_guard l(impl_->mu);
  return impl_->synced;
}
bool Informer::wait_synced(Nanos timeout) {
  std::unique_lock l(impl_->mu);
  impl_->clock.wait_until(l, impl_->cv, impl_->clock.now() + timeout, [&] { return impl_->synced || impl_->stopping; });
  return impl_->synced;
}
ObjectPtr Informer::get(const std::string& k) const {
  std::lock_guard l(impl_->mu);
  auto it = impl_->objects.find(k);
  return it == impl_->objects.end() ? nullptr : it->second;
}
std::vector<ObjectPtr> Informer::list() const {
  std::lock_guard l(impl_->mu);
  std::vector<ObjectPtr> out;
  out.reserve(impl_->objects.size());
  for (const auto& [k, o] : impl_->objects) out.push_back(o);
  return out;
}
int Informer::failures() const {
  std::lock_guard l(impl_->mu);
  return impl_->failures;
}

}  // namespace hawser::kube
