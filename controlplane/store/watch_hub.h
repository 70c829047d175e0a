// SPDX-License-Identifier: Apache-2.0
// WatchHub: hands committed events to watchers, in revision order, on one thread of its own.
//
// The writer publishes each commit; the hub queues it and passes it to every watcher that is level with it. A watcher
// that is behind (it asked for a past revision, or the queue overflowed) is fed from the log's history in chunks until
// it is level again; since only this thread feeds, nothing is skipped or told twice. Memory is bounded by
// kMaxQueuedBytes plus one chunk, however slow a callback is.
//
// Threads: publish() from the writer, add() and a Watch's destructor from any. No callback runs with mu_ held.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/store/log.h"

namespace hawser::store {

class WatchHub : public std::enable_shared_from_this<WatchHub> {
 public:
  static constexpr std::size_t kMaxQueuedBytes = 8 << 20;

  // `log` must outlive stop(). `revision`: the newest there is already.
  WatchHub(Log& log, Revision revision, std::size_t max_queued_bytes = kMaxQueuedBytes);
  ~WatchHub();
  void start();
  void stop();  // joins the thread; no callback after it. Not from a callback

  // The events of the next commit: those of whole revisions, in order, following the last published one.
  void publish(std::vector<Event> events);
  std::unique_ptr<Watch> add(KeySpan span, Revision from, WatchFn fn);

 private:
  class Handle;
  struct Watcher {
    KeySpan span;
    WatchFn fn;
    Revision next = 0;      // guarded by mu_: the first revision it has not been told
    Revision reported = 0;  // guarded by mu_: the last progress it has been told
    bool removed = false;   // guarded by mu_
  };
  using WatcherPtr = std::shared_ptr<Watcher>;
  struct Commit {
    Revision first = 0;
    Revision last = 0;
    std::size_t bytes = 0;
    EventBatch batch;
  };

  void run();
  void deliver_commit(std::unique_lock<std::mutex>& l);
  void catch_up(std::unique_lock<std::mutex>& l);
  void tell_progress(std::unique_lock<std::mutex>& l);
  void call(std::unique_lock<std::mutex>& l, const WatcherPtr& w, const EventBatch& batch);
  void remove(const WatcherPtr& w);
  // The revision up to which a watcher must be before the queue's first commit can be passed to it.
  [[nodiscard]] Revision level() const { return queue_.empty() ? published_ : queue_.front().first - 1; }
  [[nodiscard]] bool anyone_behind() const;

  Log& log_;
  const std::size_t max_queued_bytes_;
  std::thread thread_;

  std::mutex mu_;
  std::condition_variable wake_;
  std::condition_variable called_;    // running_ changed
  std::deque<Commit> queue_;          // guarded by mu_
  std::size_t queued_bytes_ = 0;      // guarded by mu_
  Revision published_;                // guarded by mu_
  std::vector<WatcherPtr> watchers_;  // guarded by mu_
  const Watcher* running_ = nullptr;  // guarded by mu_: whose callback runs now
  bool stop_ = false;                 // guarded by mu_
};

}  // namespace hawser::store
