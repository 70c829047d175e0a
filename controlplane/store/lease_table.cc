// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/lease_table.h"

namespace hawser::store {

void LeaseTable::add(LeaseId id, std::int64_t ttl_seconds, MonoTime now) {
  remove(id);
  const MonoTime due = now + std::chrono::seconds(ttl_seconds);
  leases_[id] = {.ttl_seconds = ttl_seconds, .due = due};
  due_.insert({due, id});
}

void LeaseTable::remove(LeaseId id) {
  auto it = leases_.find(id);
  if (it == leases_.end()) return;
  due_.erase({it->second.due, id});
  leases_.erase(it);
}

bool LeaseTable::keep_alive(LeaseId id, MonoTime now) {
  auto it = leases_.find(id);
  if (it == leases_.end() || it->second.ending) return false;
  add(id, it->second.ttl_seconds, now);
  return true;
}

std::vector<LeaseId> LeaseTable::take_due(MonoTime now) {
  std::vector<LeaseId> ids;
  while (!due_.empty() && due_.begin()->first <= now) {
    ids.push_back(due_.begin()->second);
    leases_[ids.back()].ending = true;
    due_.erase(due_.begin());
  }
  return ids;
}

void LeaseTable::postpone(LeaseId id, MonoTime when) {
  auto it = leases_.find(id);
  if (it == leases_.end()) return;
  due_.erase({it->second.due, id});
  it->second.due = when;
  due_.insert({when, id});
}

}  // namespace hawser::store
