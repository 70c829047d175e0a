// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/watch_hub.h"

#include <algorithm>

#include "lib/base/log.h"

namespace hawser::store {

class WatchHub::Handle final : public Watch {
 public:
  Handle(std::shared_ptr<WatchHub> hub, WatcherPtr w) : hub_(std::move(hub)), watcher_(std::move(w)) {}
  ~Handle() override { hub_->remove(watcher_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

 private:
  std::shared_ptr<WatchHub> hub_;
  WatcherPtr watcher_;
};

WatchHub::WatchHub(Log& log, Revision revision, std::size_t max_queued_bytes)
    : log_(log), max_queued_bytes_(max_queued_bytes), published_(revision) {}

WatchHub::~WatchHub() {
  stop();
}

void WatchHub::start() {
  thread_ = std::thread([this] { run(); });
}

void WatchHub::stop() {
  {
    std::lock_guard l(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void WatchHub::publish(std::vector<Event> events) {
  if (events.empty()) return;
  Commit c{.first = events.front().kv.mod_revision, .last = events.back().kv.mod_revision};
  for (auto& e : events) c.bytes += e.kv.key.size() + e.kv.value.size() + sizeof(Event);
  c.batch = {.events = std::move(events), .progress = c.last};
  {
    std::lock_guard l(mu_);
    published_ = c.last;
    if (watchers_.empty()) return;
    queued_bytes_ += c.bytes;
    queue_.push_back(std::move(c));
    if (queued_bytes_ > max_queued_bytes_) {
      // Some callback is slow. What is dropped here is durable: everybody is behind now and reads it from the history.
      queue_.clear();
      queued_bytes_ = 0;
    }
  }
  wake_.notify_one();
}

std::unique_ptr<Watch> WatchHub::add(KeySpan span, Revision from, WatchFn fn) {
  auto w = std::make_shared<Watcher>();
  w->span = std::move(span);
  w->fn = std::move(fn);
  {
    std::lock_guard l(mu_);
    w->next = from > 0 ? from : published_ + 1;
    w->reported = w->next - 1;
    watchers_.push_back(w);
  }
  wake_.notify_one();
  return std::make_unique<Handle>(shared_from_this(), std::move(w));
}

void WatchHub::remove(const WatcherPtr& w) {
  std::unique_lock l(mu_);
  w->removed = true;
  std::erase(watchers_, w);
  if (std::this_thread::get_id() == thread_.get_id()) return;  // from a callback: it cannot wait for itself
  called_.wait(l, [&] { return running_ != w.get(); });
}

bool WatchHub::anyone_behind() const {
  return std::ranges::any_of(watchers_, [at = level()](const WatcherPtr& w) { return w->next <= at; });
}

void WatchHub::run() {
  std::unique_lock l(mu_);
  while (!stop_) {
    // One chunk for each that is behind, then one commit for all that are level: neither starves the other.
    catch_up(l);
    if (!queue_.empty()) {
      deliver_commit(l);
      continue;
    }
    if (!anyone_behind()) tell_progress(l);
    wake_.wait(l, [this] { return stop_ || !queue_.empty() || anyone_behind(); });
  }
}

void WatchHub::call(std::unique_lock<std::mutex>& l, const WatcherPtr& w, const EventBatch& batch) {
  w->reported = batch.progress;
  running_ = w.get();
  l.unlock();
  w->fn(batch);
  l.lock();
  running_ = nullptr;
  called_.notify_all();
}

void WatchHub::deliver_commit(std::unique_lock<std::mutex>& l) {
  Commit c = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= c.bytes;
  const auto targets = watchers_;
  for (const auto& w : targets) {
    if (w->removed || stop_ || w->next < c.first || w->next > c.last) continue;
    auto wanted = [&](const Event& e) { return e.kv.mod_revision >= w->next && w->span.contains(e.kv.key); };
    const auto n = std::ranges::count_if(c.batch.events, wanted);
    EventBatch some;
    if (n != std::ssize(c.batch.events)) {
      some.progress = c.last;
      std::ranges::copy_if(c.batch.events, std::back_inserter(some.events), wanted);
    }
    w->next = c.last + 1;
    if (n > 0) call(l, w, some.events.empty() ? c.batch : some);
  }
}

void WatchHub::catch_up(std::unique_lock<std::mutex>& l) {
  const auto targets = watchers_;
  for (const auto& w : targets) {
    const Revision to = level();
    if (w->removed || stop_ || w->next > to) continue;
    const HistoryRequest request{.span = w->span, .from = w->next, .to = to};
    l.unlock();
    auto history = log_.history(request);
    l.lock();
    if (w->removed || stop_) continue;
    if (!history) {
      if (!is_gone(history.error())) log::error("watch of {}: ended: {}", w->span.low, history.error().text);
      w->removed = true;
      std::erase(watchers_, w);
      call(l, w, EventBatch{.events = {}, .progress = w->reported, .lost = true});
      continue;
    }
    w->next = history->progress + 1;
    if (!history->events.empty()) call(l, w, {std::move(history->events), history->progress});
  }
}

void WatchHub::tell_progress(std::unique_lock<std::mutex>& l) {
  const auto targets = watchers_;
  for (const auto& w : targets) {
    if (w->removed || stop_ || w->next - 1 <= w->reported) continue;
    call(l, w, EventBatch{.events = {}, .progress = w->next - 1});
  }
}

}  // namespace hawser::store
