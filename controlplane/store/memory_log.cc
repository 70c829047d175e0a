// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/memory_log.h"

#include <iterator>

namespace hawser::store {

Result<> MemoryLog::begin() {
  return {};
}

Result<> MemoryLog::commit() {
  std::lock_guard l(mu_);
  for (auto& p : pending_) {
    revision_ = p.row->mod_revision;
    keys_[p.row->key][revision_] = p.row;
    order_[{revision_, p.position}] = p.row;
  }
  if (pending_compacted_ > compacted_) compacted_ = pending_compacted_;
  pending_.clear();
  overlay_.clear();
  return {};
}

void MemoryLog::rollback() {
  pending_.clear();
  overlay_.clear();
  pending_compacted_ = 0;
}

MemoryLog::Row MemoryLog::seen_at(const std::map<Revision, Row>& rows, Revision at) const {
  auto it = rows.upper_bound(at);
  if (it == rows.begin()) return nullptr;
  const Row& row = std::prev(it)->second;
  return row->version == 0 ? nullptr : row;
}

Result<std::shared_ptr<const KeyValue>> MemoryLog::latest(const std::string& key) {
  if (auto it = overlay_.find(key); it != overlay_.end()) return it->second->version == 0 ? nullptr : it->second;
  std::lock_guard l(mu_);
  auto it = keys_.find(key);
  return it == keys_.end() ? nullptr : seen_at(it->second, revision_);
}

Result<> MemoryLog::append(const Event& e, int position) {
  auto row = std::make_shared<const KeyValue>(e.kv);
  overlay_[e.kv.key] = row;
  pending_.push_back({std::move(row), position});
  return {};
}

Result<> MemoryLog::set_compacted(Revision r) {
  pending_compacted_ = r;
  return {};
}

// Leases need no row here: LogStore keeps them, and nothing outlives the process.
Result<> MemoryLog::set_lease(LeaseId /*id*/, std::int64_t /*ttl_seconds*/) {
  return {};
}

Result<std::vector<std::string>> MemoryLog::lease_keys(LeaseId id) {
  std::set<std::string> found;
  {
    std::lock_guard l(mu_);
    for (auto& [key, rows] : keys_) {
      if (Row row = seen_at(rows, revision_); row && row->lease == id) found.insert(key);
    }
  }
  for (auto& [key, row] : overlay_) {
    if (row->version != 0 && row->lease == id) {
      found.insert(key);
    } else {
      found.erase(key);
    }
  }
  return std::vector<std::string>(found.begin(), found.end());
}

Result<bool> MemoryLog::maintain() {
  std::lock_guard l(mu_);
  if (swept_ == compacted_) return false;
  swept_ = compacted_;
  for (auto it = keys_.begin(); it != keys_.end();) {
    auto& rows = it->second;
    auto keep = rows.upper_bound(compacted_);
    if (keep != rows.begin()) --keep;
    // A tombstone at the compacted revision itself stays for a watch that starts there.
    if (keep != rows.end() && keep->second->version == 0 && keep->first < compacted_) ++keep;
    rows.erase(rows.begin(), keep);
    it = rows.empty() ? keys_.erase(it) : std::next(it);
  }
  auto dead = [this](const auto& entry) {
    auto key = keys_.find(entry.second->key);
    return key == keys_.end() || !key->second.contains(entry.first.first);
  };
  std::erase_if(order_, dead);
  return false;
}

Result<RangeReply> MemoryLog::range(const RangeRequest& r) {
  std::lock_guard l(mu_);
  if (auto ok = check_revision(r.revision, revision_, compacted_); !ok) return propagate(ok);
  const Revision at = r.revision == 0 ? revision_ : r.revision;
  const KeySpan span = KeySpan::of(r.key, r.end);
  RangeReply reply{.revision = revision_};
  for (auto it = keys_.lower_bound(span.low); it != keys_.end() && it->first < span.high; ++it) {
    Row row = seen_at(it->second, at);
    if (!row) continue;
    ++reply.count;
    if (r.count_only) continue;
    if (r.limit > 0 && std::ssize(reply.kvs) == r.limit) {
      reply.more = true;
      continue;
    }
    reply.kvs.push_back(*row);
    if (r.keys_only) reply.kvs.back().value.clear();
  }
  return reply;
}

Result<History> MemoryLog::history(const HistoryRequest& r) {
  std::lock_guard l(mu_);
  if (auto ok = check_revision(r.from, revision_, compacted_); !ok) return propagate(ok);
  History h{.events = {}, .progress = r.to};
  std::size_t bytes = 0;
  for (auto it = order_.lower_bound({r.from, 0}); it != order_.end() && it->first.first <= r.to; ++it) {
    const Row& row = it->second;
    if (!r.span.contains(row->key)) continue;
    const bool full = h.events.size() >= r.max_events || bytes >= r.max_bytes;
    if (full && h.events.back().kv.mod_revision != row->mod_revision) {
      h.progress = row->mod_revision - 1;
      break;
    }
    bytes += row->key.size() + row->value.size();
    h.events.push_back({.type = row->version == 0 ? Event::Type::kDelete : Event::Type::kPut,
                        .kv = *row,
                        .previous = seen_at(keys_[row->key], row->mod_revision - 1)});
  }
  return h;
}

}  // namespace hawser::store
