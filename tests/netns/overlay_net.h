// SPDX-License-Identifier: Apache-2.0
// OverlayNet: two or three nodes as namespaces joined by a bridge in a further one (the fabric), each with overlayd's
// daemon on a thread inside. One address family at a time.
//
//   pod-1 -- node-1 (eth0 192.0.2.11) --+                       +-- node-2 (eth0 192.0.2.12) -- pod-2
//                                       +-- fabric br0, 1500 ---+
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/overlayd/daemon.h"
#include "lib/kube/fake_client.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/host.h"

namespace hawser::overlay {

using hawser::testing::eventually;
using hawser::testing::Host;

inline constexpr const char* kFlannelMacs[] = {"ba:a8:00:00:00:01", "ba:a8:00:00:00:02"};  // of make_flannels()

// One machine: its namespace, and overlayd running on a thread inside.
class Node {
 public:
  Node(Host host, int number, bool v6_underlay);
  ~Node() { stop(); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  [[nodiscard]] std::string name() const { return fmt::format("node-{}", number_); }
  [[nodiscard]] const Host& host() const { return host_; }
  [[nodiscard]] std::string cidr() const;
  [[nodiscard]] std::string underlay() const;
  [[nodiscard]] std::string pod_ip(int n = 5) const;
  [[nodiscard]] std::string device() const { return v6_underlay_ ? "flannel-v6.1" : "flannel.1"; }

  // What the daemon starts with; change it before start().
  Options options;
  // With it the daemon's peers are probed.
  std::optional<ProberOptions> probe;

  void start(kube::Client& client);
  void start(std::function<std::unique_ptr<SubnetSource>()> make_source);
  void stop();
  // A pod, joined to the node the way the CNI plugin does it. `link` is the node's side.
  bool add_pod(const Host& pod, int mtu, int n = 5, const std::string& link = "pod") const;
  [[nodiscard]] const std::string& files() const { return files_.path(); }
  [[nodiscard]] int count(const std::string& command) const;
  [[nodiscard]] std::string metrics() const { return registry_->text(); }
  [[nodiscard]] std::vector<std::string> path_lines() const;
  [[nodiscard]] std::vector<std::string> device_lines() const;
  [[nodiscard]] Status status() const;

 private:
  void serve(SubnetSource& source);

  Host host_;
  int number_;
  bool v6_underlay_;
  hawser::testing::TempDir files_;
  std::unique_ptr<metrics::Registry> registry_;
  UniqueFd stop_;
  std::thread thread_;
  mutable std::mutex mu_;
  const Prober* prober_ = nullptr;  // guarded by mu_; while it runs
  const Daemon* daemon_ = nullptr;  // guarded by mu_; while it runs
};

class OverlayNet : public ::testing::Test {
 protected:
  // Fabric and two nodes.
  void build(bool v6_underlay);
  void TearDown() override;
  Node& add_node(int number);
  Node& node(int number) { return *nodes_[static_cast<std::size_t>(number - 1)]; }
  void start_all();
  // Every node has entries for every other.
  void wait_for_mesh();
  static int fdb(const Node& n);
  static int neighs(const Node& n);
  static int peer_routes(const Node& n);
  static int ifindex(const Node& n);
  // What flanneld v0.2x leaves on one of the two nodes: its device, entries and routes (protocol boot), its
  // annotations.
  void make_flannels(int number);
  // A ping every 10 ms from `pod` to `to` while `fn` runs; how many of `count` were lost. The first packet may wait for
  // an answer of the node's ARP proxy, which is not what is tested, so the path is warmed up before.
  static int lost_pings(const Host& pod, const std::string& to, int count, const std::function<void()>& fn);

  std::optional<Host> fabric_;
  kube::FakeClient api_;
  std::vector<std::unique_ptr<Node>> nodes_;
  bool v6_ = false;
};

}  // namespace hawser::overlay
