// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/etcd_source.h"

#include <algorithm>

#include "lib/base/log.h"
#include "lib/base/random.h"

namespace hawser::overlay {
namespace {

constexpr std::chrono::seconds kRetry{1};
constexpr int kRaces = 10;  // lost to other nodes before it is called a failure

}  // namespace

Result<NetConf> read_etcd_config(EtcdClient& client, const std::string& prefix) {
  auto r = client.range(prefix + "/config", false);
  if (!r) return propagate(r);
  if (r->keys.empty()) return fail(ENOENT, "etcd has no key {}/config", prefix);
  auto conf = NetConf::parse(r->keys[0].value);
  if (!conf) return propagate(conf, "etcd key {}/config", prefix);
  if (!conf->v4)
    return fail(EINVAL, "etcd key {}/config: EnableIPv4 false: leases in etcd begin with an IPv4 range", prefix);
  return conf;
}

EtcdSource::EtcdSource(EtcdSourceOptions options, std::unique_ptr<EtcdClient> client, Clock& clock)
    : options_(std::move(options)), client_(std::move(client)), clock_(clock) {}

EtcdSource::~EtcdSource() {
  EtcdSource::stop();
}

void EtcdSource::start(std::function<void()> on_change) {
  on_change_ = std::move(on_change);
  watcher_ = std::jthread([this](const std::stop_token& stop) { watch_loop(stop); });
  keeper_ = std::jthread([this](const std::stop_token& stop) { keep_loop(stop); });
}

void EtcdSource::stop() {
  watcher_.request_stop();
  keeper_.request_stop();
  {
    std::lock_guard l(mu_);
    cv_.notify_all();
  }
  if (watcher_.joinable()) watcher_.join();
  if (keeper_.joinable()) keeper_.join();
}

void EtcdSource::pause(const std::stop_token& stop, Nanos time, bool wake_on_wish) {
  std::unique_lock l(mu_);
  clock_.wait_until(l, cv_, clock_.now() + time, [&] { return stop.stop_requested() || (wake_on_wish && wish_); });
}

void EtcdSource::watch_loop(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    auto r = list_and_watch(stop);
    if (stop.stop_requested()) return;
    if (!r && !is_gone(r.error())) log::warn("leases: {}", r.error().text);
    if (!r && !is_gone(r.error())) pause(stop, kRetry, false);
  }
}

Result<> EtcdSource::list_and_watch(const std::stop_token& stop) {
  auto range = client_->range(folder(), true);
  if (!range) return propagate(range);
  {
    std::lock_guard l(mu_);
    leases_.clear();
    for (const auto& k : range->keys) take_in(k, false);
    // Our own was taken away while nobody watched.
    if (!own_key_.empty() && !leases_.contains(own_key_)) wish_ = true;
    known_ = true;
    cv_.notify_all();
  }
  on_change_();
  return client_->watch(
      folder(), range->revision + 1,
      [&](const std::vector<EtcdEvent>& events, std::int64_t) {
        {
          std::lock_guard l(mu_);
          for (const auto& e : events) take_in(e.key, e.deleted);
          cv_.notify_all();
        }
        on_change_();
        return !stop.stop_requested();
      },
      stop);
}

void EtcdSource::take_in(const EtcdKey& k, bool deleted) {
  const auto name = k.key.substr(std::min(folder().size(), k.key.size()));
  leases_.erase(name);
  if (deleted && name == own_key_) wish_ = true;
  if (deleted) return;
  if (auto lease = parse_lease_record(name, k.value))
    leases_[name] = std::move(*lease);
  else
    log::warn("etcd key {}: is no lease", k.key);
}

std::expected<SubnetView, std::string> EtcdSource::view() {
  std::lock_guard l(mu_);
  if (!known_) return std::unexpected("no answer from etcd yet");
  SubnetView v;
  if (!own_key_.empty()) v.own = own_;
  for (const auto& [key, lease] : leases_) {
    if (key != own_key_) v.nodes.push_back(lease);
  }
  return v;
}

void EtcdSource::publish(const Lease& own, bool) {
  std::lock_guard l(mu_);
  wanted_ = own;
  wish_ = true;
  cv_.notify_all();
}

void EtcdSource::keep_loop(const std::stop_token& stop) {
  Nanos rest = options_.ttl - options_.renew_margin;
  while (!stop.stop_requested()) {
    pause(stop, rest, true);
    std::optional<Lease> wanted;
    {
      std::lock_guard l(mu_);
      wish_ = false;
      wanted = wanted_;
    }
    rest = options_.ttl - options_.renew_margin;
    if (stop.stop_requested() || !wanted) continue;
    if (auto r = keep_once(*wanted); !r) {
      log::warn("our lease: {}", r.error().text);
      rest = kRetry;
    }
  }
}

Result<> EtcdSource::keep_once(const Lease& wanted) {
  std::string key;
  bool same = false, stands = false;
  {
    std::lock_guard l(mu_);
    key = own_key_;
    same = own_.v4 == wanted.v4 && own_.v6 == wanted.v6 && own_.backend == wanted.backend;
    stands = leases_.contains(key) || !known_;
  }
  if (key.empty() || !same || !stands) return acquire(wanted);
  if (lease_id_ == 0) return {};
  auto ttl = client_->keep_alive(lease_id_);
  if (!ttl) return propagate(ttl, "renew");
  if (*ttl > 0) return {};
  log::warn("our lease was revoked; taking the range again");
  return acquire(wanted);
}

Result<EtcdSource::Choice> EtcdSource::choose(const Lease& wanted, const EtcdRange& range) const {
  std::vector<Cidr> taken;
  std::map<std::string, const EtcdKey*> by_name;
  const EtcdKey* ours = nullptr;
  for (const auto& k : range.keys) {
    const auto name = k.key.substr(std::min(folder().size(), k.key.size()));
    by_name[name] = &k;
    auto lease = parse_lease_record(name, k.value);
    if (auto cidrs = parse_lease_key(name)) taken.insert(taken.end(), cidrs->begin(), cidrs->end());
    if (lease && lease->v4.address == wanted.v4.address) ours = &k;
  }
  auto fits = [&](const std::vector<Cidr>& cidrs) {
    bool inside = std::ranges::all_of(cidrs, [&](const Cidr& c) {
      const auto& pool = c.addr().is_v4() ? options_.conf.v4 : options_.conf.v6;
      return pool && pool->offers(c);
    });
    return inside && cidrs.size() == options_.conf.networks().size();
  };
  if (ours) {
    auto cidrs = parse_lease_key(ours->key.substr(folder().size()));
    if (cidrs && fits(*cidrs)) return Choice{*cidrs, ours->mod_revision, ours->lease == 0};
  }
  const auto& before = wanted.pod_cidrs.empty() ? options_.previous : wanted.pod_cidrs;
  if (!before.empty() && fits(before) && !by_name.contains(lease_key(before))) return Choice{before};
  auto free = pick_free(options_.conf, taken, [](std::size_t n) { return static_cast<std::size_t>(random_u64() % n); });
  if (!free) return fail(ENOSPC, "no free range in {}", options_.conf.v4->network);
  return Choice{*free};
}

Result<> EtcdSource::acquire(Lease wanted) {
  if (wanted.pod_cidrs.empty()) {
    std::lock_guard l(mu_);
    wanted.pod_cidrs = own_.pod_cidrs;  // what our pods have
  }
  for (int i = 0; i < kRaces; i++) {
    auto range = client_->range(folder(), true);
    if (!range) return propagate(range);
    auto choice = choose(wanted, *range);
    if (!choice) return propagate(choice);
    std::int64_t id = 0;
    if (!choice->reserved) {
      auto granted = client_->grant(options_.ttl.count());
      if (!granted) return propagate(granted);
      id = *granted;
    }
    Lease own = wanted;
    own.pod_cidrs = choice->cidrs;
    const auto name = lease_key(choice->cidrs);
    auto put = client_->put_if({.key = folder() + name, .value = lease_record(own), .lease = id}, choice->revision);
    if (!put) return propagate(put);
    if (!*put) continue;  // another node was faster
    lease_id_ = id;
    log::info("took {} in etcd", name);
    {
      std::lock_guard l(mu_);
      own_key_ = name;
      own_ = own;
      leases_[name] = own;
    }
    on_change_();
    return {};
  }
  return fail(EAGAIN, "lost {} races for a range", kRaces);
}

}  // namespace hawser::overlay
