// SPDX-License-Identifier: Apache-2.0
// Controller: one keyed reconcile loop. A subclass says in watch() which changes make which keys due, and in sync()
// makes one key right. The base owns queue, workers and retries: a failed sync is tried again at growing intervals, a
// lost compare-and-swap at once. Of the `workers` threads the first begins with start(), the others when keys wait.
//
// Threads: watch() once, before the caches start; handlers on informer threads; sync() on worker threads, never twice
// for one key at a time; start() when every cache is synced; stop() from anywhere else.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "controlplane/controllers/kind_cache.h"
#include "controlplane/controllers/options.h"
#include "controlplane/controllers/parallel.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/work_queue.h"

namespace hawser::controllers {

// One cache per kind, for all controllers of the process.
class Caches {
 public:
  Caches(kube::Client& client, Clock& clock);
  [[nodiscard]] KindCache& of(const kube::Resource& r);
  [[nodiscard]] const std::vector<std::unique_ptr<KindCache>>& all() const { return all_; }

 private:
  std::vector<std::unique_ptr<KindCache>> all_;
};

// What a controller works with. Outlives the controllers.
struct Context {
  kube::Client& client;
  Clock& clock;
  const Options& options;
  Caches& caches;
  Parallel& parallel;
  kube::EventRecorder& events;

  // Writes that the cache knows at once.
  Result<ObjectPtr> create(const kube::Resource& r, const Object& o);
  Result<ObjectPtr> update(const kube::Resource& r, const Object& o, std::string_view subresource = "");
  // Absent is success. With the object's uid as precondition.
  Result<> remove(const kube::Resource& r, const Object& o, kube::DeleteOptions options = {});
  // Events for `kubectl describe`.
  void note(const kube::Resource& r, const Object& about, std::string_view reason, std::string message);
  void warn(const kube::Resource& r, const Object& about, std::string_view reason, std::string message);
  // Status alone, against the version `o` was read at.
  Result<ObjectPtr> update_status(const kube::Resource& r, const Object& o, Object status);
};

class Controller {
 public:
  // sync()'s answer: nothing more to do, or look again after this long.
  using Outcome = Result<std::optional<Nanos>>;

  Controller(Context& ctx, std::string_view name, std::size_t workers);
  virtual ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  virtual void watch() = 0;
  virtual Outcome sync(const std::string& key) = 0;
  // When every cache is synced and before the first sync.
  virtual void prepare() {}

  void start();
  void stop();
  [[nodiscard]] std::string_view name() const { return name_; }

 protected:
  [[nodiscard]] KindCache& cache(const kube::Resource& r) { return ctx_.caches.of(r); }
  void enqueue(const std::string& key) { queue_.add(key); }
  void enqueue_after(const std::string& key, Nanos delay) { queue_.add_after(key, delay); }
  // Objects of `r` are keys themselves.
  void watch_as_key(const kube::Resource& r);
  // A changed object of `r` makes its controller due, if that is of kind `owner`.
  void watch_owned(const kube::Resource& r, const kube::Resource& owner);

  Context& ctx_;

 private:
  void work();
  void add_worker();

  const std::string_view name_;
  const std::size_t workers_;
  kube::WorkQueue queue_;
  std::mutex mu_;
  std::vector<std::thread> threads_;  // guarded by mu_
  bool stopping_ = false;             // guarded by mu_
};

}  // namespace hawser::controllers
