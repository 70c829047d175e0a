// SPDX-License-Identifier: Apache-2.0
// Metrics: counters, gauges and histograms with labels, and their Prometheus text form (exposition format 0.0.4).
// Any thread; adding to a metric takes no lock. References from with() stay good for the registry's life: keep them in
// hot paths.
//
//   metrics::Registry registry;
//   auto& errors = registry.counter("hawser_sync_errors_total", "Failed syncs.", {"stage"});
//   errors.with({"apply"}).add();
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace hawser::metrics {

inline constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

class Counter {
 public:
  void add(double by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Gauge {
 public:
  void set(double v) { value_.store(v, std::memory_order_relaxed); }
  void add(double by) { value_.fetch_add(by, std::memory_order_relaxed); }
  [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void observe(double v);
  [[nodiscard]] std::uint64_t count() const;
  [[nodiscard]] double sum() const { return sum_.load(std::memory_order_relaxed); }
  [[nodiscard]] const std::vector<double>& bounds() const { return bounds_; }
  [[nodiscard]] std::uint64_t bucket(std::size_t i) const { return buckets_[i].load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;                       // upper, ascending; +Inf is one more bucket
  std::unique_ptr<std::atomic<std::uint64_t>[]> buckets_;  // not cumulative
  std::atomic<double> sum_{0};
};

// `count` bounds from `start`, each `factor` times the one before.
[[nodiscard]] std::vector<double> exponential_buckets(double start, double factor, int count);

// All series of one name.
template <class T>
class Family {
 public:
  Family(std::vector<std::string> label_names, std::function<std::unique_ptr<T>()> make)
      : label_names_(std::move(label_names)), make_(std::move(make)) {}
  // The series with these label values, in the order of the label names; made at first use. Missing values read as "".
  T& with(std::vector<std::string> values = {}) {
    values.resize(label_names_.size());
    std::lock_guard l(mu_);
    auto& slot = series_[std::move(values)];
    if (!slot) slot = make_();
    return *slot;
  }
  [[nodiscard]] const std::vector<std::string>& label_names() const { return label_names_; }
  void each(const std::function<void(const std::vector<std::string>&, const T&)>& fn) const {
    std::lock_guard l(mu_);
    for (auto& [values, metric] : series_) fn(values, *metric);
  }

 private:
  const std::vector<std::string> label_names_;
  const std::function<std::unique_ptr<T>()> make_;
  mutable std::mutex mu_;
  std::map<std::vector<std::string>, std::unique_ptr<T>> series_;  // guarded by mu_
};

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // The second call with a name returns the family of the first. One name must keep one type.
  Family<Counter>& counter(const std::string& name, std::string_view help, std::vector<std::string> labels = {});
  Family<Gauge>& gauge(const std::string& name, std::string_view help, std::vector<std::string> labels = {});
  Family<Histogram>& histogram(const std::string& name, std::string_view help, std::vector<double> bounds,
                               std::vector<std::string> labels = {});
  // `fn` runs at the start of each text(): for gauges that are read rather than kept.
  void on_collect(std::function<void()> fn);
  // Resident memory, CPU time, open descriptors and start time of this process, under Prometheus' usual names.
  void add_process_metrics();

  [[nodiscard]] std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::metrics
