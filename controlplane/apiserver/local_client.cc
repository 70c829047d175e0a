// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/local_client.h"

#include <charconv>
#include <condition_variable>
#include <deque>

#include "controlplane/apiserver/subresources.h"

namespace hawser::apiserver {

namespace {

// A consumer this far behind lists again; it would otherwise keep every old object alive.
constexpr std::size_t kMaxQueued = 100'000;
// An idle watch tells its consumer how far it is, so that a later resume needs no relist.
constexpr auto kBookmarkEvery = std::chrono::seconds(60);

template <class T>
std::unexpected<Error> failed(const Expected<T>& e) {
  return std::unexpected(e.error().to_error());
}

Result<const Kind*> kind_of(const kube::Resource& r) {
  auto* k = schema::find_resource(r.group, r.version, r.plural);
  if (k == nullptr)
    return std::unexpected(Error{404, fmt::format("no resource {}/{}/{}", r.group, r.version, r.plural), "NotFound"});
  return k;
}

Result<Filter> filter_of(const kube::ListOptions& o) {
  Filter f{.ns = o.ns};
  auto labels = kube::LabelSelector::parse(o.label_selector);
  if (!labels) return propagate(labels);
  f.labels = std::move(*labels);
  auto fields = kube::parse_field_selector(o.field_selector);
  if (!fields) return propagate(fields);
  f.fields = std::move(*fields);
  return f;
}

// Events on their way from the cache's thread to the consumer's.
class EventQueue final : public Watcher {
 public:
  bool deliver(Frame& frame) override { return push({frame.type(), frame.entry()->object}); }
  bool bookmark(Revision revision, bool) override {
    auto o = std::make_shared<Object>(Object{{"metadata", Object{{"resourceVersion", std::to_string(revision)}}}});
    return push({kube::EventType::kBookmark, std::move(o)});
  }
  void expire() override {
    std::lock_guard l(mu_);
    overflowed_ = true;
    cv_.notify_all();
  }
  void wake() {
    std::lock_guard l(mu_);
    cv_.notify_all();
  }
  // What has come, oldest first; empty when `deadline` passes or `stop` is requested.
  std::deque<kube::WatchEvent> take(Clock& clock, MonoTime deadline, const std::stop_token& stop) {
    std::unique_lock l(mu_);
    clock.wait_until(l, cv_, deadline, [&] { return !queue_.empty() || overflowed_ || stop.stop_requested(); });
    return std::exchange(queue_, {});
  }
  bool overflowed() {
    std::lock_guard l(mu_);
    return overflowed_;
  }

 private:
  bool push(kube::WatchEvent e) {
    std::lock_guard l(mu_);
    overflowed_ = overflowed_ || queue_.size() >= kMaxQueued;
    if (!overflowed_) queue_.push_back(std::move(e));
    cv_.notify_all();
    return !overflowed_;
  }
  std::mutex mu_;
  std::condition_variable cv_;
  std::deque<kube::WatchEvent> queue_;  // guarded by mu_
  bool overflowed_ = false;             // guarded by mu_
};

}  // namespace

Result<ObjectPtr> LocalClient::get(const kube::Resource& r, std::string_view ns, std::string_view name) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  auto e = registry_.get(**k, {ns, name});
  if (!e) return failed(e);
  return (*e)->object;
}

Result<kube::ObjectList> LocalClient::list(const kube::Resource& r, const kube::ListOptions& o) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  auto f = filter_of(o);
  if (!f) return propagate(f);
  auto l = registry_.list(**k, {.filter = std::move(*f)});
  if (!l) return failed(l);
  kube::ObjectList out{.resource_version = std::to_string(l->revision)};
  out.items.reserve(l->items.size());
  for (auto& e : l->items) out.items.push_back(e->object);
  return out;
}

Result<ObjectPtr> LocalClient::create(const kube::Resource& r, std::string_view ns, const Object& o) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  auto e = registry_.create(**k, ns, o, {});
  if (!e) return failed(e);
  return (*e)->object;
}

Result<ObjectPtr> LocalClient::update(const kube::Resource& r, const Object& o, std::string_view subresource) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  // The views point into `o`, which outlives the call.
  auto done = registry_.update(**k, {kube::ns(o), kube::name(o)}, o, subresource, {});
  if (!done) return failed(done);
  return done->entry->object;
}

Result<ObjectPtr> LocalClient::patch(const kube::Resource& r, std::string_view ns, std::string_view name,
                                     kube::PatchType type, const boost::json::value& body,
                                     std::string_view subresource) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  auto e = registry_.patch(**k, {ns, name}, type, body, subresource, {});
  if (!e) return failed(e);
  return (*e)->object;
}

Result<> LocalClient::remove(const kube::Resource& r, std::string_view ns, std::string_view name,
                             const kube::DeleteOptions& o) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  DeleteRequest d{.uid = o.uid, .resource_version = o.resource_version, .propagation = o.propagation};
  if (o.grace_period_seconds >= 0) d.grace_seconds = o.grace_period_seconds;
  auto done = registry_.remove(**k, {ns, name}, d);
  if (!done) return failed(done);
  return {};
}

Result<ObjectPtr> LocalClient::create_sub(const kube::Resource& r, std::string_view ns, std::string_view name,
                                          std::string_view subresource, const Object& o) {
  if (r.group.empty() && r.plural == "pods" && (subresource == "binding" || subresource == "eviction")) {
    auto done =
        subresource == "binding" ? bind_pod(registry_, {ns, name}, o, {}) : evict_pod(registry_, {ns, name}, o, {});
    if (!done) return failed(done);
    return std::make_shared<const Object>(Object{{"kind", "Status"}, {"apiVersion", "v1"}, {"status", "Success"}});
  }
  return std::unexpected(Error{404, fmt::format("no subresource {}/{}", r.plural, subresource), "NotFound"});
}

Result<> LocalClient::watch(const kube::Resource& r, const kube::WatchOptions& o,
                            const std::function<bool(const kube::WatchEvent&)>& on_event, std::stop_token stop) {
  auto k = kind_of(r);
  if (!k) return propagate(k);
  auto f = filter_of(o);
  if (!f) return propagate(f);
  WatchRequest request{.filter = std::move(*f)};
  if (!o.resource_version.empty()) {
    Revision rev = 0;
    std::from_chars(o.resource_version.data(), o.resource_version.data() + o.resource_version.size(), rev);
    request.resource_version = rev;
  }
  auto queue = std::make_shared<EventQueue>();
  if (auto ok = registry_.watch(**k, request, queue); !ok) return failed(ok);
  auto& cache = registry_.cache().of(**k);
  std::stop_callback wake(stop, [&] { queue->wake(); });
  auto& clock = registry_.clock();
  bool wanted = true;
  while (wanted && !stop.stop_requested() && !queue->overflowed()) {
    auto events = queue->take(clock, clock.now() + kBookmarkEvery, stop);
    if (events.empty() && !stop.stop_requested()) cache.send_bookmark(*queue, registry_.cache().progress());
    for (auto& e : events) {
      wanted = wanted && !stop.stop_requested() && on_event(e);
      if (!wanted) break;
    }
  }
  cache.unsubscribe(queue.get());
  if (queue->overflowed()) return std::unexpected(Error{410, "the watcher fell too far behind", "Expired"});
  return {};
}

}  // namespace hawser::apiserver
