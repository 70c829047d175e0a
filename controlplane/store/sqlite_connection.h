// SPDX-License-Identifier: Apache-2.0
// One SQLite connection with its prepared statements, as Results. Used by one thread at a time; whoever owns it sees to
// that. The only place that knows sqlite3.h, its result codes and what they mean to a caller.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/store/sqlite_schema.h"
#include "lib/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace hawser::store {

class SqliteConnection;

// A statement in use: bind 1..n, step() until false. Resets itself, so that it holds no lock and no memory after its
// scope. Bound bytes are not copied and must outlive it.
class Query {
 public:
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;
  Query& bind(int i, std::int64_t v);
  Query& bind(int i, std::string_view bytes);
  Query& bind_null(int i);
  Result<bool> step();  // true: there is a row
  Result<> run();       // steps to the end, rows ignored
  [[nodiscard]] std::int64_t integer(int column) const;
  [[nodiscard]] bool is_null(int column) const;
  [[nodiscard]] std::string bytes(int column) const;

 private:
  friend class SqliteConnection;
  Query(SqliteConnection& c, sqlite3_stmt* s, int rc) : connection_(c), statement_(s), rc_(rc) {}
  SqliteConnection& connection_;
  sqlite3_stmt* statement_;
  int rc_;  // the first failure; step() reports it
};

class SqliteConnection {
 public:
  SqliteConnection() = default;
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  Result<> open(const std::string& path);
  Result<> execute(const char* sql);
  Result<std::string> text(const char* sql);  // first column of the first row
  Query query(Sql name);
  Result<std::int64_t> integer(Sql name);                     // first column of the first row; 0 if there is none
  void rollback();                                            // if a transaction is open
  [[nodiscard]] int wal_pages() const { return wal_pages_; }  // written to the write-ahead log and not yet reused
  // Moves the write-ahead log into the file. `wait`: also waits for readers, so that the log starts over.
  Result<> checkpoint(bool wait);

 private:
  friend class Query;
  std::unexpected<Error> failure(int rc);

  std::string path_;
  sqlite3* db_ = nullptr;
  std::array<sqlite3_stmt*, kStatements.size()> statements_{};
  int wal_pages_ = 0;
};

}  // namespace hawser::store
