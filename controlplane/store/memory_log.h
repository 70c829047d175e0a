// SPDX-License-Identifier: Apache-2.0
// MemoryLog: the Log that lives in two maps; the working fake for everything above the engine. Threads as in log.h.
#pragma once

#include <map>
#include <mutex>
#include <set>

#include "controlplane/store/log.h"

namespace hawser::store {

class MemoryLog final : public Log {
 public:
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
  using Row = std::shared_ptr<const KeyValue>;  // version 0: a tombstone
  struct Pending {
    Row row;
    int position;
  };
  // The row of `key` that a reader at `at` sees; null if there is none or it is a tombstone. mu_ is held.
  [[nodiscard]] Row seen_at(const std::map<Revision, Row>& rows, Revision at) const;

  std::vector<Pending> pending_;        // writer thread only
  std::map<std::string, Row> overlay_;  // writer thread only: newest pending row of each key
  Revision pending_compacted_ = 0;      // writer thread only

  std::mutex mu_;
  Revision revision_ = kFirstRevision;                   // guarded by mu_
  Revision compacted_ = 0;                               // guarded by mu_
  Revision swept_ = 0;                                   // guarded by mu_: rows below are dropped already
  std::map<std::string, std::map<Revision, Row>> keys_;  // guarded by mu_
  std::map<std::pair<Revision, int>, Row> order_;        // guarded by mu_
};

}  // namespace hawser::store
