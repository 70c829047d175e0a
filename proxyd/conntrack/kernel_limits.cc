// SPDX-License-Identifier: Apache-2.0
#include "proxyd/conntrack/kernel_limits.h"

#include <charconv>

#include <fcntl.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/sysctl.h"
#include "lib/base/unique_fd.h"

namespace hawser::proxy {
namespace {

constexpr std::int64_t kEntriesPerBucket = 4;

// -1: no number.
std::int64_t number(std::string_view text) {
  std::int64_t n = -1;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

Result<bool> write_one(const KernelSetting& s, const LimitKernel& kernel) {
  auto now = kernel.read(s.key);
  if (!now) return propagate(now);
  if (*now == s.value || (s.at_least && number(*now) >= number(s.value))) return false;
  if (auto r = kernel.write(s.key, s.value); !r) return propagate(r);
  return true;
}

Result<bool> grow_hash_table(std::int64_t max, const std::string& path) {
  auto now = read_file(path);
  if (!now) return propagate(now);
  const std::int64_t want = max / kEntriesPerBucket;
  if (number(*now) >= want) return false;
  auto fd = UniqueFd::open(path.c_str(), O_WRONLY);
  if (!fd) return propagate(fd);
  const std::string text = std::to_string(want);
  if (::write(fd->get(), text.data(), text.size()) < 0) return fail_errno(errno, "{} = {}", path, text);
  return true;
}

}  // namespace

LimitKernel limit_kernel() {
  return {.read = [](const std::string& key) { return sysctl::read(key); },
          .write = [](const std::string& key, const std::string& value) { return sysctl::write(key, value); }};
}

LimitReport set_limits(const std::vector<KernelSetting>& settings, const LimitKernel& kernel) {
  LimitReport report;
  for (const KernelSetting& s : settings) {
    auto wrote = write_one(s, kernel);
    if (!wrote) {
      report.failed.push_back(wrote.error().text);
      continue;
    }
    if (*wrote) report.wrote.push_back(fmt::format("{} = {}", s.key, s.value));
    if (s.key != kConntrackMax) continue;
    const auto now = kernel.read(s.key);
    auto grown = grow_hash_table(number(now.value_or(s.value)), kernel.hash_size);
    if (!grown) report.failed.push_back(grown.error().text);
    if (grown && *grown) report.wrote.push_back(fmt::format("{} for {} entries", kernel.hash_size, now.value_or("")));
  }
  return report;
}

}  // namespace hawser::proxy
