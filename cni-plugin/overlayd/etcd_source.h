// SPDX-License-Identifier: Apache-2.0
// EtcdSource: leases in etcd under flannel's keys (FEATURES O35), so that Hawser and flannel nodes share one network.
// The node takes a range for itself: the one it had by its public address, else the one of subnet.env, else a free one;
// two nodes that want the same are told apart by etcd's compare-and-swap. The range lives as long as its etcd lease,
// which is renewed in time; one that was revoked or ran out is taken again. A key without a lease is a reservation and
// stays one.
//
// Threads: the watcher folds events into `leases_` (after a compaction it lists anew: what was missed is compared as
// whole leases, Appendix A 8); the keeper acquires, publishes and renews.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "cni-plugin/overlayd/etcd_client.h"
#include "cni-plugin/overlayd/etcd_lease.h"
#include "cni-plugin/overlayd/subnet_source.h"
#include "lib/base/clock.h"

namespace hawser::overlay {

struct EtcdSourceOptions {
  std::string prefix = "/coreos.com/network";
  NetConf conf;
  std::vector<Cidr> previous;  // of subnet.env; may be empty
  std::chrono::seconds ttl{24 * 3600};
  std::chrono::seconds renew_margin{3600};  // before the end
};

// <prefix>/config.
Result<NetConf> read_etcd_config(EtcdClient& client, const std::string& prefix);

class EtcdSource final : public SubnetSource {
 public:
  EtcdSource(EtcdSourceOptions options, std::unique_ptr<EtcdClient> client, Clock& clock = system_clock());
  ~EtcdSource() override;
  void start(std::function<void()> on_change) override;
  void stop() override;
  std::expected<SubnetView, std::string> view() override;
  void publish(const Lease& own, bool ready) override;

 private:
  void watch_loop(const std::stop_token& stop);
  Result<> list_and_watch(const std::stop_token& stop);
  void take_in(const EtcdKey& key, bool deleted);  // mu_ held
  void keep_loop(const std::stop_token& stop);
  Result<> keep_once(const Lease& wanted);
  Result<> acquire(Lease wanted);
  // The range to try: with the key's revision (0: it is new) and lease (reservations have none).
  struct Choice {
    std::vector<Cidr> cidrs;
    std::int64_t revision = 0;
    bool reserved = false;
  };
  Result<Choice> choose(const Lease& wanted, const EtcdRange& range) const;
  void pause(const std::stop_token& stop, Nanos time, bool wake_on_wish);
  [[nodiscard]] std::string folder() const { return options_.prefix + "/subnets/"; }

  const EtcdSourceOptions options_;
  std::unique_ptr<EtcdClient> client_;
  Clock& clock_;
  std::function<void()> on_change_;

  std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Lease> leases_;  // guarded by mu_; by key without the folder
  bool known_ = false;                   // guarded by mu_
  std::optional<Lease> wanted_;          // guarded by mu_; what the daemon published last
  bool wish_ = false;                    // guarded by mu_; something for the keeper to do
  std::string own_key_;                  // guarded by mu_; empty: none yet
  Lease own_;                            // guarded by mu_; as written
  std::string why_not_;                  // guarded by mu_
  std::int64_t lease_id_ = 0;            // keeper thread only; 0: reservation
  std::jthread watcher_, keeper_;
};

}  // namespace hawser::overlay
