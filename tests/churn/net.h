// SPDX-License-Identifier: Apache-2.0
// What churn runs on: throw-away namespaces of a node, a client and all endpoints, the endpoints' server, and the
// programs under test.
//
//   client 10.244.1.9 -- node 192.0.2.11 -- pods: every address of 10.244.128.0/17
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

#include "lib/base/ip.h"
#include "lib/base/netns.h"

namespace hawser::churn {

inline constexpr std::uint16_t kPodPort = 8080;
// The n-th endpoint; they come again after kPods.
inline constexpr std::uint32_t kPods = 1u << 15;
[[nodiscard]] IpAddr pod(std::uint32_t n);

// Every TCP connection gets the four bytes of the endpoint's address that it reached, then all that it sends; every
// datagram comes back with the address after its first eight bytes. Until destroyed.
class PodServer {
 public:
  static Result<std::unique_ptr<PodServer>> start(const NetNs& where);
  ~PodServer();
  PodServer(const PodServer&) = delete;
  PodServer& operator=(const PodServer&) = delete;

 private:
  PodServer() = default;
  void serve();
  bool serve_connection(int fd);
  void accept_all();
  void answer_datagrams();
  UniqueFd tcp_, udp_, stop_, epoll_;
  std::vector<UniqueFd> connections_;  // by descriptor
  std::thread thread_;
};

class Net {
 public:
  static Result<std::unique_ptr<Net>> make();
  [[nodiscard]] const NetNs& node() const { return node_; }
  [[nodiscard]] const NetNs& client() const { return client_; }

 private:
  Net(NetNs node, NetNs client, NetNs pods)
      : node_(std::move(node)), client_(std::move(client)), pods_(std::move(pods)) {}
  Result<> wire();
  NetNs node_, client_, pods_;
  std::unique_ptr<PodServer> server_;
};

// A program in a namespace, its output appended to a file. It dies with the thread that started it.
class Process {
 public:
  Process(const NetNs& where, std::vector<std::string> argv, std::string log)
      : where_(where), argv_(std::move(argv)), log_(std::move(log)) {}
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  Result<> start();
  void end(int signal);  // and waits for it
  Result<int> wait();    // its exit status

 private:
  const NetNs& where_;
  const std::vector<std::string> argv_;
  const std::string log_;
  pid_t pid_ = -1;
};

}  // namespace hawser::churn
