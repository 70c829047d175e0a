// SPDX-License-Identifier: Apache-2.0
// ServiceNet: a node with proxyd's real back end, its pods, a second node's pod and a host outside, for traffic tests.
//
//   client 10.244.1.9 --+
//   a      10.244.1.2 --+-- node 192.0.2.11 -- fabric -- remote 192.0.2.12 -- far 10.244.2.2
//   b      10.244.1.3 --+                        |
//                                              outside 192.0.2.100
// Each has the IPv6 address with the same last part: pods fd00:1::x, fd00:2::2, hosts 2001:db8::x.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lib/kube/fake_client.h"
#include "lib/netlink/rtnl_kernel.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"
#include "proxyd/daemon.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/localhost/kernel_hooks.h"
#include "proxyd/nft/nft_backend.h"
#include "tests/netns/host.h"

namespace hawser::proxy {

using hawser::testing::eventually;

// Answers every TCP connection and UDP datagram on `port` with "<name> <client address>" until destroyed.
class EchoServer {
 public:
  EchoServer(const hawser::testing::Host& host, std::string name, std::uint16_t port);
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  // TCP connections answered so far.
  [[nodiscard]] int answered() const { return answered_; }

 private:
  void serve();
  std::string name_;
  UniqueFd tcp_, udp_, stop_;
  std::atomic<int> answered_{0};
  std::thread thread_;
};

// One TCP connection from `host`: the answer, or the errno of connect() (ETIMEDOUT after `limit`).
Result<std::string> ask(const hawser::testing::Host& host, const std::string& addr, std::uint16_t port,
                        std::chrono::milliseconds limit = std::chrono::seconds(3));
// The same by UDP on a socket that stays: asks again on the same source port.
class UdpClient {
 public:
  UdpClient(const hawser::testing::Host& host, const std::string& addr, std::uint16_t port);
  Result<std::string> ask(std::chrono::milliseconds limit = std::chrono::seconds(1));

 private:
  UniqueFd fd_;
};

struct EndpointSpec {
  std::string addr;
  std::string node = "node-1";
  bool ready = true;
  bool serving = true;
  bool terminating = false;
};
struct ServiceSpec {
  std::string name = "web";
  std::vector<std::string> cluster_ips = {"10.96.0.10"};
  std::vector<std::string> external_ips;
  std::vector<std::string> load_balancer_ips;
  std::vector<std::string> source_ranges;
  std::string weights;  // the annotation
  int port = 80, target_port = 8080, node_port = 0;
  std::string protocol = "TCP";
  int affinity_seconds = 0;
  bool external_local = false, internal_local = false;
};
kube::Object service_object(const ServiceSpec& s);
// One slice of the Service's endpoints of one family.
kube::Object slice_object(const ServiceSpec& s, const std::vector<EndpointSpec>& endpoints);

// Those of ServiceNet's pods.
TrafficOptions pod_ranges();

// proxyd as main() wires it, on a node's namespace, against a fake API server.
class Proxyd {
 public:
  // With `ipvs`: mode ipvs. With `cgroup`: node ports on loopback for the processes in it. `node` outlives this.
  Proxyd(const hawser::testing::Host& node, kube::Client& client, const TrafficOptions& options,
         const IpvsOptions* ipvs = nullptr, const std::string& cgroup = "");
  ~Proxyd();
  Proxyd(const Proxyd&) = delete;
  Proxyd& operator=(const Proxyd&) = delete;
  void stop();  // what is in the kernel stays
  [[nodiscard]] bool wait_generation(std::uint64_t at_least);
  [[nodiscard]] std::uint64_t generation() const { return daemon_->health().generation().value_or(0); }
  Result<> cleanup() { return backend_->cleanup(); }
  [[nodiscard]] double metric(const std::string& name) const;
  [[nodiscard]] std::string metrics() const { return registry_.text(); }
  [[nodiscard]] const Daemon& daemon() const { return *daemon_; }
  [[nodiscard]] std::string localhost() const { return localhost_ ? localhost_->status() : "off"; }
  Result<> detach_localhost() { return hooks_->detach(); }

 private:
  metrics::Registry registry_;
  std::unique_ptr<nft::KernelNft> nft_;
  std::optional<KernelConntrack> conntrack_;
  std::optional<netlink::KernelRtnl> rtnl_;
  std::optional<netlink::KernelIpvs> ipvs_;
  std::unique_ptr<Backend> backend_;
  std::optional<KernelHooks> hooks_;
  std::optional<LocalhostNodePorts> localhost_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<nft::NftMonitor> monitor_;
};

class ServiceNet {
 public:
  static Result<std::unique_ptr<ServiceNet>> make();
  const hawser::testing::Host& operator[](const std::string& name) const { return hosts_.at(name); }
  kube::FakeClient api;

  // Creates or replaces the Service and its slice and waits until the kernel has them.
  void apply(Proxyd& p, const ServiceSpec& s, const std::vector<EndpointSpec>& endpoints);
  void remove(const ServiceSpec& s);

 private:
  ServiceNet() = default;
  bool put(const kube::Resource& r, const kube::Object& o);  // false: it was there like this
  bool build();
  bool add_pod(const std::string& on, const std::string& name, const std::string& v4, const std::string& v6);
  bool add_host(const std::string& name, int last);
  std::map<std::string, hawser::testing::Host> hosts_;
  std::map<std::string, kube::Object> last_;
};

}  // namespace hawser::proxy
