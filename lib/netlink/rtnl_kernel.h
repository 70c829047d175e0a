// SPDX-License-Identifier: Apache-2.0
// KernelRtnl: Rtnl over a real rtnetlink socket of one network namespace. One thread at a time.
#pragma once

#include "lib/netlink/rtnl.h"
#include "lib/netlink/socket.h"

namespace hawser::netlink {

class KernelRtnl final : public Rtnl {
 public:
  // netns_fd -1: the calling thread's namespace.
  static Result<KernelRtnl> open(int netns_fd = -1);

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

 private:
  explicit KernelRtnl(Socket socket) : socket_(std::move(socket)) {}
  Result<> change_learning(int index, bool on);
  Socket socket_;
};

// Readers of received messages; nullopt: not of that kind, or nothing we deal with. Used by KernelRtnl and by monitors.
std::optional<Link> parse_link(const nlmsghdr* h);
std::optional<Address> parse_address(const nlmsghdr* h);
std::optional<Route> parse_route(const nlmsghdr* h);
std::optional<Neigh> parse_neigh(const nlmsghdr* h, NeighTable table);

}  // namespace hawser::netlink
