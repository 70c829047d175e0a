// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/log_store.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <string_view>
#include <unordered_set>

#include "controlplane/store/memory_log.h"
#include "lib/base/log.h"

namespace hawser::store {
namespace {

// A batch this large has paid for its fsync; larger ones would only make the first caller wait longer.
constexpr std::size_t kMaxBatchJobs = 256;
constexpr std::size_t kMaxBatchBytes = 4 << 20;
constexpr std::chrono::seconds kExpiryRetry{1};
constexpr std::int64_t kMaxTtlSeconds = 10LL * 365 * 24 * 3600;

Result<> check_ops(const std::vector<Op>& ops) {
  if (std::ssize(ops) > kMaxOps) return fail(EINVAL, "transaction: {} operations, the most is {}", ops.size(), kMaxOps);
  std::unordered_set<std::string_view> written;
  for (const auto& op : ops) {
    if (op.key.empty()) return fail(EINVAL, "transaction: an operation's key is empty");
    if (op.key.size() > kMaxKeyBytes) {
      return fail(EINVAL, "transaction: a key has {} bytes, the most is {}", op.key.size(), kMaxKeyBytes);
    }
    if (op.type != Op::Type::kGet && !written.insert(op.key).second) {
      return fail(EINVAL, "transaction: key {} is written twice", op.key);
    }
  }
  return {};
}

std::size_t bytes_of(const Txn& t) {
  std::size_t n = 0;
  for (const auto& op : t.success) n += op.key.size() + op.value.size();
  return n;
}

LeaseId random_lease_id() {
  std::random_device source;
  const auto high = static_cast<std::uint64_t>(source());
  return static_cast<LeaseId>(((high << 32) | source()) >> 2) + 1;
}

}  // namespace

LogStore::LogStore(OpenLog open, Clock& clock)
    : log_(std::move(open.log)),
      clock_(clock),
      hub_(std::make_shared<WatchHub>(*log_, open.state.revision)),
      revision_(open.state.revision),
      compacted_(open.state.compacted) {
  for (auto [id, ttl] : open.state.leases) leases_.add(id, ttl, clock_.now());
  hub_->start();
  writer_ = std::thread([this] { run(); });
}

LogStore::~LogStore() {
  {
    std::lock_guard l(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  writer_.join();
  hub_->stop();
}

Revision LogStore::revision() {
  std::lock_guard l(mu_);
  return revision_;
}

Revision LogStore::compacted() {
  std::lock_guard l(mu_);
  return compacted_;
}

Result<TxnReply> LogStore::submit(Job job) {
  auto done = job.done.get_future();
  {
    std::lock_guard l(mu_);
    if (stop_) return fail(ECANCELED, "the store is closing");
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return done.get();
}

Result<TxnReply> LogStore::txn(const Txn& t) {
  if (auto ok = check_ops(t.success); !ok) return propagate(ok);
  if (auto ok = check_ops(t.failure); !ok) return propagate(ok);
  return submit({.kind = Job::Kind::kTxn, .txn = &t});
}

Result<RangeReply> LogStore::range(const RangeRequest& r) {
  if (r.limit < 0) return fail(EINVAL, "range: limit {} is negative", r.limit);
  return log_->range(r);
}

Result<std::unique_ptr<Watch>> LogStore::watch(const std::string& key, const std::string& end, Revision from_revision,
                                               WatchFn fn) {
  if (from_revision < 0) return fail(EINVAL, "watch: revision {} is negative", from_revision);
  if (const Revision oldest = compacted(); from_revision != 0 && from_revision < oldest) {
    return fail(kCompacted, "watch: revision {} is compacted, the oldest is {}", from_revision, oldest);
  }
  return hub_->add(KeySpan::of(key, end), from_revision, std::move(fn));
}

Result<> LogStore::compact(Revision r) {
  std::future<Result<>> done;
  {
    std::lock_guard l(mu_);
    if (r > revision_) return fail(EINVAL, "compact: revision {} is in the future, the store is at {}", r, revision_);
    if (r <= compacted_) return {};
    if (stop_) return fail(ECANCELED, "the store is closing");
    done = compacts_.emplace_back(CompactJob{.revision = r}).done.get_future();
  }
  wake_.notify_one();
  return done.get();
}

Result<LeaseId> LogStore::lease_grant(std::int64_t ttl_seconds) {
  if (ttl_seconds < 1 || ttl_seconds > kMaxTtlSeconds) {
    return fail(EINVAL, "lease: ttl of {} s is not between 1 and {}", ttl_seconds, kMaxTtlSeconds);
  }
  const LeaseId id = random_lease_id();
  auto r = submit({.kind = Job::Kind::kGrant, .lease = id, .ttl_seconds = ttl_seconds});
  if (!r) return propagate(r);
  return id;
}

Result<> LogStore::lease_keep_alive(LeaseId id) {
  std::lock_guard l(mu_);
  if (!leases_.keep_alive(id, clock_.now())) return fail(404, "lease {}: not found", id);
  return {};
}

Result<> LogStore::lease_revoke(LeaseId id) {
  auto r = submit({.kind = Job::Kind::kRevoke, .lease = id});
  if (!r) return propagate(r);
  return {};
}

void LogStore::run() {
  std::unique_lock l(mu_);
  while (true) {
    auto work = [this] { return stop_ || unswept_ || !jobs_.empty() || !compacts_.empty(); };
    if (!work()) clock_.wait_until(l, wake_, leases_.next_due(), work);
    if (stop_ && jobs_.empty()) break;
    auto jobs = take_jobs(l);
    l.unlock();
    if (!jobs.empty()) commit_jobs(jobs);
    housekeep();
    l.lock();
  }
  for (auto& c : compacts_) c.done.set_value(fail(ECANCELED, "the store is closing"));
}

std::vector<LogStore::Job> LogStore::take_jobs(std::unique_lock<std::mutex>& /*held*/) {
  for (LeaseId id : leases_.take_due(clock_.now())) jobs_.push_back({.kind = Job::Kind::kExpire, .lease = id});
  std::vector<Job> batch;
  std::size_t bytes = 0;
  while (!jobs_.empty() && batch.size() < kMaxBatchJobs && bytes < kMaxBatchBytes) {
    if (jobs_.front().txn) bytes += bytes_of(*jobs_.front().txn);
    batch.push_back(std::move(jobs_.front()));
    jobs_.pop_front();
  }
  return batch;
}

void LogStore::commit_jobs(std::span<Job> jobs) {
  Batch b{.revision = revision()};
  auto replies = write_jobs(jobs, b);
  if (replies) return finish_jobs(jobs, std::move(*replies), std::move(b));
  log_->rollback();
  if (jobs.size() == 1) return fail_job(jobs.front(), replies.error());
  // One by one: a transaction that does not fit the disk must not take along those that do, nor those that only read.
  for (std::size_t i = 0; i < jobs.size(); ++i) commit_jobs(jobs.subspan(i, 1));
}

Result<std::vector<Result<TxnReply>>> LogStore::write_jobs(std::span<Job> jobs, Batch& b) {
  if (auto ok = log_->begin(); !ok) return propagate(ok);
  std::vector<Result<TxnReply>> replies;
  for (const auto& job : jobs) {
    auto outcome = apply(job, b);
    if (!outcome) return propagate(outcome);
    replies.push_back(std::move(*outcome));
  }
  if (auto ok = log_->commit(); !ok) return propagate(ok);
  return replies;
}

void LogStore::finish_jobs(std::span<Job> jobs, std::vector<Result<TxnReply>> replies, Batch b) {
  {
    std::lock_guard l(mu_);
    revision_ = b.revision;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      if (!replies[i] || jobs[i].kind == Job::Kind::kTxn) continue;
      if (jobs[i].kind == Job::Kind::kGrant) {
        leases_.add(jobs[i].lease, jobs[i].ttl_seconds, clock_.now());
      } else {
        leases_.remove(jobs[i].lease);
      }
    }
  }
  hub_->publish(std::move(b.events));
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].done.set_value(std::move(replies[i]));
}

void LogStore::fail_job(Job& job, const Error& e) {
  if (job.kind == Job::Kind::kExpire) {
    log::warn("lease {}: cannot be revoked now: {}", job.lease, e.text);
    std::lock_guard l(mu_);
    leases_.postpone(job.lease, clock_.now() + kExpiryRetry);
  }
  job.done.set_value(std::unexpected(e));
}

LogStore::Outcome LogStore::apply(const Job& job, Batch& b) {
  if (job.kind == Job::Kind::kTxn) return apply_txn(*job.txn, b);
  if (job.kind != Job::Kind::kGrant) return apply_revoke(job.lease, b);
  if (auto ok = log_->set_lease(job.lease, job.ttl_seconds); !ok) return propagate(ok);
  return TxnReply{.succeeded = true, .revision = b.revision};
}

Result<bool> LogStore::holds(const Compare& c) {
  auto found = log_->latest(c.key);
  if (!found) return propagate(found);
  const KeyValue* kv = found->get();
  switch (c.target) {
    case Compare::Target::kModRevision:
      return (kv ? kv->mod_revision : 0) == c.number;
    case Compare::Target::kCreateRevision:
      return (kv ? kv->create_revision : 0) == c.number;
    case Compare::Target::kVersion:
      return (kv ? kv->version : 0) == c.number;
    case Compare::Target::kValue:
      return kv && kv->value == c.value;
  }
  return false;
}

Result<> LogStore::check_leases(const std::vector<Op>& ops, const Batch& b) {
  std::lock_guard l(mu_);
  for (const auto& op : ops) {
    if (op.type != Op::Type::kPut || op.lease == 0) continue;
    if (!leases_.contains(op.lease) || b.revoked.contains(op.lease)) return fail(404, "lease {}: not found", op.lease);
  }
  return {};
}

LogStore::Outcome LogStore::apply_txn(const Txn& t, Batch& b) {
  TxnReply reply{.succeeded = true};
  for (const auto& c : t.compare) {
    auto ok = holds(c);
    if (!ok) return propagate(ok);
    reply.succeeded = reply.succeeded && *ok;
  }
  const auto& ops = reply.succeeded ? t.success : t.failure;
  // Before the first write: a refused transaction leaves nothing in the batch that others share.
  if (auto ok = check_leases(ops, b); !ok) return Result<TxnReply>(propagate(ok));
  b.txn_start = b.events.size();
  for (const auto& op : ops) {
    if (auto ok = apply_op(op, b.revision + 1, b, reply); !ok) return propagate(ok);
  }
  if (b.events.size() > b.txn_start) b.revision = b.events.back().kv.mod_revision;
  reply.revision = b.revision;
  return reply;
}

Result<> LogStore::apply_op(const Op& op, Revision at, Batch& b, TxnReply& reply) {
  auto found = log_->latest(op.key);
  if (!found) return propagate(found);
  auto previous = *found;
  if (op.type == Op::Type::kGet) {
    if (previous) reply.got.push_back(*previous);
    return {};
  }
  if (previous) reply.previous.push_back(*previous);
  if (op.type == Op::Type::kDelete && !previous) return {};
  Event e;
  e.kv.key = op.key;
  e.kv.mod_revision = at;
  if (op.type == Op::Type::kPut) {
    e.kv.value = op.value;
    e.kv.create_revision = previous ? previous->create_revision : at;
    e.kv.version = previous ? previous->version + 1 : 1;
    e.kv.lease = op.lease;
  } else {
    e.type = Event::Type::kDelete;
  }
  e.previous = std::move(previous);
  auto ok = log_->append(e, static_cast<int>(b.events.size() - b.txn_start));
  if (ok) b.events.push_back(std::move(e));
  return ok;
}

LogStore::Outcome LogStore::apply_revoke(LeaseId id, Batch& b) {
  bool known = false;
  {
    std::lock_guard l(mu_);
    known = leases_.contains(id) && !b.revoked.contains(id);
  }
  if (!known) return Result<TxnReply>(fail(404, "lease {}: not found", id));
  auto keys = log_->lease_keys(id);
  if (!keys) return propagate(keys);
  if (auto ok = log_->set_lease(id, 0); !ok) return propagate(ok);
  b.revoked.insert(id);
  Txn deletion;
  for (auto& key : *keys) deletion.success.push_back({.type = Op::Type::kDelete, .key = std::move(key)});
  return apply_txn(deletion, b);
}

Result<> LogStore::mark_compacted(Revision r) {
  if (auto ok = log_->begin(); !ok) return ok;
  auto ok = log_->set_compacted(r);
  if (ok) ok = log_->commit();
  if (!ok) {
    log_->rollback();
    return ok;
  }
  std::lock_guard l(mu_);
  compacted_ = r;
  return {};
}

void LogStore::housekeep() {
  CompactJob* job = nullptr;
  bool mark = false;
  {
    std::lock_guard l(mu_);
    // Later compact() calls append behind it; a deque does not move its elements for that.
    if (!compacts_.empty()) job = &compacts_.front();
    mark = job && !job->marked && job->revision > compacted_;
  }
  Result<> ok;
  if (mark) ok = mark_compacted(job->revision);
  if (job) job->marked = true;
  unswept_ = false;
  if (ok) {
    auto more = log_->maintain();
    if (more) {
      unswept_ = *more;
    } else {
      ok = propagate(more);
    }
  }
  if (!job) {
    if (!ok) log::warn("store housekeeping: {}", ok.error().text);
    return;
  }
  if (unswept_) return;
  std::promise<Result<>> done = std::move(job->done);
  {
    std::lock_guard l(mu_);
    compacts_.pop_front();
  }
  done.set_value(std::move(ok));
}

std::unique_ptr<Store> make_memory_store(Clock* clock) {
  return std::make_unique<LogStore>(OpenLog{std::make_unique<MemoryLog>(), {}}, clock ? *clock : system_clock());
}

}  // namespace hawser::store
