// SPDX-License-Identifier: Apache-2.0
// Store: etcd's contract over any engine. One revision counter for the whole store; every successful transaction that
// writes takes the next revision, and all its writes carry it. Keys and values are bytes. Source: etcd v3 API (kv,
// watch, lease).
//
// Threads: any. txn() returns when the write is durable (power cut included); concurrent callers share one fsync (group
// commit). Watches see every event exactly once, in revision order, events of one revision together, and only durable
// ones. Errors: kCompacted (HTTP-style code 410) for a revision older than the last compaction; EINVAL for one in the
// future and for a malformed request; 404 for an unknown lease; ENOSPC for a full disk, after which the store still
// serves reads and recovers by itself when space is back. A failed transaction left nothing behind.
//
// Theory of operation. The store is a history of rows, one per write, ordered by revision; a deletion is a row without
// a value (a tombstone). The present is the newest row of each key, the past is the newest row not above a revision, a
// watch is the rows from a revision on, and compaction drops rows that no permitted question can reach. An empty store
// is at revision 1. Worked through (r: mod_revision, c: create_revision, v: version):
//
//   put a=x            revision 2   a: r2 c2 v1 x
//   put a=y, b=z       revision 3   a: r2 c2 v1 x | r3 c2 v2 y            b: r3 c3 v1 z       (one transaction, one
//   revision) delete a           revision 4   a: r2 c2 v1 x | r3 c2 v2 y | r4 dead  b: r3 c3 v1 z put a=w revision 5 a:
//   r2 ... | r3 ... | r4 dead | r5 c5 v1 w   b: r3 ...     (a new life: c and v start again) delete q revision 5
//   nothing: a transaction that changes nothing takes no revision
//
//   range now          a=w (r5) b=z (r3);   range at 3: a=y b=z;   range at 4: b=z
//   watch from 3       {r3: put a=y (previous x), put b=z} {r4: delete a (previous y)} {r5: put a=w}, then what comes
//
//   compact(4)         a: r4 dead | r5 c5 v1 w   b: r3 c3 v1 z
//                      r2 and r3 of a cannot be seen from 4 on. The tombstone at 4 stays, because a watch may still
//                      start at 4, and goes with the next compaction. b's row is old but still the answer to every
//                      range. From now on a range at 3 or a watch from 3 fails with kCompacted; 4 and later work as
//                      before.
//   compact(5)         a: r5 c5 v1 w             b: r3 c3 v1 z
//
// How a write goes: callers of txn() queue and wait; one writer thread takes all that are queued, evaluates each one's
// compares in order against the state that those before it left, writes them as one engine transaction with one fsync,
// publishes the events to the watch thread, then answers the callers. log.h is what an engine must do; log_store.cc is
// everything else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/clock.h"
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
  std::vector<Op> failure;  // usually kGet of the compared key
};

struct TxnReply {
  bool succeeded = false;
  Revision revision = 0;           // the store's revision after it
  std::vector<KeyValue> got;       // one per kGet of the branch taken that found its key, in order
  std::vector<KeyValue> previous;  // one per kPut/kDelete that had a previous value, in order
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
  std::int64_t count = 0;  // all that match, the limit apart
};

struct Event {
  enum class Type { kPut, kDelete };
  Type type = Type::kPut;
  KeyValue kv;                               // kDelete: only key and mod_revision
  std::shared_ptr<const KeyValue> previous;  // null if there was none (or it was compacted)
};

// Batch of events of one or more whole revisions, oldest first. `progress` is the revision up to which the watcher now
// knows all; a batch without events only tells progress (sent when the store is idle and others' keys have moved the
// revision on). `lost`: the watch is over, because the history it still needed was compacted (or cannot be read); list
// again and watch anew.
struct EventBatch {
  std::vector<Event> events;
  Revision progress = 0;
  bool lost = false;
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
  // Events with mod_revision >= from_revision (0: from now on) in [key, end). `fn` runs on the store's thread and must
  // not block or call txn(); while one blocks, the others wait, and what they miss is read again from the history, so
  // memory stays bounded. A Watch is destroyed before its Store; `fn` itself may destroy it.
  virtual Result<std::unique_ptr<Watch>> watch(const std::string& key, const std::string& end, Revision from_revision,
                                               WatchFn fn) = 0;
  // Forgets what only revisions below `r` need; returns when the space is reusable. Nothing to do for r <= compacted().
  virtual Result<> compact(Revision r) = 0;
  [[nodiscard]] virtual Revision revision() = 0;
  [[nodiscard]] virtual Revision compacted() = 0;
  // A lease not kept alive for `ttl_seconds` is revoked by the store. After a restart every lease has its whole time
  // again.
  virtual Result<LeaseId> lease_grant(std::int64_t ttl_seconds) = 0;
  virtual Result<> lease_keep_alive(LeaseId id) = 0;
  virtual Result<> lease_revoke(LeaseId id) = 0;  // deletes its keys, in one revision
};

// The end of the range of all keys that start with `prefix`.
std::string prefix_end(std::string prefix);

inline constexpr std::size_t kMaxKeyBytes = 4095;

struct SqliteOptions {
  std::string path;        // database file; its folder must exist
  Clock* clock = nullptr;  // for leases; null: the machine's. Outlives the store
};
// Fails if another process has the file open (EBUSY), if it is no store of ours or damaged (EBADMSG), or is newer
// (ENOTSUP).
Result<std::unique_ptr<Store>> open_sqlite(const SqliteOptions& o);
// The same contract in memory, for tests.
std::unique_ptr<Store> make_memory_store(Clock* clock = nullptr);

}  // namespace hawser::store
