// SPDX-License-Identifier: Apache-2.0
// Registry: the verbs of the Kubernetes API over Store + schema, the same for every kind. The HTTP front and
// LocalClient are thin callers of it.
//
// A write is: read the current entry from the cache, build the next object, let strategy and schema judge it, commit
// with a compare on the current revision, and start again if somebody was faster (unless the client fixed the
// resourceVersion: 409). Calls block for one durable commit and may come from any thread; the result is visible to
// every later read. Source: Kubernetes API concepts and conventions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "controlplane/apiserver/service_ip.h"
#include "controlplane/apiserver/strategy.h"
#include "controlplane/apiserver/watch_cache.h"

namespace hawser::apiserver {

struct ObjectName {
  std::string_view ns;  // empty for a cluster-scoped kind
  std::string_view name;
  [[nodiscard]] std::string key() const { return object_key(ns, name); }
};

struct WriteOptions {
  bool dry_run = false;
  schema::FieldValidation validation = schema::FieldValidation::kIgnore;
  std::vector<std::string> findings;             // what parsing a patch found: duplicate keys
  std::vector<std::string>* warnings = nullptr;  // where warnings of a patched object go
};

enum class VersionMatch { kUnset, kExact, kNotOlderThan };
struct ListRequest {
  Filter filter;
  std::optional<Revision> resource_version;  // as sent; "0" is 0
  VersionMatch match = VersionMatch::kUnset;
  std::int64_t limit = 0;
  std::string continue_token;
};
struct ListReply {
  Revision revision = 0;
  std::vector<EntryPtr> items;
  std::string continue_token;
  std::optional<std::int64_t> remaining;
};

struct WatchRequest {
  Filter filter;
  std::optional<Revision> resource_version;
  bool send_initial_events = false;
  bool from_now = false;  // only what is still to come
};

struct Written {
  EntryPtr entry;
  bool created = false;
};
struct Deleted {
  EntryPtr entry;     // its last state
  bool gone = false;  // false: marked, and waiting for its finalizers or its agent
};

class Registry {
 public:
  Registry(store::Store& store, WatchCache& cache, ServiceAllocator& allocator, Clock& clock);

  Expected<EntryPtr> get(const Kind& k, ObjectName at, Revision not_older_than = 0);
  Expected<ListReply> list(const Kind& k, const ListRequest& r);
  // `w` gets events until it is unsubscribed from cache().of(k).
  Expected<> watch(const Kind& k, const WatchRequest& r, const std::shared_ptr<Watcher>& w);

  Expected<EntryPtr> create(const Kind& k, std::string_view ns, Object o, const WriteOptions& w);
  Expected<Written> update(const Kind& k, ObjectName at, Object o, std::string_view sub, const WriteOptions& w);
  Expected<EntryPtr> patch(const Kind& k, ObjectName at, kube::PatchType type, const Value& body, std::string_view sub,
                           const WriteOptions& w);
  Expected<Deleted> remove(const Kind& k, ObjectName at, const DeleteRequest& r);
  // Deletes what the list selects; returns what was there.
  Expected<ListReply> remove_collection(const Kind& k, const ListRequest& l, const DeleteRequest& r);

  // Read-modify-write: `change` may run several times, each on a newer entry.
  using Change = std::function<Expected<Object>(const EntryPtr& current)>;
  Expected<EntryPtr> mutate(const Kind& k, ObjectName at, std::string_view sub, const Change& change,
                            const WriteOptions& w);

  [[nodiscard]] WatchCache& cache() { return cache_; }
  [[nodiscard]] Clock& clock() { return clock_; }
  // A field selector names a path that the kind has.
  static Expected<> check_selectable(const Kind& k, const Filter& f);

 private:
  struct Commit {
    const Kind& kind;
    std::string key;               // in the kind
    Revision expected = 0;         // of the object; 0: must not exist
    std::optional<Object> object;  // none: delete
    Allocation allocation;
    std::string require_key;        // another key that must still be at
    Revision require_revision = 0;  // this revision (the namespace of a new object)
    store::LeaseId lease = 0;
  };
  // What came of it: the entry (the last state of a deleted one), or null when a compare failed and the cache has
  // caught up.
  Expected<EntryPtr> commit(Commit c);
  static store::Txn plan(const Commit& c, const std::string& key, const std::string& stored);
  Expected<> explain_failure(const Commit& c, const store::TxnReply& reply);
  Expected<> wait_for_cache(Revision r);
  // A version that a client names: 504 if it does not come to be soon.
  Expected<> wait_for_asked(Revision r);

  Expected<EntryPtr> namespace_for(const Kind& k, std::string_view ns, std::string_view name);
  Expected<EntryPtr> create_named(const Kind& k, std::string_view ns, Object o, const WriteOptions& w);
  Expected<EntryPtr> try_update(const Kind& k, const EntryPtr& current, Object next, std::string_view sub,
                                bool dry_run);
  Expected<ListReply> list_at(const Kind& k, const ListRequest& r, Revision revision, const std::string& start);
  Expected<store::LeaseId> event_lease();

  store::Store& store_;
  WatchCache& cache_;
  ServiceAllocator& allocator_;
  Clock& clock_;

  std::atomic<int> future_waiters_ = 0;
  std::mutex lease_mu_;
  store::LeaseId lease_ = 0;     // guarded by lease_mu_
  MonoTime lease_granted_at_{};  // guarded by lease_mu_
};

}  // namespace hawser::apiserver
