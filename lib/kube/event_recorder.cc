// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/event_recorder.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "lib/base/log.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxQueue = 1000;
constexpr std::size_t kMaxKnown = 4096;  // as client-go's cache
constexpr std::size_t kMaxMessageBytes = 1024;
constexpr Nanos kRepeatWindow = 10min;  // later, the same event starts a new one
constexpr int kTries = 3;
constexpr Nanos kRetryInterval = 2s;

struct Pending {
  std::string key;  // what makes two events the same
  std::string ns;
  Object event;
};

// At a character's start: half a character would make the JSON invalid.
void cut(std::string& utf8) {
  if (utf8.size() <= kMaxMessageBytes) return;
  std::size_t n = kMaxMessageBytes;
  while (n > 0 && (static_cast<unsigned char>(utf8[n]) & 0xc0) == 0x80) n--;
  utf8.resize(n);
}

struct Known {
  std::string ns, name;
  int count = 0;
  MonoTime last;
};

}  // namespace

struct EventRecorder::Impl {
  Impl(Client& c, std::string who, std::string where, Clock& k)
      : client(c), component(std::move(who)), host(std::move(where)), clock(k) {}

  void loop();
  void send(const Pending& p);
  Result<> send_once(const Pending& p);
  void forget_oldest();
  // Names are made of it, so two events never share one.
  std::int64_t unique_stamp(WallTime now) {
    std::lock_guard l(mu);
    return last_stamp = std::max(last_stamp + 1, static_cast<std::int64_t>(now.time_since_epoch().count()));
  }

  Client& client;
  const std::string component;
  const std::string host;
  Clock& clock;

  // recorder thread only
  std::map<std::string, Known> known;
  std::list<std::string> order;  // keys of `known`, oldest first

  mutable std::mutex mu;
  std::condition_variable cv;
  std::deque<Pending> queue;    // guarded by mu
  bool sending = false;         // guarded by mu
  bool stopping = false;        // guarded by mu
  int dropped = 0;              // guarded by mu
  std::int64_t last_stamp = 0;  // guarded by mu
  std::thread thread;
};

EventRecorder::EventRecorder(Client& client, std::string component, std::string host, Clock& clock)
    : impl_(std::make_unique<Impl>(client, std::move(component), std::move(host), clock)) {
  impl_->thread = std::thread([this] { impl_->loop(); });
}

EventRecorder::~EventRecorder() {
  {
    std::lock_guard l(impl_->mu);
    impl_->stopping = true;
    impl_->cv.notify_all();
  }
  impl_->thread.join();
}

void EventRecorder::record(const Resource& r, const Object& about, EventText e) {
  cut(e.message);
  auto now = impl_->clock.wall();
  std::string stamp = rfc3339(now);
  Object involved{{"kind", r.kind}, {"name", name(about)}, {"uid", uid(about)}};
  involved["apiVersion"] = r.group.empty() ? std::string(r.version) : fmt::format("{}/{}", r.group, r.version);
  if (!ns(about).empty()) involved["namespace"] = ns(about);
  if (!resource_version(about).empty()) involved["resourceVersion"] = resource_version(about);
  if (!e.field_path.empty()) involved["fieldPath"] = e.field_path;

  Pending p;
  p.ns = ns(about).empty() ? "default" : std::string(ns(about));
  p.key = fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}", r.kind, ns(about), name(about), uid(about), e.field_path,
                      e.warning, e.reason, e.message);
  Object meta{{"namespace", p.ns}};
  meta["name"] = fmt::format("{}.{:x}", name(about), impl_->unique_stamp(now));
  Object source{{"component", impl_->component}};
  if (!impl_->host.empty()) source["host"] = impl_->host;
  p.event = {{"kind", "Event"}, {"apiVersion", "v1"}, {"metadata", std::move(meta)}};
  p.event["involvedObject"] = std::move(involved);
  p.event["reason"] = e.reason;
  p.event["message"] = e.message;
  p.event["source"] = std::move(source);
  p.event["firstTimestamp"] = stamp;
  p.event["lastTimestamp"] = stamp;
  p.event["count"] = 1;
  p.event["type"] = e.warning ? "Warning" : "Normal";
  p.event["reportingComponent"] = impl_->component;
  p.event["reportingInstance"] = impl_->host;

  std::lock_guard l(impl_->mu);
  if (impl_->queue.size() >= kMaxQueue) {
    impl_->dropped++;
    return;
  }
  impl_->queue.push_back(std::move(p));
  impl_->cv.notify_all();
}

bool EventRecorder::flush(Nanos timeout) {
  std::unique_lock l(impl_->mu);
  return impl_->clock.wait_until(l, impl_->cv, impl_->clock.now() + timeout,
                                 [&] { return impl_->queue.empty() && !impl_->sending; });
}

int EventRecorder::dropped() const {
  std::lock_guard l(impl_->mu);
  return impl_->dropped;
}

void EventRecorder::Impl::loop() {
  std::unique_lock l(mu);
  for (;;) {
    cv.wait(l, [&] { return stopping || !queue.empty(); });
    if (stopping) return;
    Pending p = std::move(queue.front());
    queue.pop_front();
    sending = true;
    l.unlock();
    send(p);
    l.lock();
    sending = false;
    cv.notify_all();
  }
}

void EventRecorder::Impl::send(const Pending& p) {
  for (int attempt = 1;; attempt++) {
    auto done = send_once(p);
    if (done) return;
    std::unique_lock l(mu);
    if (attempt == kTries || !is_temporary(done.error()) || stopping) {
      dropped++;
      log::debug("event {} lost: {}", name(p.event), done.error().text);
      return;
    }
    clock.wait_until(l, cv, clock.now() + kRetryInterval, [&] { return stopping; });
  }
}

Result<> EventRecorder::Impl::send_once(const Pending& p) {
  auto it = known.find(p.key);
  if (it != known.end() && clock.now() - it->second.last < kRepeatWindow) {
    Known& k = it->second;
    Object patch{{"count", k.count + 1}, {"lastTimestamp", str(p.event, {"lastTimestamp"})}};
    auto done = client.patch(kEvents, k.ns, k.name, PatchType::kMerge, patch);
    if (done) {
      k.count++;
      k.last = clock.now();
      return {};
    }
    // The server has let it expire: it starts over.
    if (!is_not_found(done.error())) return propagate(done);
  }
  auto made = client.create(kEvents, p.ns, p.event);
  if (!made) return propagate(made);
  if (it == known.end()) {
    forget_oldest();
    it = known.try_emplace(p.key).first;
    order.push_back(p.key);
  }
  it->second = {p.ns, std::string(name(p.event)), 1, clock.now()};
  return {};
}

void EventRecorder::Impl::forget_oldest() {
  if (known.size() < kMaxKnown) return;
  known.erase(order.front());
  order.pop_front();
}

}  // namespace hawser::kube
