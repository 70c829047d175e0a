// SPDX-License-Identifier: Apache-2.0
// Monitor: rtnetlink notifications of one namespace as events. Lost notifications (a full receive buffer) become one
// kResync event, upon which the reader compares whole tables again; nothing else is guaranteed by the kernel. One
// thread; poll fd().
#pragma once

#include <functional>
#include <string>

#include "lib/netlink/rtnl.h"
#include "lib/netlink/socket.h"

namespace hawser::netlink {

struct Event {
  enum class Type { kResync, kLink, kAddress, kRoute, kNeigh };
  Type type = Type::kResync;
  bool removed = false;
  // The one that `type` names is filled in; `neigh` for both tables, without a MAC when it is removed.
  Link link;
  Address address;
  Route route;
  Neigh neigh;
  [[nodiscard]] std::string text() const;  // "route 10.244.2.0/24 removed"
};

class Monitor {
 public:
  static Result<Monitor> open(int netns_fd = -1);
  [[nodiscard]] int fd() const { return socket_.fd(); }
  // Hands over all that is queued, without waiting.
  Result<> read(const std::function<void(const Event&)>& on_event);

 private:
  explicit Monitor(Socket socket) : socket_(std::move(socket)) {}
  Socket socket_;
};

}  // namespace hawser::netlink
