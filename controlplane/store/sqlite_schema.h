// SPDX-License-Identifier: Apache-2.0
// Every SQL text of the store: the schema and, by name, the statements. Data only.
//
//   history   every row of the log. id = revision << 20 | position in the revision, so the table itself is in revision
//   order
//             and the index on key alone is in (key, id) order, because SQLite appends the row id to it.
//   live      the newest row of each key that exists now: what makes a list of the present independent of the history's
//   length. lease     the leases and their time to live; when they end is known in memory only. meta      compacted:
//   the oldest readable revision. swept: the history id up to which its rows have been dropped.
#pragma once

#include <array>
#include <cstddef>

namespace hawser::store {

// "HWSR". Tells a store from any other SQLite file.
inline constexpr int kApplicationId = 0x48575352;
inline constexpr int kSchemaVersion = 1;
inline constexpr int kRevisionShift = 20;

inline constexpr std::array kSchema = {
    "CREATE TABLE history (id INTEGER PRIMARY KEY, key BLOB NOT NULL, create_revision INTEGER NOT NULL,"
    " version INTEGER NOT NULL, lease INTEGER NOT NULL, value BLOB)",  // version 0: a tombstone
    "CREATE INDEX history_key ON history (key)",
    "CREATE TABLE live (key BLOB PRIMARY KEY, id INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX live_lease ON live (lease) WHERE lease <> 0",
    "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL)",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('compacted', 0), ('swept', 0)",
};

enum class Sql {
  kBegin,
  kBeginWrite,
  kCommit,
  kRollback,
  kLastId,
  kCompacted,
  kSwept,
  kSetCompacted,
  kSetSwept,
  kLatest,
  kInsertHistory,
  kSetLive,
  kDropLive,
  kLeaseKeys,
  kLeases,
  kSetLease,
  kDropLease,
  kRangeNow,
  kCountNow,
  kRangePast,
  kCountPast,
  kHistory,
  kBefore,
  kSweepEnd,
  kSweepReplaced,
  kSweepTombstones,
  kPages,
  kFreePages,
  kVacuum,
  kEnd,
};

struct Statement {
  Sql name;
  const char* text;
};

// Rows are always read as these columns, in this order (SqliteLog's read_row).
#define HAWSER_ROW "h.id, h.key, h.create_revision, h.version, h.lease, h.value"

inline constexpr std::array<Statement, static_cast<std::size_t>(Sql::kEnd)> kStatements = {{
    {Sql::kBegin, "BEGIN"},
    {Sql::kBeginWrite, "BEGIN IMMEDIATE"},
    {Sql::kCommit, "COMMIT"},
    {Sql::kRollback, "ROLLBACK"},
    {Sql::kLastId, "SELECT max(id) FROM history"},
    {Sql::kCompacted, "SELECT value FROM meta WHERE name = 'compacted'"},
    {Sql::kSwept, "SELECT value FROM meta WHERE name = 'swept'"},
    {Sql::kSetCompacted, "UPDATE meta SET value = ?1 WHERE name = 'compacted'"},
    {Sql::kSetSwept, "UPDATE meta SET value = ?1 WHERE name = 'swept'"},
    {Sql::kLatest, "SELECT " HAWSER_ROW " FROM live CROSS JOIN history h ON h.id = live.id WHERE live.key = ?1"},
    {Sql::kInsertHistory,
     "INSERT INTO history (id, key, create_revision, version, lease, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"},
    {Sql::kSetLive,
     "INSERT INTO live (key, id, lease) VALUES (?1, ?2, ?3)"
     " ON CONFLICT (key) DO UPDATE SET id = excluded.id, lease = excluded.lease"},
    {Sql::kDropLive, "DELETE FROM live WHERE key = ?1"},
    {Sql::kLeaseKeys, "SELECT key FROM live WHERE lease = ?1 AND lease <> 0 ORDER BY key"},
    {Sql::kLeases, "SELECT id, ttl_seconds FROM lease"},
    {Sql::kSetLease, "INSERT OR REPLACE INTO lease (id, ttl_seconds) VALUES (?1, ?2)"},
    {Sql::kDropLease, "DELETE FROM lease WHERE id = ?1"},
    {Sql::kRangeNow, "SELECT " HAWSER_ROW " FROM live CROSS JOIN history h ON h.id = live.id"
                     " WHERE live.key >= ?1 AND live.key < ?2 ORDER BY live.key LIMIT ?3"},
    {Sql::kCountNow, "SELECT count(*) FROM live WHERE key >= ?1 AND key < ?2"},
    // ?4: the first id of the revision after the one asked for.
    {Sql::kRangePast,
     "SELECT " HAWSER_ROW
     " FROM (SELECT key, max(id) AS id FROM history WHERE key >= ?1 AND key < ?2 AND id < ?4 GROUP BY key) m"
     " CROSS JOIN history h ON h.id = m.id WHERE h.version > 0 ORDER BY m.key LIMIT ?3"},
    {Sql::kCountPast,
     "SELECT count(*) FROM (SELECT max(id) AS id FROM history WHERE key >= ?1 AND key < ?2 AND id < ?3 GROUP BY key) m"
     " CROSS JOIN history h ON h.id = m.id WHERE h.version > 0"},
    // The plus keeps the planner on the table's own order: the index on key would need a sort of the whole range.
    {Sql::kHistory, "SELECT " HAWSER_ROW
                    " FROM history h WHERE h.id >= ?1 AND h.id < ?2 AND +h.key >= ?3 AND +h.key < ?4 ORDER BY h.id"},
    {Sql::kBefore, "SELECT " HAWSER_ROW " FROM history h WHERE h.key = ?1 AND h.id < ?2 ORDER BY h.id DESC LIMIT 1"},
    {Sql::kSweepEnd, "SELECT max(id) FROM (SELECT id FROM history WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)"},
    // Each row up to the compacted revision makes the row before it of the same key unreachable.
    {Sql::kSweepReplaced,
     "DELETE FROM history WHERE id IN (SELECT (SELECT max(o.id) FROM history o WHERE o.key = n.key AND o.id < n.id)"
     " FROM history n WHERE n.id BETWEEN ?1 AND ?2)"},
    {Sql::kSweepTombstones, "DELETE FROM history WHERE id BETWEEN ?1 AND ?2 AND id < ?3 AND version = 0"},
    {Sql::kPages, "PRAGMA page_count"},
    {Sql::kFreePages, "PRAGMA freelist_count"},
    {Sql::kVacuum, "PRAGMA incremental_vacuum(256)"},
}};

#undef HAWSER_ROW

constexpr bool in_enum_order() {
  for (std::size_t i = 0; i < kStatements.size(); ++i) {
    if (kStatements[i].name != static_cast<Sql>(i)) return false;
  }
  return true;
}
static_assert(in_enum_order(), "kStatements is indexed by Sql");

}  // namespace hawser::store
