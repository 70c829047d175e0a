// SPDX-License-Identifier: Apache-2.0
// FakeRtnl: a working model of one namespace's rtnetlink state, for tests. Deleting a link takes its addresses, routes
// and neighbours with it, as the kernel does. `writes()` counts changes; fail_write(n) lets the n-th write from now
// fail with EIO and change nothing, so that a test can stop any operation after any step. Test thread only.
#pragma once

#include <map>

#include "lib/netlink/rtnl.h"

namespace hawser::netlink {

class FakeRtnl final : public Rtnl {
 public:
  FakeRtnl() { links_[1] = {.index = 1, .name = "lo"}; }
  Result<Link> get_link(const std::string& name) override;
  Result<std::vector<Link>> list_links() override;
  Result<> add_link(const LinkSpec& spec) override;
  Result<> change_link(int index, const LinkChange& change) override;
  Result<> delete_link(int index) override;
  Result<std::vector<Address>> list_addresses(int link) override;
  Result<> change_address(Verb verb, const Address& address) override;
  Result<std::vector<Route>> list_routes(int link) override;
  Result<> change_route(Verb verb, const Route& route) override;
  Result<std::vector<Neigh>> list_neighs(NeighTable table, int link) override;
  Result<> change_neigh(Verb verb, const Neigh& neigh) override;

  // The namespace that a veth's `netns_fd` stands for; both objects must outlive their links.
  void set_peer_namespace(FakeRtnl& other) { peer_namespace_ = &other; }
  // A link that was there before us: hardware.
  int add_hardware(const std::string& name, int mtu);
  [[nodiscard]] int writes() const { return writes_; }
  void fail_write(int n) { fail_in_ = n; }
  // Every write until the next call, as text, in order: "route+ 10.244.2.0/24".
  std::vector<std::string> take_log() { return std::exchange(log_, {}); }

 private:
  Result<> write(const char* what, Verb verb, const std::string& key);
  void drop_link(int index);
  [[nodiscard]] bool exists(int index) const { return links_.contains(index); }

  std::map<int, Link> links_;
  std::vector<Address> addresses_;
  std::vector<Route> routes_;
  std::vector<Neigh> neighs_;
  std::vector<std::string> log_;
  FakeRtnl* peer_namespace_ = nullptr;
  int next_index_ = 2;  // 1 is lo
  int writes_ = 0;
  int fail_in_ = 0;
};

}  // namespace hawser::netlink
