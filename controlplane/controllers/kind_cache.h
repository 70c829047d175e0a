// SPDX-License-Identifier: Apache-2.0
// KindCache: the one informer a process has per kind, with the indexes controllers ask for, and with our own writes in
// it at once.
//
// Why own writes: a controller that looks at a cache which has not yet seen what the controller itself did would do it
// again (a second pod, a second slice). So the result of every write is put in here by the writer (wrote(), removed()),
// and the informer's older news of the same object is ignored. A uid that is gone stays gone, whatever late event
// mentions it. An own write that no event ever confirms (the object was made and deleted while the watch was broken) is
// dropped after five minutes.
//
// Handlers run on the informer's thread, after the cache has changed, and must be short. Everything else: any thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lib/base/clock.h"
#include "lib/kube/client.h"
#include "lib/kube/informer.h"

namespace hawser::controllers {

using kube::Object;
using kube::ObjectPtr;

class KindCache {
 public:
  // old is null for an add, current for a delete.
  using Handler = std::function<void(const ObjectPtr& old, const ObjectPtr& current)>;

  KindCache(kube::Client& client, const kube::Resource& resource, kube::ListOptions options, Clock& clock);

  [[nodiscard]] const kube::Resource& resource() const { return resource_; }
  void subscribe(Handler h);  // only before start()
  void start();
  void stop();
  bool wait_synced(Nanos timeout) { return informer_.wait_synced(timeout); }

  [[nodiscard]] ObjectPtr get(const std::string& key) const;
  [[nodiscard]] std::vector<ObjectPtr> list() const;
  [[nodiscard]] std::vector<ObjectPtr> in_namespace(std::string_view ns) const;
  // Those whose controller owner reference names `uid`.
  [[nodiscard]] std::vector<ObjectPtr> owned_by(std::string_view uid) const;

  void wrote(const ObjectPtr& object);
  void removed(const Object& object);

  // One event of the informer; public for tests.
  void apply(const ObjectPtr& old, const ObjectPtr& current);

 private:
  void put(const std::string& key, const ObjectPtr& object);  // mu_ held
  void erase(const std::string& key);                         // mu_ held
  void bury(std::string_view uid);                            // mu_ held
  void drop_unconfirmed();                                    // mu_ held

  const kube::Resource resource_;
  Clock& clock_;
  std::vector<Handler> handlers_;  // fixed after start()
  mutable std::mutex mu_;
  // guarded by mu_
  std::map<std::string, ObjectPtr> by_key_;  // ordered: a namespace is a range
  std::unordered_map<std::string, std::set<std::string>> by_controller_;
  std::unordered_set<std::string> gone_;
  std::deque<std::string> gone_order_;
  std::map<std::string, MonoTime> unconfirmed_;  // by key

  kube::Informer informer_;  // last: its thread uses the rest
};

}  // namespace hawser::controllers
