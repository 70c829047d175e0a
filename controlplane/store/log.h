// SPDX-License-Identifier: Apache-2.0
// Log: what LogStore needs from a storage engine, the history of store.h with one open transaction at a time. Engines:
// SqliteLog (durable) and MemoryLog (the working fake). Neither knows about compares, waiting callers, watches or time.
//
// Threads: the writing half belongs to LogStore's writer thread; the reading half is called from any thread, sees only
// committed data, and never waits for a commit's fsync.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/store/store.h"
#include "lib/base/result.h"

namespace hawser::store {

// The revision of an empty store, as in etcd: 0 never names a state, so that a list of nothing can be watched from.
inline constexpr Revision kFirstRevision = 1;
// Writes in one revision: more do not fit an engine's row id.
inline constexpr int kMaxOps = (1 << 20) - 1;

// A range request's keys as [low, high).
struct KeySpan {
  std::string low;
  std::string high;
  static KeySpan of(const std::string& key, const std::string& end);
  [[nodiscard]] bool contains(const std::string& key) const { return key >= low && key < high; }
};

// Whether a reader may ask for revision `want` (0: now).
Result<> check_revision(Revision want, Revision now, Revision compacted);

struct LogState {
  Revision revision = kFirstRevision;
  Revision compacted = 0;
  std::vector<std::pair<LeaseId, std::int64_t>> leases;  // id, ttl in seconds
};

struct HistoryRequest {
  KeySpan span;
  Revision from = 0;
  Revision to = 0;  // included
  std::size_t max_events = 512;
  std::size_t max_bytes = 1 << 20;
};
struct History {
  std::vector<Event> events;  // whole revisions
  Revision progress = 0;      // the last revision covered; `to` if nothing was left out
};

class Log {
 public:
  virtual ~Log() = default;

  // Writer thread. begin() opens the one transaction; until commit() or rollback() the calls below belong to it and see
  // its writes.
  virtual Result<> begin() = 0;
  virtual Result<> commit() = 0;  // durable when it returns success; after a failure the caller calls rollback()
  virtual void rollback() = 0;
  virtual Result<std::shared_ptr<const KeyValue>> latest(const std::string& key) = 0;  // null: no such key now
  // Row number `position` of revision e.kv.mod_revision. Rows come in order, and a key at most once in a revision.
  virtual Result<> append(const Event& e, int position) = 0;
  virtual Result<> set_compacted(Revision r) = 0;
  virtual Result<> set_lease(LeaseId id, std::int64_t ttl_seconds) = 0;  // 0: forget it
  virtual Result<std::vector<std::string>> lease_keys(LeaseId id) = 0;
  // One short step of housekeeping outside a transaction: drops rows below set_compacted(), gives space back. True:
  // call again.
  virtual Result<bool> maintain() = 0;

  // Any thread.
  virtual Result<RangeReply> range(const RangeRequest& r) = 0;
  virtual Result<History> history(const HistoryRequest& r) = 0;
};

struct OpenLog {
  std::unique_ptr<Log> log;
  LogState state;
};

}  // namespace hawser::store
