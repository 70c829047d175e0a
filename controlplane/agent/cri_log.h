// SPDX-License-Identifier: Apache-2.0
// Container logs as CRI runtimes write them, one record a line: "<RFC3339 nanoseconds> <stdout|stderr> <P|F> <text>". P
// marks a piece of a line longer than the runtime's buffer. parse_log_line() is pure and total (any bytes). LogReader
// reads one container's files, rotated ones included, with the options of `kubectl logs`.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/result.h"

namespace hawser::agent {

struct LogLine {
  std::string_view time;    // as written
  std::string_view stream;  // "stdout" or "stderr"
  bool partial = false;
  std::string_view text;  // without the line's end
};

// nullopt: not a record of this format. `line` without its '\n'; the views point into it.
std::optional<LogLine> parse_log_line(std::string_view line);

struct LogOptions {
  bool follow = false;
  bool timestamps = false;
  std::optional<std::int64_t> tail_lines;
  std::optional<WallTime> since;
  std::optional<std::int64_t> limit_bytes;
};

// Where the reader is in one file; also formats records.
class LogReader {
 public:
  // `path`: <container>/<attempt>.log; rotated pieces are path.YYYYMMDD-HHMMSS (uncompressed), oldest first.
  LogReader(std::string path, LogOptions options);

  // Writes what is there now through `out` (false: stop). Not found if the log file does not exist.
  // Returns false once the limit is reached or `out` said stop.
  Result<bool> read(const std::function<bool(std::string_view)>& out);
  // After read(): waits until the file grows, is rotated, or `timeout` passes. inotify; no polling while nothing is
  // written.
  Result<> wait_for_more(std::chrono::milliseconds timeout);

 private:
  Result<> start();
  Result<bool> read_file_from(const std::string& path, std::uint64_t offset, std::uint64_t* end,
                              const std::function<bool(std::string_view)>& out);
  bool emit(std::string_view line, const std::function<bool(std::string_view)>& out);

  const std::string path_;
  LogOptions options_;
  bool started_ = false;
  std::uint64_t inode_ = 0;
  std::uint64_t offset_ = 0;
  std::int64_t left_bytes_ = 0;
  bool mid_line_ = false;  // the last record was partial: no timestamp in front of the next
  std::vector<std::pair<std::string, std::uint64_t>> backlog_;  // rotated pieces to read first, and from where
};

// Rotated pieces of `path`, oldest first, then `path` itself if it exists.
[[nodiscard]] std::vector<std::string> log_pieces(const std::string& path);

// The last `max_lines` lines and at most `max_bytes` of a log, for termination messages. "" if there is none.
[[nodiscard]] std::string log_tail(const std::string& path, int max_lines, std::size_t max_bytes);

}  // namespace hawser::agent
