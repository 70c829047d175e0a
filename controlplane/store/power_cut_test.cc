// SPDX-License-Identifier: Apache-2.0
// Power cuts. A VFS between SQLite and the disk remembers, for each file, what was synced and what was only written. A
// cut is a copy of the synced bytes plus a random choice of the unsynced writes, as a disk cache may leave it. Whatever
// was acknowledged before the copy must be in it. With synchronous below FULL this fails.
#include <atomic>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "controlplane/store/store.h"
#include "controlplane/store/temp_dir.h"

namespace hawser::store {
namespace {

class Disk {
 public:
  void write(const std::string& path, std::string bytes, std::size_t at) {
    std::lock_guard l(mu_);
    files_[path].unsynced.push_back({std::move(bytes), at, false});
  }
  void truncate(const std::string& path, std::size_t size) {
    std::lock_guard l(mu_);
    files_[path].unsynced.push_back({{}, size, true});
  }
  void sync(const std::string& path) {
    std::lock_guard l(mu_);
    File& f = files_[path];
    for (auto& w : f.unsynced) apply(f.synced, w);
    f.unsynced.clear();
  }
  void remove(const std::string& path) {
    std::lock_guard l(mu_);
    files_.erase(path);
  }
  // What the disk may hold for `path` if the power went now.
  std::map<std::string, std::string> cut(const std::string& path, std::mt19937& random) {
    std::lock_guard l(mu_);
    std::map<std::string, std::string> image;
    for (auto& [name, f] : files_) {
      if (!name.starts_with(path)) continue;
      std::string bytes = f.synced;
      for (auto& w : f.unsynced) {
        if (random() % 2) apply(bytes, w);
      }
      image[name.substr(path.size())] = std::move(bytes);
    }
    return image;
  }

 private:
  struct Write {
    std::string bytes;
    std::size_t at;
    bool truncate;
  };
  struct File {
    std::string synced;
    std::vector<Write> unsynced;
  };
  static void apply(std::string& bytes, const Write& w) {
    if (w.truncate) return bytes.resize(std::min(bytes.size(), w.at));
    if (bytes.size() < w.at + w.bytes.size()) bytes.resize(w.at + w.bytes.size());
    bytes.replace(w.at, w.bytes.size(), w.bytes);
  }
  std::mutex mu_;
  std::map<std::string, File> files_;  // guarded by mu_
};

Disk& disk() {
  static Disk d;
  return d;
}

// SQLite's file object of our VFS; the real one's follows it in memory.
struct ShimFile {
  sqlite3_file base;
  const char* path;  // null: not followed (temporary files)
  [[nodiscard]] sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
ShimFile* shim(sqlite3_file* f) {
  return reinterpret_cast<ShimFile*>(f);
}
sqlite3_file* real(sqlite3_file* f) {
  return shim(f)->real();
}

int shim_write(sqlite3_file* f, const void* data, int n, sqlite3_int64 at) {
  const int rc = real(f)->pMethods->xWrite(real(f), data, n, at);
  if (rc == SQLITE_OK && shim(f)->path) {
    disk().write(shim(f)->path, std::string(static_cast<const char*>(data), static_cast<std::size_t>(n)),
                 static_cast<std::size_t>(at));
  }
  return rc;
}
int shim_truncate(sqlite3_file* f, sqlite3_int64 size) {
  const int rc = real(f)->pMethods->xTruncate(real(f), size);
  if (rc == SQLITE_OK && shim(f)->path) disk().truncate(shim(f)->path, static_cast<std::size_t>(size));
  return rc;
}
int shim_sync(sqlite3_file* f, int flags) {
  const int rc = real(f)->pMethods->xSync(real(f), flags);
  if (rc == SQLITE_OK && shim(f)->path) disk().sync(shim(f)->path);
  return rc;
}

// Version 2: shared memory for WAL, but no memory-mapped reads.
const sqlite3_io_methods kShimMethods = {
    .iVersion = 2,
    .xClose = [](sqlite3_file* f) { return real(f)->pMethods->xClose(real(f)); },
    .xRead = [](sqlite3_file* f, void* p, int n,
                sqlite3_int64 at) { return real(f)->pMethods->xRead(real(f), p, n, at); },
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = [](sqlite3_file* f, sqlite3_int64* n) { return real(f)->pMethods->xFileSize(real(f), n); },
    .xLock = [](sqlite3_file* f, int l) { return real(f)->pMethods->xLock(real(f), l); },
    .xUnlock = [](sqlite3_file* f, int l) { return real(f)->pMethods->xUnlock(real(f), l); },
    .xCheckReservedLock = [](sqlite3_file* f, int* r) { return real(f)->pMethods->xCheckReservedLock(real(f), r); },
    .xFileControl = [](sqlite3_file* f, int op, void* p) { return real(f)->pMethods->xFileControl(real(f), op, p); },
    .xSectorSize = [](sqlite3_file* f) { return real(f)->pMethods->xSectorSize(real(f)); },
    .xDeviceCharacteristics = [](sqlite3_file* f) { return real(f)->pMethods->xDeviceCharacteristics(real(f)); },
    .xShmMap = [](sqlite3_file* f, int i, int n, int x,
                  void volatile** p) { return real(f)->pMethods->xShmMap(real(f), i, n, x, p); },
    .xShmLock = [](sqlite3_file* f, int o, int n,
                   int flags) { return real(f)->pMethods->xShmLock(real(f), o, n, flags); },
    .xShmBarrier = [](sqlite3_file* f) { real(f)->pMethods->xShmBarrier(real(f)); },
    .xShmUnmap = [](sqlite3_file* f, int d) { return real(f)->pMethods->xShmUnmap(real(f), d); },
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

sqlite3_vfs* real_vfs(sqlite3_vfs* v) {
  return static_cast<sqlite3_vfs*>(v->pAppData);
}

int shim_open(sqlite3_vfs* v, const char* name, sqlite3_file* f, int flags, int* out) {
  f->pMethods = nullptr;
  shim(f)->path = (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) ? name : nullptr;
  const int rc = real_vfs(v)->xOpen(real_vfs(v), name, real(f), flags, out);
  if (rc == SQLITE_OK) f->pMethods = &kShimMethods;
  return rc;
}
int shim_delete(sqlite3_vfs* v, const char* name, int sync_folder) {
  disk().remove(name);
  return real_vfs(v)->xDelete(real_vfs(v), name, sync_folder);
}

// The shim is SQLite's default VFS as long as this lives.
class ShimVfs {
 public:
  ShimVfs() : base_(sqlite3_vfs_find(nullptr)), shim_(*base_) {
    shim_.zName = "powercut";
    shim_.szOsFile = static_cast<int>(sizeof(ShimFile)) + base_->szOsFile;
    shim_.pAppData = base_;
    shim_.xOpen = shim_open;
    shim_.xDelete = shim_delete;
    sqlite3_vfs_register(&shim_, 1);
  }
  ~ShimVfs() {
    sqlite3_vfs_unregister(&shim_);
    sqlite3_vfs_register(base_, 1);
  }
  ShimVfs(const ShimVfs&) = delete;
  ShimVfs& operator=(const ShimVfs&) = delete;

 private:
  sqlite3_vfs* base_;
  sqlite3_vfs shim_;
};

struct Acknowledged {
  std::mutex mu;
  std::map<std::string, std::pair<int, Revision>> newest;  // key -> counter, revision
};

void write_until(Store& s, std::atomic<bool>& stop, int thread, Acknowledged& acks) {
  for (int n = 0; !stop; ++n) {
    const std::string key = fmt::format("t{}/k{}", thread, n % 5);
    auto r = s.txn({.success = {{.key = key, .value = fmt::format("{} {}", n, std::string(700, 'x'))}}});
    ASSERT_TRUE(r) << r.error().text;
    {
      std::lock_guard l(acks.mu);
      acks.newest[key] = {n, r->revision};
    }
    if (thread == 0 && n % 50 == 49) {
      ASSERT_TRUE(s.compact(s.revision() - 20));
    }
  }
}

void check_image(const std::string& path, const std::map<std::string, std::pair<int, Revision>>& acks) {
  auto s = open_sqlite({.path = path});
  ASSERT_TRUE(s) << s.error().text;
  for (auto& [key, a] : acks) {
    EXPECT_GE((*s)->revision(), a.second);
    auto r = (*s)->range({.key = key});
    ASSERT_TRUE(r) << r.error().text;
    ASSERT_EQ(r->count, 1) << key << " is lost, acknowledged at " << a.second;
    EXPECT_GE(r->kvs[0].mod_revision, a.second) << key;
    EXPECT_GE(std::stoi(r->kvs[0].value), a.first) << key;
  }
}

TEST(PowerCut, NoAcknowledgedWriteIsLost) {
  ShimVfs vfs;
  TempDir dir;
  std::mt19937 random(std::random_device{}());
  auto s = open_sqlite({.path = dir.file("store.db")});
  ASSERT_TRUE(s) << s.error().text;
  Acknowledged acks;
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) writers.emplace_back([&, t] { write_until(**s, stop, t, acks); });
  Revision next = 50;
  for (int cut = 0; cut < 40 && !HasFailure(); ++cut, next += static_cast<Revision>(random() % 120)) {
    SCOPED_TRACE(fmt::format("cut {}", cut));
    while ((*s)->revision() < next) std::this_thread::yield();
    std::map<std::string, std::pair<int, Revision>> promised;
    {
      std::lock_guard l(acks.mu);
      promised = acks.newest;
    }
    // Taken after the acknowledgements were read: what comes in between may be there or not.
    const auto image = disk().cut(dir.file("store.db"), random);
    const std::string copy = dir.file(fmt::format("cut{}", cut));
    for (auto& [suffix, bytes] : image) std::ofstream(copy + suffix, std::ios::binary) << bytes;
    check_image(copy, promised);
  }
  stop = true;
  for (auto& t : writers) t.join();
}

}  // namespace
}  // namespace hawser::store
