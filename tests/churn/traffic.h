// SPDX-License-Identifier: Apache-2.0
// Traffic: requests to every Service while their endpoints change: short TCP connections from a pod and from the node
// itself, UDP flows whose clients never close their sockets, and TCP connections that last and must not notice.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/churn/ledger.h"
#include "tests/churn/net.h"

namespace hawser::churn {

struct Service {
  int number = 0;
  bool udp = false;
  [[nodiscard]] std::string name() const;
  [[nodiscard]] std::string address() const;
  [[nodiscard]] std::uint16_t port() const { return udp ? 53 : 80; }
};

class Traffic {
 public:
  // `rate`: TCP connections a second from each of the two places. Until stop().
  Traffic(const Net& net, Ledger& ledger, std::vector<Service> services, int rate);
  ~Traffic();
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;
  // Waits for answers that are due.
  void stop();

 private:
  // Waits until then; true: to stop.
  [[nodiscard]] bool stopped(MonoTime until) const;
  void connect_often(const NetNs& from, int rate, unsigned seed);
  void keep_connections(const NetNs& from);
  void send_datagrams(const NetNs& from);

  const Net& net_;
  Ledger& ledger_;
  const std::vector<Service> services_;
  UniqueFd stop_;
  std::vector<std::thread> threads_;
};

}  // namespace hawser::churn
