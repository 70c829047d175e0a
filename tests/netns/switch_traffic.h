// SPDX-License-Identifier: Apache-2.0
// Traffic that must not notice a switch of modes: new short connections, long ones, UDP on sockets that stay, and
// clients with affinity. Each kind runs on threads of its own until it is stopped, and keeps what went wrong.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/netns/service_net.h"

namespace hawser::proxy {

// Sends back what it gets, on every TCP connection to `port`, until destroyed.
class StreamServer {
 public:
  StreamServer(const hawser::testing::Host& host, std::uint16_t port);
  ~StreamServer();
  StreamServer(const StreamServer&) = delete;
  StreamServer& operator=(const StreamServer&) = delete;

 private:
  void serve();
  UniqueFd listener_, stop_;
  std::thread thread_;
};

class SwitchTraffic {
 public:
  SwitchTraffic() = default;
  ~SwitchTraffic() { stop(); }
  SwitchTraffic(const SwitchTraffic&) = delete;
  SwitchTraffic& operator=(const SwitchTraffic&) = delete;

  // One new connection after the other.
  void add_short(const hawser::testing::Host& from, const std::string& addr, std::uint16_t port);
  // The same, and always to whom the first came.
  void add_sticky(const hawser::testing::Host& from, const std::string& addr, std::uint16_t port);
  // One connection, on which bytes go there and come back.
  void add_long(const hawser::testing::Host& from, const std::string& addr, std::uint16_t port);
  // One socket that asks again and again, each time answered by the one who answered first.
  void add_udp(const hawser::testing::Host& from, const std::string& addr, std::uint16_t port);

  // Waits until each of them has succeeded `times` more times, or something failed. The number of those that did is
  // what "went on meanwhile" means, whatever the machine's speed.
  bool go_on(int times);
  void stop();
  [[nodiscard]] std::string failures() const;  // after stop()
  [[nodiscard]] std::string summary() const;

 private:
  struct Flow {
    std::string what;
    std::atomic<int> done{0};
    std::thread thread;
  };
  // `once` does it once more; an error ends the flow.
  void add(std::string what, std::function<Result<>()> once);

  std::vector<std::unique_ptr<Flow>> flows_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mu_;
  std::condition_variable pace_;
  std::vector<std::string> failures_;  // guarded by mu_
};

}  // namespace hawser::proxy
