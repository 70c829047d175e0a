// SPDX-License-Identifier: Apache-2.0
// SqliteLog: the durable Log, one file in WAL mode. A writer connection with synchronous=FULL (a commit is one fsync of
// the write-ahead log) and a few reader connections, each read in its own snapshot: readers never wait for the disk's
// fsync. The file belongs to one process at a time, held by a lock on PATH.lock. Threads as in log.h.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "controlplane/store/log.h"
#include "controlplane/store/sqlite_connection.h"
#include "lib/base/unique_fd.h"

namespace hawser::store {

class SqliteLog final : public Log {
 public:
  static Result<OpenLog> open(const std::string& path);

  Result<> begin() override;
  Result<> commit() override;
  void rollback() override;
  Result<std::shared_ptr<const KeyValue>> latest(const std::string& key) override;
  Result<> append(const Event& e, int position) override;
  Result<> set_compacted(Revision r) override;
  Result<> set_lease(LeaseId id, std::int64_t ttl_seconds) override;
  Result<std::vector<std::string>> lease_keys(LeaseId id) override;
  Result<bool> maintain() override;
  Result<RangeReply> range(const RangeRequest& r) override;
  Result<History> history(const HistoryRequest& r) override;

 private:
  class Reader;

  SqliteLog() = default;
  Result<> lock_file(const std::string& path);
  Result<> prepare_file();
  Result<> create_schema();
  Result<LogState> load();
  Result<bool> sweep();
  Result<> sweep_chunk(std::int64_t from, std::int64_t last, std::int64_t limit);
  Result<bool> vacuum();

  UniqueFd lock_;  // released last: after the connections below are closed
  std::string path_;
  SqliteConnection writer_;  // writer thread only
  bool unswept_ = true;      // writer thread only; true at start: a kill may have cut a sweep short
  bool unvacuumed_ = false;  // writer thread only

  std::mutex mu_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<SqliteConnection>> idle_readers_;  // guarded by mu_
};

}  // namespace hawser::store
