// SPDX-License-Identifier: Apache-2.0
// FakeClient: a working API server in memory behind the Client interface, for tests. It keeps resource versions,
// compare-and-swap, generateName, finalizers, graceful pod deletion, the status subresource, bindings, label and field
// selectors, and a watch history that can be compacted. It does not validate, default, or collect garbage. Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::kube {

class FakeClient final : public Client {
 public:
  struct Call {
    std::string verb;      // get list create update patch delete watch
    std::string resource;  // plural
    std::string ns, name, subresource;
  };

  explicit FakeClient(Clock& clock = system_clock()) : clock_(clock) {}

  Result<ObjectPtr> get(const Resource& r, std::string_view ns, std::string_view name) override;
  Result<ObjectList> list(const Resource& r, const ListOptions& o) override;
  Result<ObjectPtr> create(const Resource& r, std::string_view ns, const Object& o) override;
  Result<ObjectPtr> update(const Resource& r, const Object& o, std::string_view subresource = "") override;
  Result<ObjectPtr> patch(const Resource& r, std::string_view ns, std::string_view name, PatchType type,
                          const boost::json::value& body, std::string_view subresource = "") override;
  Result<> remove(const Resource& r, std::string_view ns, std::string_view name, const DeleteOptions& o = {}) override;
  Result<ObjectPtr> create_sub(const Resource& r, std::string_view ns, std::string_view name,
                               std::string_view subresource, const Object& o) override;
  Result<> watch(const Resource& r, const WatchOptions& o, const std::function<bool(const WatchEvent&)>& on_event,
                 std::stop_token stop) override;

  // Asked before each call; an Error makes the call fail with it and do nothing. Null: no faults.
  void set_fault(std::function<std::optional<Error>(const Call&)> fault);
  // Ends every running watch: as a server that restarts does (error), or as one whose watch timed out (no error).
  void break_watches(std::optional<Error> with = Error{104, "connection reset", {}});
  // Forgets the history: a watch from any version before now gets 410.
  void compact();
  // Sends a bookmark with the current version to every running watch.
  void bookmark();
  [[nodiscard]] int watching() const;  // watches that are running
  [[nodiscard]] std::vector<Call> calls() const;
  void clear_calls();

 private:
  struct Change {
    std::int64_t version = 0;
    std::string resource;
    ObjectPtr old, current;  // as in InformerHandlers
    bool bookmark = false;
  };
  using Table = std::map<std::string, ObjectPtr>;  // by "namespace/name" or "name"
  struct Filter;

  Result<> begin(Call call);
  // mu_ held:
  Result<ObjectPtr> find_locked(const Resource& r, std::string_view ns, std::string_view name);
  ObjectPtr store_locked(const Resource& r, Object o, const ObjectPtr& old);
  void erase_locked(const Resource& r, const ObjectPtr& old);
  Result<ObjectPtr> update_locked(const Resource& r, const Object& o, std::string_view subresource);
  Result<ObjectPtr> bind_locked(const Resource& r, const ObjectPtr& pod, const Object& binding);

  Clock& clock_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Table> tables_;                     // guarded by mu_; by plural.group
  std::deque<Change> history_;                              // guarded by mu_
  std::int64_t version_ = 1;                                // guarded by mu_
  std::int64_t compacted_ = 0;                              // guarded by mu_
  int breaks_ = 0;                                          // guarded by mu_; counts break_watches()
  std::optional<Error> break_error_;                        // guarded by mu_
  int watching_ = 0;                                        // guarded by mu_
  std::vector<Call> calls_;                                 // guarded by mu_
  std::function<std::optional<Error>(const Call&)> fault_;  // guarded by mu_
};

}  // namespace hawser::kube
