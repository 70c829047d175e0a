// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/controller.h"

#include <array>

#include "lib/base/log.h"
#include "lib/kube/object.h"

namespace hawser::controllers {
namespace {

constexpr std::array kCached{kube::kNamespaces, kube::kNodes,          kube::kPods,        kube::kServices,
                             kube::kEndpoints,  kube::kConfigMaps,     kube::kSecrets,     kube::kServiceAccounts,
                             kube::kLeases,     kube::kEndpointSlices, kube::kDeployments, kube::kReplicaSets};

}  // namespace

Caches::Caches(kube::Client& client, Clock& clock) {
  for (const kube::Resource& r : kCached)
    all_.push_back(std::make_unique<KindCache>(client, r, kube::ListOptions{}, clock));
}

KindCache& Caches::of(const kube::Resource& r) {
  std::size_t i = 0;
  while (i + 1 < all_.size() && (all_[i]->resource().plural != r.plural || all_[i]->resource().group != r.group)) ++i;
  return *all_[i];
}

Result<ObjectPtr> Context::create(const kube::Resource& r, const Object& o) {
  auto made = client.create(r, kube::ns(o), o);
  if (made) caches.of(r).wrote(*made);
  return made;
}

Result<ObjectPtr> Context::update(const kube::Resource& r, const Object& o, std::string_view subresource) {
  auto written = client.update(r, o, subresource);
  if (written) {
    // The last finalizer is off: the object is gone, and what came back is its last state.
    const Object& w = **written;
    const bool gone = kube::deleting(w) && kube::arr(w, {"metadata", "finalizers"}).empty() && r.plural != "pods" &&
                      r.plural != "namespaces";
    if (!gone) caches.of(r).wrote(*written);
  } else if (is_not_found(written.error())) {
    caches.of(r).removed(o);
  }
  return written;
}

Result<> Context::remove(const kube::Resource& r, const Object& o, kube::DeleteOptions options) {
  options.uid = kube::uid(o);
  auto done = client.remove(r, kube::ns(o), kube::name(o), options);
  if (!done && is_not_found(done.error())) {
    caches.of(r).removed(o);
    return {};
  }
  if (!done) return done;
  // Gone, or marked and waiting: the cache has to know before anybody counts again.
  auto now = client.get(r, kube::ns(o), kube::name(o));
  if (now && kube::uid(**now) == kube::uid(o))
    caches.of(r).wrote(*now);
  else if (now || is_not_found(now.error()))
    caches.of(r).removed(o);
  return {};
}

Result<ObjectPtr> Context::update_status(const kube::Resource& r, const Object& o, Object status) {
  Object next = o;
  next["status"] = std::move(status);
  return update(r, next, "status");
}

void Context::note(const kube::Resource& r, const Object& about, std::string_view reason, std::string message) {
  events.record(r, about,
                {.warning = false, .reason = std::string(reason), .message = std::move(message), .field_path = {}});
}

void Context::warn(const kube::Resource& r, const Object& about, std::string_view reason, std::string message) {
  events.record(r, about,
                {.warning = true, .reason = std::string(reason), .message = std::move(message), .field_path = {}});
}

Controller::Controller(Context& ctx, std::string_view name, std::size_t workers)
    : ctx_(ctx), name_(name), workers_(workers), queue_(ctx.clock) {}

Controller::~Controller() {
  stop();
}

void Controller::start() {
  prepare();
  add_worker();
}

void Controller::stop() {
  queue_.shut_down();
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mu_);
    stopping_ = true;
    threads.swap(threads_);
  }
  for (std::thread& t : threads) t.join();
}

void Controller::add_worker() {
  const std::lock_guard lock(mu_);
  if (!stopping_ && threads_.size() < workers_) threads_.emplace_back([this] { work(); });
}

void Controller::work() {
  while (auto key = queue_.get()) {
    if (queue_.size() > 0) add_worker();
    auto outcome = sync(*key);
    if (!outcome) {
      // Somebody was faster: the cache is about to show it, or shows it already.
      const bool ordinary = is_conflict(outcome.error()) || is_not_found(outcome.error());
      if (ordinary)
        log::debug("{}: {}: {}", name_, *key, outcome.error().text);
      else
        log::warn("{}: {}: {}", name_, *key, outcome.error().text);
      queue_.add_rate_limited(*key);
    } else {
      queue_.forget(*key);
      if (*outcome) queue_.add_after(*key, **outcome);
    }
    queue_.done(*key);
  }
}

void Controller::watch_as_key(const kube::Resource& r) {
  cache(r).subscribe([this](const ObjectPtr& old, const ObjectPtr& current) {
    enqueue(kube::key(current != nullptr ? *current : *old));
  });
}

void Controller::watch_owned(const kube::Resource& r, const kube::Resource& owner) {
  cache(r).subscribe([this, kind = owner.kind](const ObjectPtr& old, const ObjectPtr& current) {
    std::string last;
    for (const ObjectPtr& o : {old, current}) {
      if (o == nullptr) continue;
      const Object& ref = kube::controller_of(*o);
      if (kube::str(ref, {"kind"}) != kind) continue;
      std::string key = std::string(kube::ns(*o)) + "/" + std::string(kube::str(ref, {"name"}));
      if (key == last) continue;
      enqueue(key);
      last = std::move(key);
    }
  });
}

}  // namespace hawser::controllers
