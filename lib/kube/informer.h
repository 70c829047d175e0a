// SPDX-License-Identifier: Apache-2.0
// Informer: a local, always-current copy of one kind, by list and then watch. Resumes from the last resourceVersion
// after a broken watch, lists again after 410 Gone, backs off (100 ms doubling to 10 s, with jitter) while the API is
// away, and keeps serving the last state meanwhile: nothing is ever "empty" because the API cannot be reached.
//
// Theory of operation: one thread per informer runs list -> watch -> watch ... Each event first updates the cache, then
// calls the handler on that thread; handlers must be short (post to your own queue) and never call stop(). A relist is
// turned into the adds, updates and deletes that differ, so handlers never see a gap or an event twice with the same
// resourceVersion. get(), list(), synced() are safe from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::kube {

struct InformerHandlers {
  // old is null for an add, current is null for a delete.
  std::function<void(const ObjectPtr& old, const ObjectPtr& current)> on_change;
  // Once, after the first list has been delivered.
  std::function<void()> on_synced;
};

class Informer {
 public:
  Informer(Client& client, const Resource& resource, ListOptions options = {}, Clock& clock = system_clock());
  ~Informer();  // stops
  Informer(const Informer&) = delete;
  Informer& operator=(const Informer&) = delete;

  void start(InformerHandlers handlers);
  void stop();

  [[nodiscard]] bool synced() const;
  // Waits until the first list is in; false if `timeout` passes first.
  bool wait_synced(Nanos timeout);
  [[nodiscard]] ObjectPtr get(const std::string& key) const;  // key as kube::key(); null if absent
  [[nodiscard]] std::vector<ObjectPtr> list() const;
  // Failed list or watch attempts since the last success; 0 = healthy.
  [[nodiscard]] int failures() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::kube
