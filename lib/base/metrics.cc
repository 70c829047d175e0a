// SPDX-License-Identifier: Apache-2.0
#include "lib/base/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <variant>

#include <sys/resource.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/base/clock.h"

namespace hawser::metrics {
namespace {

template <class T>
using FamilyPtr = std::unique_ptr<Family<T>>;

struct Entry {
  std::string help;
  std::variant<FamilyPtr<Counter>, FamilyPtr<Gauge>, FamilyPtr<Histogram>> family;
};

std::string number(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", v);
}

// Exposition format: backslash and newline are escaped everywhere, quotes in label values only.
std::string escape(std::string_view s, bool quotes) {
  std::string out;
  for (char c : s) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else if (c == '"' && quotes)
      out += "\\\"";
    else
      out += c;
  }
  return out;
}

std::string labels_text(const std::vector<std::string>& names, const std::vector<std::string>& values,
                        std::string_view le = {}) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); i++)
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : ",", names[i], escape(values[i], true));
  if (!le.empty()) out += fmt::format("{}le=\"{}\"", out.empty() ? "" : ",", le);
  return out.empty() ? out : "{" + out + "}";
}

void print(std::string& out, const std::string& name, const std::vector<std::string>& names,
           const std::vector<std::string>& values, const Histogram& h) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i <= h.bounds().size(); i++) {
    sum += h.bucket(i);
    std::string le = i < h.bounds().size() ? number(h.bounds()[i]) : "+Inf";
    out += fmt::format("{}_bucket{} {}\n", name, labels_text(names, values, le), sum);
  }
  auto labels = labels_text(names, values);
  out += fmt::format("{0}_sum{1} {2}\n{0}_count{1} {3}\n", name, labels, number(h.sum()), sum);
}
template <class T>
void print(std::string& out, const std::string& name, const std::vector<std::string>& names,
           const std::vector<std::string>& values, const T& metric) {
  out += fmt::format("{}{} {}\n", name, labels_text(names, values), number(metric.value()));
}

constexpr std::string_view type_name(const Counter*) {
  return "counter";
}
constexpr std::string_view type_name(const Gauge*) {
  return "gauge";
}
constexpr std::string_view type_name(const Histogram*) {
  return "histogram";
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), buckets_(new std::atomic<std::uint64_t>[bounds_.size() + 1]()) {}
void Histogram::observe(double v) {
  auto at = std::ranges::lower_bound(bounds_, v) - bounds_.begin();
  buckets_[static_cast<std::size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(v, std::memory_order_relaxed);
}
std::uint64_t Histogram::count() const {
  std::uint64_t n = 0;
  for (std::size_t i = 0; i <= bounds_.size(); i++) n += bucket(i);
  return n;
}

std::vector<double> exponential_buckets(double start, double factor, int count) {
  std::vector<double> out;
  for (int i = 0; i < count; i++, start *= factor) out.push_back(start);
  return out;
}

struct Registry::Impl {
  mutable std::mutex mu;
  std::map<std::string, Entry> entries;           // guarded by mu
  std::vector<std::function<void()>> collectors;  // guarded by mu
  // Families asked for under a name of another type: they work, but are not shown.
  std::vector<Entry> misnamed;  // guarded by mu

  template <class T>
  Family<T>& get(const std::string& name, std::string_view help, std::vector<std::string> labels,
                 std::function<std::unique_ptr<T>()> make) {
    std::lock_guard l(mu);
    auto it = entries.find(name);
    if (it != entries.end())
      if (auto* same = std::get_if<FamilyPtr<T>>(&it->second.family)) return **same;
    auto family = std::make_unique<Family<T>>(std::move(labels), std::move(make));
    auto& made = *family;
    Entry e{std::string(help), std::move(family)};
    if (it != entries.end())
      misnamed.push_back(std::move(e));
    else
      entries.emplace(name, std::move(e));
    return made;
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Family<Counter>& Registry::counter(const std::string& name, std::string_view help, std::vector<std::string> labels) {
  return impl_->get<Counter>(name, help, std::move(labels), [] { return std::make_unique<Counter>(); });
}
Family<Gauge>& Registry::gauge(const std::string& name, std::string_view help, std::vector<std::string> labels) {
  return impl_->get<Gauge>(name, help, std::move(labels), [] { return std::make_unique<Gauge>(); });
}
Family<Histogram>& Registry::histogram(const std::string& name, std::string_view help, std::vector<double> bounds,
                                       std::vector<std::string> labels) {
  return impl_->get<Histogram>(name, help, std::move(labels),
                               [bounds = std::move(bounds)] { return std::make_unique<Histogram>(bounds); });
}

void Registry::on_collect(std::function<void()> fn) {
  std::lock_guard l(impl_->mu);
  impl_->collectors.push_back(std::move(fn));
}

std::string Registry::text() const {
  std::vector<std::function<void()>> collectors;
  {
    std::lock_guard l(impl_->mu);
    collectors = impl_->collectors;
  }
  for (auto& fn : collectors) fn();
  std::lock_guard l(impl_->mu);
  std::string out;
  for (auto& [name, entry] : impl_->entries) {
    std::visit(
        [&]<class T>(const std::unique_ptr<Family<T>>& family) {
          out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escape(entry.help, false), name,
                             type_name(static_cast<const T*>(nullptr)));
          family->each([&](const std::vector<std::string>& values, const T& metric) {
            print(out, name, family->label_names(), values, metric);
          });
        },
        entry.family);
  }
  return out;
}

void Registry::add_process_metrics() {
  auto& memory = gauge("process_resident_memory_bytes", "Resident memory size in bytes.").with();
  auto& cpu = gauge("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.").with();
  auto& fds = gauge("process_open_fds", "Number of open file descriptors.").with();
  auto& start = gauge("process_start_time_seconds", "Start time of the process since the epoch in seconds.").with();
  start.set(std::floor(std::chrono::duration<double>(system_clock().wall().time_since_epoch()).count()));
  on_collect([&memory, &cpu, &fds] {
    if (auto statm = read_file("/proc/self/statm")) {
      long pages = 0;
      auto at = statm->find(' ') + 1;
      std::from_chars(statm->data() + at, statm->data() + statm->size(), pages);
      memory.set(static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
    }
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    cpu.set(static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
            static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    std::error_code ec;
    std::filesystem::directory_iterator it("/proc/self/fd", ec);
    if (!ec) fds.set(static_cast<double>(std::distance(begin(it), end(it))));
  });
}

}  // namespace hawser::metrics
