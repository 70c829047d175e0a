// SPDX-License-Identifier: Apache-2.0
// LogStore: the Store over any Log. It owns the writer thread (group commit, lease expiry, compaction steps), the lease
// times and the WatchHub; all of etcd's semantics are here, the engine only keeps rows.
//
// Lock order: mu_ is never held across a call of the log, the hub or a callback.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/store/lease_table.h"
#include "controlplane/store/log.h"
#include "controlplane/store/watch_hub.h"

namespace hawser::store {

class LogStore final : public Store {
 public:
  LogStore(OpenLog open, Clock& clock);
  ~LogStore() override;
  LogStore(const LogStore&) = delete;
  LogStore& operator=(const LogStore&) = delete;

  Result<TxnReply> txn(const Txn& t) override;
  Result<RangeReply> range(const RangeRequest& r) override;
  Result<std::unique_ptr<Watch>> watch(const std::string& key, const std::string& end, Revision from_revision,
                                       WatchFn fn) override;
  Result<> compact(Revision r) override;
  Revision revision() override;
  Revision compacted() override;
  Result<LeaseId> lease_grant(std::int64_t ttl_seconds) override;
  Result<> lease_keep_alive(LeaseId id) override;
  Result<> lease_revoke(LeaseId id) override;

 private:
  // One queued write. `txn` points into the caller, who waits for `done`; an expiry has no caller.
  struct Job {
    enum class Kind { kTxn, kGrant, kRevoke, kExpire };
    Kind kind = Kind::kTxn;
    const Txn* txn = nullptr;
    LeaseId lease = 0;
    std::int64_t ttl_seconds = 0;
    std::promise<Result<TxnReply>> done;
  };
  struct CompactJob {
    Revision revision = 0;
    bool marked = false;  // the log knows the new limit; rows are being dropped
    std::promise<Result<>> done;
  };
  // What the open transaction has done so far.
  struct Batch {
    Revision revision = 0;
    std::vector<Event> events;
    std::size_t txn_start = 0;  // where the events of the transaction being applied begin
    std::set<LeaseId> revoked;
  };

  Result<TxnReply> submit(Job job);
  void run();
  std::vector<Job> take_jobs(std::unique_lock<std::mutex>& l);
  void commit_jobs(std::span<Job> jobs);
  Result<std::vector<Result<TxnReply>>> write_jobs(std::span<Job> jobs, Batch& b);
  void finish_jobs(std::span<Job> jobs, std::vector<Result<TxnReply>> replies, Batch b);
  void fail_job(Job& job, const Error& e);
  // These return an outer failure if the engine failed and the batch is lost, an inner one if only this job is refused.
  using Outcome = Result<Result<TxnReply>>;
  Outcome apply(const Job& job, Batch& b);
  Outcome apply_txn(const Txn& t, Batch& b);
  Outcome apply_revoke(LeaseId id, Batch& b);
  Result<> apply_op(const Op& op, Revision at, Batch& b, TxnReply& reply);
  Result<bool> holds(const Compare& c);
  Result<> check_leases(const std::vector<Op>& ops, const Batch& b);
  void housekeep();
  Result<> mark_compacted(Revision r);

  std::unique_ptr<Log> log_;
  Clock& clock_;
  std::shared_ptr<WatchHub> hub_;

  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;             // guarded by mu_
  std::deque<CompactJob> compacts_;  // guarded by mu_; the front is popped by the writer only
  LeaseTable leases_;                // guarded by mu_
  Revision revision_;                // guarded by mu_
  Revision compacted_;               // guarded by mu_
  bool stop_ = false;                // guarded by mu_
  bool unswept_ = true;  // writer thread only: housekeeping may have work left (a crash may have cut it short)

  std::thread writer_;
};

}  // namespace hawser::store
