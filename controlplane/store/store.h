// SPDX-License-Identifier: Apache-2.0
// Store: etcd's contract over any engine. One revision counter for the whole store; every successful transaction that writes takes
// the next revision, and all its writes carry it. Keys and values are bytes. Source: etcd v3 API (kv, watch, lease).
//
// Threads: any. txn() returns when the write is durable (power cut included); concurrent callers share one fsync (group commit).
// Watches see every event exactly once, in revision order, events of one revision together, and only durable ones.
// Errors: kCompacted (HTTP-style code 410) for a revision older than the last compaction; ENOSPC for a full disk, after which the
// store still serves reads and recovers by itself when space is back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace hawser::store {

using Revision = std::int64_t;
using LeaseId = std::int64_t;

inline constexpr int kCompacted = 410;

struct KeyValue {
  std::string key;
  std::string value;
  Revision create_revision = 0;
  Revision mod_revision = 0;
  std::int64_t version = 0;  // 1 at creation, +1 with each put
  LeaseId lease = 0;
};

struct Compare {
  enum class Target { kModRevision, kCreateRevision, kVersion, kValue };
  std::string key;
  Target target = Target::kModRevision;
  std::int64_t number = 0;  // equal to; 0 for an absent key
  std::string value;        // for kValue
};

struct Op {
  enum class Type { kPut, kDelete, kGet };
  Type type = Type::kPut;
  std::string key;
  std::string value;
  LeaseId lease = 0;
};

struct Txn {
  std::vector<Compare> compare;  // all must hold
  std::vector<Op> success;
  std::vector<Op> failure;       // usually kGet of the compared key
};

struct TxnReply {
  bool succeeded = false;
  Revision revision = 0;             // the store's revision after it
  std::vector<KeyValue> got;         // one per kGet of the branch taken that found its key, in order
  std::vector<KeyValue> previous;    // one per kPut/kDelete that had a previous value, in order
};

struct RangeRequest {
  std::string key;         // first key
  std::string end;         // first key not wanted; empty: only `key`; "\0": all from `key`
  std::int64_t limit = 0;  // 0: no limit
  Revision revision = 0;   // 0: now
  bool keys_only = false;
  bool count_only = false;
};
struct RangeReply {
  Revision revision = 0;
  std::vector<KeyValue> kvs;  // in key order
  bool more = false;
  std::int64_t count = 0;     // all that match, the limit apart
};

struct Event {
  enum class Type { kPut, kDelete };
  Type type = Type::kPut;
  KeyValue kv;                        // kDelete: only key and mod_revision
  std::shared_ptr<const KeyValue> previous;  // null if there was none (or it was compacted)
};

// Batch of events of one or more whole revisions, oldest first. `progress` is the revision up to which the watcher now knows all.
struct EventBatch {
  std::vector<Event> events;
  Revision progress = 0;
};
using WatchFn = std::function<void(const EventBatch&)>;

// Ends the watch when destroyed; no callback runs after the destructor returns.
class Watch {
 public:
  virtual ~Watch() = default;
};

class Store {
 public:
  virtual ~Store() = default;
  virtual Result<TxnReply> txn(const Txn& t) = 0;
  virtual Result<RangeReply> range(const RangeRequest& r) = 0;
  // Events with mod_revision >= from_revision in [key, end). `fn` runs on the store's thread and must not block or call txn().
  virtual Result<std::unique_ptr<Watch>> watch(const std::string& key, const std::string& end, Revision from_revision, WatchFn fn) = 0;
  virtual Result<> compact(Revision r) = 0;
  [[nodiscard]] virtual Revision revision() = 0;
  [[nodiscard]] virtual Revision compacted() = 0;
  virtual Result<LeaseId> lease_grant(std::int64_t ttl_seconds) = 0;
  virtual Result<> lease_keep_alive(LeaseId id) = 0;
  virtual Result<> lease_revoke(LeaseId id) = 0;  // deletes its keys, in one revision
};

// The end of the range of all keys that start with `prefix`.
std::string prefix_end(std::string prefix);

struct SqliteOptions {
  std::string path;  // database file; its folder must exist
};
Result<std::unique_ptr<Store>> open_sqlite(const SqliteOptions& o);
// The same contract in memory, for tests.
std::unique_ptr<Store> make_memory_store();

}  // namespace hawser::store
