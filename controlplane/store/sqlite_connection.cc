// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/sqlite_connection.h"

#include <cerrno>
#include <utility>

#include <sqlite3.h>

namespace hawser::store {
namespace {

// Another process may look into the file with sqlite3's own tool; its locks are short.
constexpr int kBusyMilliseconds = 2000;

bool means_full(int rc, int system_errno) {
  if ((rc & 0xff) == SQLITE_FULL) return true;
  if ((rc & 0xff) != SQLITE_IOERR && (rc & 0xff) != SQLITE_CANTOPEN) return false;
  if (system_errno == ENOSPC || system_errno == EDQUOT) return true;
  // Growing the shared index of the write-ahead log reports no errno, and fails for want of space only.
  return rc == SQLITE_IOERR_SHMSIZE;
}

int errno_of(int rc, int system_errno) {
  switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return EBADMSG;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return EAGAIN;
    case SQLITE_READONLY:
      return EROFS;
    case SQLITE_TOOBIG:
      return E2BIG;
    case SQLITE_NOMEM:
      return ENOMEM;
    case SQLITE_PERM:
      return EACCES;
    default:
      return system_errno > 0 ? system_errno : EIO;
  }
}

}  // namespace

SqliteConnection::~SqliteConnection() {
  for (auto* s : statements_) sqlite3_finalize(s);
  sqlite3_close(db_);
}

std::unexpected<Error> SqliteConnection::failure(int rc) {
  const int os = db_ ? sqlite3_system_errno(db_) : 0;
  const char* text = db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(rc);
  if (means_full(rc, os)) return fail(ENOSPC, "store {}: no space left on the disk ({})", path_, text);
  const int code = errno_of(rc, os);
  if (code == EBADMSG) {
    return fail(code, "store {}: the file is damaged or not a database ({}); move it away or restore a backup", path_,
                text);
  }
  return fail(code, "store {}: {} (SQLite code {})", path_, text, rc);
}

Result<> SqliteConnection::open(const std::string& path) {
  path_ = path;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  if (const int rc = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr); rc != SQLITE_OK) return failure(rc);
  sqlite3_busy_timeout(db_, kBusyMilliseconds);
  sqlite3_wal_hook(
      db_,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<SqliteConnection*>(self)->wal_pages_ = pages;
        return SQLITE_OK;
      },
      this);
  return {};
}

Result<> SqliteConnection::execute(const char* sql) {
  if (const int rc = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr); rc != SQLITE_OK) return failure(rc);
  return {};
}

Result<std::string> SqliteConnection::text(const char* sql) {
  sqlite3_stmt* s = nullptr;
  int rc = sqlite3_prepare_v2(db_, sql, -1, &s, nullptr);
  if (rc != SQLITE_OK) return failure(rc);
  rc = sqlite3_step(s);
  Result<std::string> out;
  if (rc == SQLITE_ROW) {
    if (const auto* t = sqlite3_column_text(s, 0)) *out = reinterpret_cast<const char*>(t);
  } else if (rc != SQLITE_DONE) {
    out = failure(rc);
  }
  sqlite3_finalize(s);
  return out;
}

Query SqliteConnection::query(Sql name) {
  auto*& s = statements_[static_cast<std::size_t>(name)];
  int rc = SQLITE_OK;
  if (!s) {
    const char* sql = kStatements[static_cast<std::size_t>(name)].text;
    rc = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, nullptr);
  }
  return {*this, s, rc};
}

Result<std::int64_t> SqliteConnection::integer(Sql name) {
  auto q = query(name);
  auto row = q.step();
  if (!row) return propagate(row);
  return *row ? q.integer(0) : 0;
}

void SqliteConnection::rollback() {
  if (db_ && !sqlite3_get_autocommit(db_)) (void)query(Sql::kRollback).run();
}

Result<> SqliteConnection::checkpoint(bool wait) {
  wal_pages_ = 0;  // the next commit tells again
  const int mode = wait ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE;
  const int rc = sqlite3_wal_checkpoint_v2(db_, nullptr, mode, nullptr, nullptr);
  // Busy: a reader still needs the old pages; the next checkpoint moves the rest.
  if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY) return failure(rc);
  return {};
}

Query::~Query() {
  if (!statement_) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Query& Query::bind(int i, std::int64_t v) {
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_int64(statement_, i, v);
  return *this;
}

Query& Query::bind(int i, std::string_view bytes) {
  // A null pointer would bind NULL instead of an empty value.
  const char* data = bytes.data() ? bytes.data() : "";
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_blob64(statement_, i, data, bytes.size(), SQLITE_STATIC);
  return *this;
}

Query& Query::bind_null(int i) {
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_null(statement_, i);
  return *this;
}

Result<bool> Query::step() {
  if (rc_ == SQLITE_OK) {
    const int rc = sqlite3_step(statement_);
    if (rc == SQLITE_ROW) return true;
    if (rc == SQLITE_DONE) return false;
    rc_ = rc;
  }
  return connection_.failure(rc_);
}

Result<> Query::run() {
  while (true) {
    auto row = step();
    if (!row) return propagate(row);
    if (!*row) return {};
  }
}

std::int64_t Query::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

bool Query::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::string Query::bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  if (!data) return {};
  return {static_cast<const char*>(data), static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

}  // namespace hawser::store
