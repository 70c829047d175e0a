// SPDX-License-Identifier: Apache-2.0
// LeaseTable: when each lease ends. Pure bookkeeping on times handed in; the log keeps which leases exist, their end is
// only here, so a keep-alive costs no write and a restarted store gives every lease its whole time again (never less).
// Not synchronised: LogStore guards it.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "controlplane/store/store.h"
#include "lib/base/clock.h"

namespace hawser::store {

class LeaseTable {
 public:
  void add(LeaseId id, std::int64_t ttl_seconds, MonoTime now);
  void remove(LeaseId id);
  [[nodiscard]] bool contains(LeaseId id) const { return leases_.contains(id); }
  // False if the lease is unknown or already being revoked.
  bool keep_alive(LeaseId id, MonoTime now);
  // The leases whose time is over; they are not due again unless postponed.
  std::vector<LeaseId> take_due(MonoTime now);
  // The revocation failed: due again at `when`.
  void postpone(LeaseId id, MonoTime when);
  [[nodiscard]] MonoTime next_due() const { return due_.empty() ? MonoTime::max() : due_.begin()->first; }

 private:
  struct Lease {
    std::int64_t ttl_seconds = 0;
    MonoTime due{};
    bool ending = false;
  };
  std::map<LeaseId, Lease> leases_;
  std::set<std::pair<MonoTime, LeaseId>> due_;
};

}  // namespace hawser::store
