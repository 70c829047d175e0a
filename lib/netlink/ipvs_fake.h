// SPDX-License-Identifier: Apache-2.0
// FakeIpvs: a working model of one namespace's IPVS tables, for tests. fail_write(n) lets the n-th write from now fail
// with EIO and change nothing. Test thread only.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "lib/netlink/ipvs.h"

namespace hawser::netlink {

class FakeIpvs final : public Ipvs {
 public:
  Result<std::vector<IpvsService>> list_services() override;
  Result<std::vector<IpvsDestination>> list_destinations(const IpvsKey& service) override;
  Result<> change_service(IpvsVerb verb, const IpvsService& service) override;
  Result<> change_destination(IpvsVerb verb, const IpvsKey& service, const IpvsDestination& destination) override;
  Result<IpvsTimeouts> get_timeouts() override { return timeouts_; }
  Result<> set_timeouts(const IpvsTimeouts& timeouts) override;

  // For the counts of connections. The destination is there.
  IpvsDestination& destination(const IpvsKey& service, const IpvsDestination& d);
  void set_absent() { absent_ = true; }
  void set_schedulers(std::set<std::string> names) { schedulers_ = std::move(names); }
  void fail_write(int n) { fail_in_ = n; }
  [[nodiscard]] int writes() const { return writes_; }
  // Every write until the next call, in order: "service+ tcp 10.96.0.10:80 rr", "dest= 10.244.1.2:80 weight 0".
  std::vector<std::string> take_log() { return std::exchange(log_, {}); }
  // The tables as text, one line a service or destination.
  [[nodiscard]] std::string list() const;

 private:
  struct Entry {
    IpvsService service;
    std::map<std::pair<IpAddr, std::uint16_t>, IpvsDestination> destinations;
  };
  Result<> write(std::string what);

  std::map<IpvsKey, Entry> services_;
  IpvsTimeouts timeouts_{.tcp_seconds = 900, .tcp_fin_seconds = 120, .udp_seconds = 300};
  std::set<std::string> schedulers_{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh"};
  std::vector<std::string> log_;
  bool absent_ = false;
  int writes_ = 0;
  int fail_in_ = 0;
};

}  // namespace hawser::netlink
