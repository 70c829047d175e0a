// SPDX-License-Identifier: Apache-2.0
// WatchCache: the current state of every kind and its recent changes, fed by one watch on the store. All reads and all
// watches of the API are served from here, so neither touches the store nor parses JSON.
//
// Theory of operation. A writer announces a Draft (the parsed object and its stored bytes), commits to the store, then
// waits until `progress` reaches the commit's revision. The store's watch calls apply() with the event; a draft with
// the same bytes is published as it is, so an object is parsed once in its life (a request body) and serialized once.
// The event goes into the kind's map and ring, then to each watcher whose filter it passes; its frame is built once for
// all of them. Reads are linearizable: a write is acknowledged only after the cache has it.
//
// When the store's watch is lost (its history was compacted before we read it), everything is loaded again, and
// watchers are told that they missed something, as after a restart.
//
// Locks: each kind has one; progress_mu_ and drafts_mu_ are leaves. Watcher::deliver runs under the kind's lock and
// must not block nor call back. A watcher that left is found by its deliver() returning false.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "controlplane/apiserver/entry.h"
#include "lib/kube/selector.h"

namespace hawser::apiserver {

// Which objects a list or watch shows.
struct Filter {
  std::string ns;  // empty: all
  kube::LabelSelector labels;
  std::vector<kube::FieldRequirement> fields;
  [[nodiscard]] bool matches(const Entry& e) const;
  [[nodiscard]] bool unrestricted() const { return ns.empty() && labels.empty() && fields.empty(); }
};

// The line of one event in a JSON watch, built at first use and then shared by every stream.
class Frame {
 public:
  Frame(kube::EventType type, EntryPtr entry) : type_(type), entry_(std::move(entry)) {}
  [[nodiscard]] kube::EventType type() const { return type_; }
  [[nodiscard]] const EntryPtr& entry() const { return entry_; }
  const std::shared_ptr<const std::string>& line();

 private:
  kube::EventType type_;
  EntryPtr entry_;
  std::shared_ptr<const std::string> line_;
};
[[nodiscard]] std::string_view event_name(kube::EventType t);

class Watcher {
 public:
  virtual ~Watcher() = default;
  // In revision order. False: gone, forget it.
  virtual bool deliver(Frame& frame) = 0;
  virtual bool bookmark(Revision revision, bool initial_events_end) = 0;
  // Events were missed: it must list again. It gets nothing more.
  virtual void expire() = 0;
};

struct WatchStart {
  Revision after = 0;             // events later than this
  bool initial_state = false;     // first ADDED for all there is
  bool initial_bookmark = false;  // and then a bookmark that says so
};

struct Snapshot {
  Revision revision = 0;
  std::vector<EntryPtr> items;  // in key order
};

class ResourceCache {
 public:
  explicit ResourceCache(const Kind& kind) : kind_(kind) {}
  [[nodiscard]] const Kind& kind() const { return kind_; }
  [[nodiscard]] EntryPtr get(std::string_view key) const;
  // `progress`: what the whole cache is known to have reached.
  [[nodiscard]] Snapshot list(const Filter& f, Revision progress) const;
  // The revision of the last change of this kind.
  [[nodiscard]] Revision last_change() const;
  [[nodiscard]] std::size_t size() const;

  // 410 when the ring no longer reaches back to start.after.
  Expected<> subscribe(const std::shared_ptr<Watcher>& w, Filter f, const WatchStart& start, Revision progress);
  void unsubscribe(const Watcher* w);
  // A bookmark in order with the events.
  void send_bookmark(Watcher& w, Revision progress);
  [[nodiscard]] std::size_t watchers() const;

 private:
  friend class WatchCache;
  struct Change {
    Revision revision = 0;
    EntryPtr previous, current;  // null: none before, deleted
  };
  struct Subscription {
    std::shared_ptr<Watcher> watcher;
    Filter filter;
  };
  // Starts over, from the state at `floor`; watchers expire.
  void reset(std::map<std::string, EntryPtr, std::less<>> items, Revision floor);
  void apply(std::string_view key, Revision revision, EntryPtr current);
  void remember(Change c);
  static bool offer(const Subscription& s, const Change& c, std::array<std::unique_ptr<Frame>, 3>& frames);

  const Kind& kind_;
  mutable std::mutex mu_;
  // guarded by mu_
  std::map<std::string, EntryPtr, std::less<>> items_;
  std::deque<Change> ring_;
  std::size_t ring_bytes_ = 0;
  Revision floor_ = 0;  // the ring holds every change after this
  Revision last_change_ = 0;
  std::vector<Subscription> subscriptions_;
};

// What a writer hands over before its commit.
struct Draft {
  std::string key;  // the store's
  std::string stored;
  Object object;       // apply() moves it out
  EntryPtr published;  // guarded by WatchCache::drafts_mu_
};

class WatchCache {
 public:
  WatchCache(store::Store& store, std::span<const Kind> kinds);
  ~WatchCache();
  WatchCache(const WatchCache&) = delete;
  WatchCache& operator=(const WatchCache&) = delete;

  // Loads everything and follows the store from then on.
  Result<> start();
  void stop();
  // Called with every change of a key that belongs to no kind, and, when all is loaded (again), before the first of
  // them (before start only).
  void on_other_key(
      std::function<void(const store::Event&)> fn, std::function<void()> on_reload = [] {}) {
    other_key_ = std::move(fn);
    on_reload_ = std::move(on_reload);
  }

  [[nodiscard]] ResourceCache& of(const Kind& k);
  [[nodiscard]] Revision progress() const;
  // False while the store's changes are not followed: its watch was lost and could not be taken up again yet.
  [[nodiscard]] bool following() const { return !lost_; }
  // False if `timeout` passes first.
  bool wait_for(Revision r, Nanos timeout);

  std::shared_ptr<Draft> announce(std::string key, std::string stored, Object object);
  // The entry published from the draft; null if the store never reported it. Ends the draft.
  EntryPtr finish(const std::shared_ptr<Draft>& d);

 private:
  Result<> load(Revision base);
  Result<> follow(Revision base);
  void heal();
  void apply(const store::EventBatch& b);
  void apply_one(const store::Event& e);
  EntryPtr take_entry(const store::KeyValue& kv);
  ResourceCache* cache_of_key(std::string_view key, std::string_view& object_key);

  store::Store& store_;
  std::unordered_map<std::string, std::unique_ptr<ResourceCache>> by_prefix_;
  std::unordered_map<const Kind*, ResourceCache*> by_kind_;
  std::function<void(const store::Event&)> other_key_;
  std::function<void()> on_reload_;
  std::unique_ptr<store::Watch> watch_;  // the healer's once it runs

  std::mutex heal_mu_;
  std::condition_variable heal_cv_;
  bool must_heal_ = false;  // guarded by heal_mu_
  bool stopping_ = false;   // guarded by heal_mu_
  std::atomic<bool> lost_ = false;
  std::thread healer_;
  mutable std::mutex progress_mu_;
  std::condition_variable progress_cv_;
  Revision progress_ = 0;  // guarded by progress_mu_

  std::mutex drafts_mu_;
  std::unordered_multimap<std::string, std::shared_ptr<Draft>> drafts_;  // guarded by drafts_mu_
};

}  // namespace hawser::apiserver
