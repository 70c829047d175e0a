// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/cri_log.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/time_text.h"
#include "lib/base/unique_fd.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kChunk = 64 << 10;
// A record longer than this is not a log of ours: the runtime's own buffer is 16 KiB.
constexpr std::size_t kMaxLine = 1 << 20;

std::uint64_t size_of(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
}

// Offset of the last `lines` lines of a file, and how many of them it had.
Result<std::pair<std::uint64_t, std::int64_t>> tail_offset(const std::string& path, std::int64_t lines) {
  auto fd = UniqueFd::open(path.c_str(), O_RDONLY);
  if (!fd) return propagate(fd);
  std::uint64_t pos = size_of(fd->get());
  std::int64_t seen = 0;
  std::string buf(kChunk, '\0');
  bool last_byte = true;
  while (pos > 0) {
    const std::uint64_t start = pos > kChunk ? pos - kChunk : 0;
    const ssize_t n = ::pread(fd->get(), buf.data(), pos - start, static_cast<off_t>(start));
    if (n <= 0) break;
    for (ssize_t i = n - 1; i >= 0; --i) {
      // The end of the last line does not begin a line.
      const bool ends_file = std::exchange(last_byte, false);
      if (buf[static_cast<std::size_t>(i)] != '\n' || ends_file) continue;
      if (++seen >= lines) return std::pair{start + static_cast<std::uint64_t>(i) + 1, lines};
    }
    pos = start;
  }
  return std::pair{std::uint64_t{0}, last_byte ? 0 : seen + 1};
}

}  // namespace

std::optional<LogLine> parse_log_line(std::string_view line) {
  LogLine out;
  const auto a = line.find(' ');
  if (a == std::string_view::npos || a == 0) return std::nullopt;
  out.time = line.substr(0, a);
  const auto b = line.find(' ', a + 1);
  if (b == std::string_view::npos) return std::nullopt;
  out.stream = line.substr(a + 1, b - a - 1);
  if (out.stream != "stdout" && out.stream != "stderr") return std::nullopt;
  // Tags are joined by ':'; only the first has a meaning so far.
  auto c = line.find(' ', b + 1);
  if (c == std::string_view::npos) c = line.size();
  const auto tag = line.substr(b + 1, std::min(c, line.find(':', b + 1)) - b - 1);
  if (tag != "P" && tag != "F") return std::nullopt;
  out.partial = tag == "P";
  out.text = c < line.size() ? line.substr(c + 1) : std::string_view();
  return out;
}

std::vector<std::string> log_pieces(const std::string& path) {
  std::vector<std::string> out;
  std::error_code ec;
  const fs::path p(path);
  const std::string prefix = p.filename().string() + ".";
  for (fs::directory_iterator it(p.parent_path(), ec), end; !ec && it != end; it.increment(ec))
    if (it->path().filename().string().starts_with(prefix)) out.push_back(it->path());
  std::ranges::sort(out);  // the suffix is a time that sorts
  if (fs::exists(p, ec)) out.push_back(path);
  return out;
}

LogReader::LogReader(std::string path, LogOptions options)
    : path_(std::move(path)), options_(options), left_bytes_(options.limit_bytes.value_or(-1)) {}

Result<> LogReader::start() {
  started_ = true;
  auto pieces = log_pieces(path_);
  if (pieces.empty() || pieces.back() != path_) return fail(ENOENT, "log file {} does not exist", path_);
  if (!options_.tail_lines) {
    for (const auto& p : pieces) backlog_.emplace_back(p, 0);
    return {};
  }
  std::int64_t wanted = *options_.tail_lines;
  for (auto it = pieces.rbegin(); it != pieces.rend(); ++it) {
    if (wanted <= 0) {
      // The newest file is followed from its end even when no old line is wanted.
      std::error_code ec;
      if (*it == path_) backlog_.emplace_back(*it, fs::file_size(*it, ec));
      break;
    }
    auto from = tail_offset(*it, wanted);
    if (!from) return propagate(from);
    backlog_.emplace_back(*it, from->first);
    wanted -= from->second;
  }
  std::ranges::reverse(backlog_);
  return {};
}

bool LogReader::emit(std::string_view line, const std::function<bool(std::string_view)>& out) {
  const auto record = parse_log_line(line);
  if (!record) return true;
  if (options_.since) {
    auto t = parse_rfc3339(record->time);
    if (t && *t < *options_.since) return true;
  }
  std::string text;
  if (options_.timestamps && !mid_line_) text.append(record->time).append(" ");
  text.append(record->text);
  mid_line_ = record->partial;
  if (!mid_line_) text += '\n';
  if (left_bytes_ >= 0) {
    if (static_cast<std::int64_t>(text.size()) >= left_bytes_) {
      text.resize(static_cast<std::size_t>(left_bytes_));
      left_bytes_ = 0;
      out(text);
      return false;
    }
    left_bytes_ -= static_cast<std::int64_t>(text.size());
  }
  return out(text);
}

Result<bool> LogReader::read_file_from(const std::string& path, std::uint64_t offset, std::uint64_t* end,
                                       const std::function<bool(std::string_view)>& out) {
  auto fd = UniqueFd::open(path.c_str(), O_RDONLY);
  if (!fd) return propagate(fd);
  struct stat st {};
  if (::fstat(fd->get(), &st) == 0 && path == path_) inode_ = st.st_ino;
  std::string pending, buf(kChunk, '\0');
  *end = offset;
  while (true) {
    const ssize_t n = ::pread(fd->get(), buf.data(), buf.size(), static_cast<off_t>(offset));
    if (n < 0) return fail_errno(errno, "read {}", path);
    if (n == 0) return true;
    offset += static_cast<std::uint64_t>(n);
    pending.append(buf, 0, static_cast<std::size_t>(n));
    std::size_t begin = 0;
    for (auto nl = pending.find('\n'); nl != std::string::npos; nl = pending.find('\n', begin)) {
      const bool more = emit(std::string_view(pending).substr(begin, nl - begin), out);
      *end += nl + 1 - begin;
      begin = nl + 1;
      if (!more) return false;
    }
    pending.erase(0, begin);
    // Half a record stays in the file until its end is written.
    if (pending.size() > kMaxLine) return fail(EINVAL, "log file {}: a record is longer than {} bytes", path, kMaxLine);
  }
}

Result<bool> LogReader::read(const std::function<bool(std::string_view)>& out) {
  if (!started_)
    if (auto r = start(); !r) return propagate(r);
  if (left_bytes_ == 0) return false;
  for (const auto& [path, from] : std::exchange(backlog_, {})) {
    std::uint64_t end = from;
    auto more = read_file_from(path, from, &end, out);
    if (!more && path != path_ && is_not_found(more.error())) continue;  // rotated away meanwhile
    if (!more || !*more) return more;
    if (path == path_) offset_ = end;
  }
  struct stat st {};
  if (::stat(path_.c_str(), &st) != 0) return true;  // between two names of a rotation
  if (inode_ != 0 && st.st_ino != inode_) {
    // Rotated: what came after our last look is at the end of the newest piece.
    auto pieces = log_pieces(path_);
    if (pieces.size() >= 2) {
      std::uint64_t end = offset_;
      auto more = read_file_from(pieces[pieces.size() - 2], offset_, &end, out);
      if (more && !*more) return false;
    }
    offset_ = 0;
  }
  std::uint64_t end = offset_;
  auto more = read_file_from(path_, offset_, &end, out);
  offset_ = end;
  if (!more && is_not_found(more.error())) return true;
  return more;
}

Result<> LogReader::wait_for_more(std::chrono::milliseconds timeout) {
  UniqueFd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd) return fail_errno(errno, "inotify");
  ::inotify_add_watch(fd.get(), fs::path(path_).parent_path().c_str(), IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF);
  ::inotify_add_watch(fd.get(), path_.c_str(), IN_MODIFY);
  // Written between the last read and the watch?
  struct stat st {};
  if (::stat(path_.c_str(), &st) == 0 && (static_cast<std::uint64_t>(st.st_size) > offset_ || st.st_ino != inode_)) {
    // Half a record also is "more"; the pause keeps its writer from being polled at full speed.
    timeout = std::min(timeout, std::chrono::milliseconds(50));
  }
  pollfd p{.fd = fd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&p, 1, static_cast<int>(timeout.count())) < 0 && errno != EINTR) return fail_errno(errno, "poll");
  return {};
}

std::string log_tail(const std::string& path, int max_lines, std::size_t max_bytes) {
  LogReader reader(path, {.tail_lines = max_lines});
  std::string out;
  auto r = reader.read([&](std::string_view text) {
    out += text;
    return true;
  });
  if (!r) return "";
  if (out.size() > max_bytes) out.erase(0, out.size() - max_bytes);
  return out;
}

}  // namespace hawser::agent
