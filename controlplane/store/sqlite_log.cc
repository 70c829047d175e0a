// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/sqlite_log.h"

#include <charconv>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "controlplane/store/log_store.h"

namespace hawser::store {
namespace {

// Caches are for one transaction's pages, not for the data: the API server keeps every object in its own watch cache.
// The kernel's page cache serves the rest, outside our memory.
constexpr const char* kWriterPragmas =
    "PRAGMA cache_size=-2048; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA synchronous=FULL;"
    "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=8388608; PRAGMA foreign_keys=OFF";
constexpr const char* kReaderPragmas =
    "PRAGMA cache_size=-512; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA query_only=ON";
constexpr int kReaders = 2;
constexpr int kCheckpointPages = 1000;             // 4 MiB
constexpr int kForcedCheckpointPages = 16 * 1000;  // readers may not keep the write-ahead log growing for ever
constexpr int kSweepRows = 500;
// Free pages are reused; only a file that is mostly air is made smaller.
constexpr std::int64_t kKeptFreePages = 512;
constexpr std::int64_t kMaxFreeShare = 4;  // a quarter

constexpr std::int64_t first_id(Revision r) {
  return r << kRevisionShift;
}
constexpr Revision revision_of(std::int64_t id) {
  return id >> kRevisionShift;
}

KeyValue read_row(const Query& q, bool with_value = true) {
  return {.key = q.bytes(1),
          .value = with_value ? q.bytes(5) : std::string(),
          .create_revision = q.integer(2),
          .mod_revision = revision_of(q.integer(0)),
          .version = q.integer(3),
          .lease = q.integer(4)};
}

Revision newest(std::int64_t last_id) {
  return last_id == 0 ? kFirstRevision : revision_of(last_id);
}

}  // namespace

// A reader connection on loan, inside a read transaction: one snapshot for everything asked in its scope.
class SqliteLog::Reader {
 public:
  explicit Reader(SqliteLog& log) : log_(log) {
    std::unique_lock l(log_.mu_);
    log_.returned_.wait(l, [&] { return !log_.idle_readers_.empty(); });
    connection_ = std::move(log_.idle_readers_.back());
    log_.idle_readers_.pop_back();
  }
  ~Reader() {
    connection_->rollback();
    {
      std::lock_guard l(log_.mu_);
      log_.idle_readers_.push_back(std::move(connection_));
    }
    log_.returned_.notify_one();
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Opens the snapshot, checks that `want` can be read in it, and returns its revision.
  Result<Revision> begin(Revision want) {
    if (auto ok = connection_->query(Sql::kBegin).run(); !ok) return propagate(ok);
    auto last = connection_->integer(Sql::kLastId);
    if (!last) return propagate(last);
    auto compacted = connection_->integer(Sql::kCompacted);
    if (!compacted) return propagate(compacted);
    if (auto ok = check_revision(want, newest(*last), *compacted); !ok) return propagate(ok);
    return newest(*last);
  }
  SqliteConnection* operator->() { return connection_.get(); }

 private:
  SqliteLog& log_;
  std::unique_ptr<SqliteConnection> connection_;
};

Result<OpenLog> SqliteLog::open(const std::string& path) {
  std::unique_ptr<SqliteLog> log(new SqliteLog);
  log->path_ = path;
  if (auto ok = log->lock_file(path); !ok) return propagate(ok);
  {
    // The store holds Secrets; SQLite would create it readable for all, and gives its other files the mode of this one.
    auto file = UniqueFd::open(path.c_str(), O_RDWR | O_CREAT, 0600);
    if (!file) return propagate(file, "store");
  }
  if (auto ok = log->writer_.open(path); !ok) return propagate(ok);
  if (auto ok = log->prepare_file(); !ok) return propagate(ok);
  auto state = log->load();
  if (!state) return propagate(state);
  for (int i = 0; i < kReaders; ++i) {
    auto reader = std::make_unique<SqliteConnection>();
    if (auto ok = reader->open(path); !ok) return propagate(ok);
    if (auto ok = reader->execute(kReaderPragmas); !ok) return propagate(ok);
    log->idle_readers_.push_back(std::move(reader));
  }
  return OpenLog{std::move(log), std::move(*state)};
}

Result<> SqliteLog::lock_file(const std::string& path) {
  const std::string name = path + ".lock";
  auto fd = UniqueFd::open(name.c_str(), O_RDWR | O_CREAT, 0600);
  if (!fd) return propagate(fd, "store");
  lock_ = std::move(*fd);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno(errno, "store {}: lock", name);
    char text[32] = {};
    int pid = 0;
    if (const auto n = ::pread(lock_.get(), text, sizeof(text), 0); n > 0) std::from_chars(text, text + n, pid);
    return fail(EBUSY, "store {}: in use by another process{}", path, pid > 0 ? fmt::format(" (pid {})", pid) : "");
  }
  // Only for the message above: on a full disk it may stay empty.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(lock_.get(), 0) == 0) (void)!::pwrite(lock_.get(), pid.data(), pid.size(), 0);
  return {};
}

Result<> SqliteLog::prepare_file() {
  auto app = writer_.text("PRAGMA application_id");
  if (!app) return propagate(app);
  auto tables = writer_.text("SELECT count(*) FROM sqlite_schema");
  if (!tables) return propagate(tables);
  if (*app == "0" && *tables == "0") return create_schema();
  if (*app != std::to_string(kApplicationId)) {
    return fail(EBADMSG, "store {}: an SQLite database of another program (application id {}); not touched", path_,
                *app);
  }
  auto version = writer_.text("PRAGMA user_version");
  if (!version) return propagate(version);
  if (*version != std::to_string(kSchemaVersion)) {
    return fail(ENOTSUP, "store {}: format version {}, this program reads {}", path_, *version, kSchemaVersion);
  }
  if (auto ok = writer_.execute(kWriterPragmas); !ok) return ok;
  // Reads every page once: better no start than acknowledged writes on top of a damaged tree.
  auto check = writer_.text("PRAGMA quick_check(1)");
  if (!check) return propagate(check);
  if (*check != "ok") {
    return fail(EBADMSG, "store {}: the file is damaged ({}); move it away or restore a backup", path_, *check);
  }
  return {};
}

Result<> SqliteLog::create_schema() {
  // auto_vacuum can be chosen only before the first page is written, which the change to WAL does.
  for (const char* sql : {"PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL", kWriterPragmas}) {
    if (auto ok = writer_.execute(sql); !ok) return ok;
  }
  // One transaction: after a kill at any moment the file is either still empty or a whole store.
  std::string sql = "BEGIN IMMEDIATE;";
  for (const char* statement : kSchema) sql += fmt::format("{};", statement);
  sql += fmt::format("PRAGMA application_id={}; PRAGMA user_version={}; COMMIT;", kApplicationId, kSchemaVersion);
  return writer_.execute(sql.c_str());
}

Result<LogState> SqliteLog::load() {
  auto mode = writer_.text("PRAGMA journal_mode");
  if (!mode) return propagate(mode);
  if (*mode != "wal") return fail(EBADMSG, "store {}: journal mode is {}, not wal", path_, *mode);
  auto last = writer_.integer(Sql::kLastId);
  if (!last) return propagate(last);
  auto compacted = writer_.integer(Sql::kCompacted);
  if (!compacted) return propagate(compacted);
  LogState state{.revision = newest(*last), .compacted = *compacted};
  auto q = writer_.query(Sql::kLeases);
  while (true) {
    auto row = q.step();
    if (!row) return propagate(row);
    if (!*row) return state;
    state.leases.emplace_back(q.integer(0), q.integer(1));
  }
}

Result<> SqliteLog::begin() {
  return writer_.query(Sql::kBeginWrite).run();
}
Result<> SqliteLog::commit() {
  return writer_.query(Sql::kCommit).run();
}
void SqliteLog::rollback() {
  writer_.rollback();
}

Result<std::shared_ptr<const KeyValue>> SqliteLog::latest(const std::string& key) {
  auto q = writer_.query(Sql::kLatest);
  auto row = q.bind(1, key).step();
  if (!row) return propagate(row);
  if (!*row) return nullptr;
  return std::make_shared<const KeyValue>(read_row(q));
}

Result<> SqliteLog::append(const Event& e, int position) {
  const std::int64_t id = first_id(e.kv.mod_revision) | position;
  const bool put = e.type == Event::Type::kPut;
  {
    auto q = writer_.query(Sql::kInsertHistory);
    q.bind(1, id).bind(2, e.kv.key).bind(3, e.kv.create_revision).bind(4, e.kv.version).bind(5, e.kv.lease);
    if (put) {
      q.bind(6, e.kv.value);
    } else {
      q.bind_null(6);
    }
    if (auto ok = q.run(); !ok) return ok;
  }
  if (!put) return writer_.query(Sql::kDropLive).bind(1, e.kv.key).run();
  return writer_.query(Sql::kSetLive).bind(1, e.kv.key).bind(2, id).bind(3, e.kv.lease).run();
}

Result<> SqliteLog::set_compacted(Revision r) {
  unswept_ = true;
  return writer_.query(Sql::kSetCompacted).bind(1, r).run();
}

Result<> SqliteLog::set_lease(LeaseId id, std::int64_t ttl_seconds) {
  if (ttl_seconds == 0) return writer_.query(Sql::kDropLease).bind(1, id).run();
  return writer_.query(Sql::kSetLease).bind(1, id).bind(2, ttl_seconds).run();
}

Result<std::vector<std::string>> SqliteLog::lease_keys(LeaseId id) {
  std::vector<std::string> keys;
  auto q = writer_.query(Sql::kLeaseKeys);
  q.bind(1, id);
  while (true) {
    auto row = q.step();
    if (!row) return propagate(row);
    if (!*row) return keys;
    keys.push_back(q.bytes(0));
  }
}

Result<bool> SqliteLog::maintain() {
  if (writer_.wal_pages() >= kCheckpointPages) {
    if (auto ok = writer_.checkpoint(writer_.wal_pages() >= kForcedCheckpointPages); !ok) return propagate(ok);
  }
  // On a failure the flag stays down, so that a full disk is not asked again with every write; the next compaction goes
  // on.
  if (std::exchange(unswept_, false)) {
    auto more = sweep();
    if (!more) return more;
    unswept_ = *more;
    unvacuumed_ = !*more;
    return true;
  }
  if (std::exchange(unvacuumed_, false)) {
    auto more = vacuum();
    if (!more) return more;
    unvacuumed_ = *more;
  }
  return unvacuumed_;
}

Result<bool> SqliteLog::sweep() {
  auto compacted = writer_.integer(Sql::kCompacted);
  if (!compacted) return propagate(compacted);
  auto swept = writer_.integer(Sql::kSwept);
  if (!swept) return propagate(swept);
  // The rows of the compacted revision itself are looked at twice: now for what they replace, next time as tombstones.
  // So a sweep ends one revision past the mark that it leaves.
  const std::int64_t limit = first_id(*compacted);
  if (*swept == limit) return false;
  std::int64_t last = 0;
  {
    auto q = writer_.query(Sql::kSweepEnd);
    auto row = q.bind(1, *swept).bind(2, first_id(*compacted + 1)).bind(3, kSweepRows).step();
    if (!row) return propagate(row);
    last = q.integer(0);
  }
  const bool done = last == 0;
  auto ok = begin();
  if (ok && !done) ok = sweep_chunk(*swept, last, limit);
  if (ok) ok = writer_.query(Sql::kSetSwept).bind(1, done ? limit : last + 1).run();
  if (ok) ok = commit();
  if (!ok) {
    rollback();
    return propagate(ok, "compaction");
  }
  return !done;
}

Result<> SqliteLog::sweep_chunk(std::int64_t from, std::int64_t last, std::int64_t limit) {
  if (auto ok = writer_.query(Sql::kSweepReplaced).bind(1, from).bind(2, last).run(); !ok) return ok;
  return writer_.query(Sql::kSweepTombstones).bind(1, from).bind(2, last).bind(3, limit).run();
}

Result<bool> SqliteLog::vacuum() {
  auto pages = writer_.integer(Sql::kPages);
  if (!pages) return propagate(pages);
  auto free_pages = writer_.integer(Sql::kFreePages);
  if (!free_pages) return propagate(free_pages);
  if (*free_pages <= kKeptFreePages || *free_pages * kMaxFreeShare <= *pages) return false;
  if (auto ok = writer_.query(Sql::kVacuum).run(); !ok) return propagate(ok, "vacuum");
  return true;
}

Result<RangeReply> SqliteLog::range(const RangeRequest& r) {
  Reader reader(*this);
  auto now = reader.begin(r.revision);
  if (!now) return propagate(now);
  const KeySpan span = KeySpan::of(r.key, r.end);
  const bool past = r.revision != 0 && r.revision < *now;
  RangeReply reply{.revision = *now};
  if (!r.count_only) {
    auto q = reader->query(past ? Sql::kRangePast : Sql::kRangeNow);
    q.bind(1, span.low)
        .bind(2, span.high)
        .bind(3, r.limit > 0 ? r.limit + 1 : -1);  // one more, to know whether there is more
    if (past) q.bind(4, first_id(r.revision + 1));
    while (true) {
      auto row = q.step();
      if (!row) return propagate(row);
      if (!*row) break;
      reply.more = r.limit > 0 && std::ssize(reply.kvs) == r.limit;
      if (reply.more) break;
      reply.kvs.push_back(read_row(q, !r.keys_only));
    }
  }
  reply.count = std::ssize(reply.kvs);
  if (!reply.more && !r.count_only) return reply;
  auto q = reader->query(past ? Sql::kCountPast : Sql::kCountNow);
  q.bind(1, span.low).bind(2, span.high);
  if (past) q.bind(3, first_id(r.revision + 1));
  auto row = q.step();
  if (!row) return propagate(row);
  reply.count = q.integer(0);
  return reply;
}

Result<History> SqliteLog::history(const HistoryRequest& r) {
  Reader reader(*this);
  if (auto now = reader.begin(r.from); !now) return propagate(now);
  History h{.events = {}, .progress = r.to};
  std::size_t bytes = 0;
  auto q = reader->query(Sql::kHistory);
  q.bind(1, first_id(r.from)).bind(2, first_id(r.to + 1)).bind(3, r.span.low).bind(4, r.span.high);
  while (true) {
    auto row = q.step();
    if (!row) return propagate(row);
    if (!*row) return h;
    const std::int64_t id = q.integer(0);
    const bool full = h.events.size() >= r.max_events || bytes >= r.max_bytes;
    if (full && h.events.back().kv.mod_revision != revision_of(id)) {
      h.progress = revision_of(id) - 1;
      return h;
    }
    Event e{.kv = read_row(q)};
    if (e.kv.version == 0) e.type = Event::Type::kDelete;
    auto before = reader->query(Sql::kBefore);
    auto found = before.bind(1, e.kv.key).bind(2, id).step();
    if (!found) return propagate(found);
    if (*found && before.integer(3) > 0) e.previous = std::make_shared<const KeyValue>(read_row(before));
    bytes += e.kv.key.size() + e.kv.value.size();
    h.events.push_back(std::move(e));
  }
}

Result<std::unique_ptr<Store>> open_sqlite(const SqliteOptions& o) {
  auto log = SqliteLog::open(o.path);
  if (!log) return propagate(log);
  return std::make_unique<LogStore>(std::move(*log), o.clock ? *o.clock : system_clock());
}

}  // namespace hawser::store
