// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/http_watch.h"

#include <atomic>

#include <boost/json/serialize.hpp>

#include "lib/base/random.h"

namespace hawser::apiserver {

namespace {

constexpr auto kSweepEvery = std::chrono::seconds(1);
constexpr auto kBookmarkEvery = std::chrono::seconds(60);
// A bookmark goes out this long before the end, so that the client resumes without a gap.
constexpr auto kLastBookmark = std::chrono::seconds(2);
// Without timeoutSeconds: 30 to 60 minutes, spread so that not all watches end together.
constexpr auto kDefaultTimeout = std::chrono::minutes(30);

std::string event_line(std::string_view type, const Object& o) {
  return fmt::format("{{\"type\":\"{}\",\"object\":{}}}\n", type, boost::json::serialize(o));
}

}  // namespace

class HttpWatch final : public Watcher {
 public:
  HttpWatch(const Kind& k, View v, bool bookmarks, std::shared_ptr<http::Stream> out)
      : kind_(k), view_(std::move(v)), bookmarks_(bookmarks), out_(std::move(out)) {}

  bool deliver(Frame& frame) override {
    if (view_.accepted.shape == Shape::kObject) return out_->write(frame.line());
    auto o = shaped_object(kind_, frame.entry()->object, view_, !columns_sent_);
    columns_sent_ = true;
    return out_->write(event_line(event_name(frame.type()), o));
  }
  bool bookmark(Revision revision, bool initial_events_end) override {
    return out_->write(event_line("BOOKMARK", bookmark_object(kind_, revision, initial_events_end, view_)));
  }
  void expire() override { fail(kube::expired("The resourceVersion for the provided watch is too old.")); }
  void fail(const kube::Status& s) {
    out_->write(event_line("ERROR", s.to_json()));
    out_->close();
  }

  const Kind& kind() const { return kind_; }
  bool wants_bookmarks() const { return bookmarks_; }
  bool open() const { return out_->open(); }
  void close() { out_->close(); }

  // WatchHub's, under its lock.
  MonoTime next_bookmark{}, end{};

 private:
  const Kind& kind_;
  const View view_;
  const bool bookmarks_;
  const std::shared_ptr<http::Stream> out_;
  bool columns_sent_ = false;  // under the kind's lock
};

WatchHub::WatchHub(Registry& registry, Clock& clock) : registry_(registry), clock_(clock) {
  thread_ = std::thread([this] { run(); });
}

WatchHub::~WatchHub() {
  stop();
}

void WatchHub::stop() {
  {
    std::lock_guard l(mu_);
    stopping_ = true;
  }
  cv_.notify_all();
  if (thread_.joinable()) thread_.join();
  std::vector<std::shared_ptr<HttpWatch>> all;
  {
    std::lock_guard l(mu_);
    all.swap(watches_);
  }
  for (auto& w : all) {
    registry_.cache().of(w->kind()).unsubscribe(w.get());
    w->close();
  }
}

std::size_t WatchHub::size() const {
  std::lock_guard l(mu_);
  return watches_.size();
}

void WatchHub::run() {
  std::unique_lock l(mu_);
  while (!clock_.wait_until(l, cv_, clock_.now() + kSweepEvery, [&] { return stopping_; })) {
    l.unlock();
    sweep(clock_.now());
    l.lock();
  }
}

void WatchHub::sweep(MonoTime now) {
  std::vector<std::shared_ptr<HttpWatch>> bookmark, ended;
  {
    std::lock_guard l(mu_);
    for (auto& w : watches_) {
      bool over = !w->open() || now >= w->end;
      if (over) ended.push_back(w);
      if (over || !w->wants_bookmarks() || now < w->next_bookmark) continue;
      w->next_bookmark = now + kBookmarkEvery;
      if (w->end - kLastBookmark > now && w->next_bookmark > w->end - kLastBookmark)
        w->next_bookmark = w->end - kLastBookmark;
      bookmark.push_back(w);
    }
    std::erase_if(watches_, [&](auto& w) { return !w->open() || now >= w->end; });
  }
  auto progress = registry_.cache().progress();
  for (auto& w : bookmark) registry_.cache().of(w->kind()).send_bookmark(*w, progress);
  for (auto& w : ended) {
    registry_.cache().of(w->kind()).unsubscribe(w.get());
    w->close();
  }
}

void WatchHub::serve(const Kind& k, const ListParams& p, const View& v, http::Responder& out) {
  http::Response head;
  head.headers.set("Content-Type", "application/json");
  head.headers.set("Cache-Control", "no-cache, private");
  auto watch = std::make_shared<HttpWatch>(k, v, p.bookmarks, out.stream(std::move(head)));
  auto now = clock_.now();
  Nanos timeout =
      p.timeout_seconds > 0 ? Nanos(std::chrono::seconds(p.timeout_seconds)) : with_jitter(kDefaultTimeout, 1.0);
  watch->end = now + timeout;
  watch->next_bookmark = std::min<MonoTime>(now + kBookmarkEvery, watch->end - kLastBookmark);
  WatchRequest request{.filter = p.list.filter,
                       .resource_version = p.list.resource_version,
                       .send_initial_events = p.send_initial_events.value_or(false),
                       .from_now = p.send_initial_events == false && !p.list.resource_version};
  if (auto ok = registry_.watch(k, request, watch); !ok) {
    watch->fail(ok.error());
    return;
  }
  bool late = false;
  {
    std::lock_guard l(mu_);
    late = stopping_;
    if (!late) watches_.push_back(watch);
  }
  if (!late) return;
  registry_.cache().of(k).unsubscribe(watch.get());
  watch->close();
}

}  // namespace hawser::apiserver
