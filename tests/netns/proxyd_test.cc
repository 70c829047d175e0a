// SPDX-License-Identifier: Apache-2.0
// proxyd's nftables back end with real traffic; `nft` and `conntrack` are the oracles. The network is service_net.h's.
#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/netns/service_net.h"

namespace hawser::proxy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ProxydTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto n = ServiceNet::make();
    if (!n) GTEST_SKIP() << "needs the right to make network namespaces: " << n.error().text;
    net_ = std::move(*n);
    start();
    a_ = std::make_unique<EchoServer>(host("a"), "a", 8080);
    b_ = std::make_unique<EchoServer>(host("b"), "b", 8080);
    remote_ = std::make_unique<EchoServer>(host("remote"), "remote", 8080);
  }
  void start() {
    p_ = std::make_unique<Proxyd>(host("node"), net_->api);
    ASSERT_TRUE(p_->wait_generation(0));
  }
  const hawser::testing::Host& host(const std::string& name) const { return (*net_)[name]; }
  void apply(const ServiceSpec& s, const std::vector<EndpointSpec>& e) { net_->apply(*p_, s, e); }
  // Who answered how often.
  std::map<std::string, int> ask_many(const std::string& from, const std::string& addr, std::uint16_t port, int times) {
    std::map<std::string, int> r;
    for (int i = 0; i < times; ++i) {
      auto answer = ask(host(from), addr, port);
      ++r[answer ? answer->substr(0, answer->find(' ')) : answer.error().text];
    }
    return r;
  }
  std::string source_seen(const std::string& from, const std::string& addr, std::uint16_t port) {
    auto answer = ask(host(from), addr, port);
    return answer ? answer->substr(answer->find(' ') + 1) : answer.error().text;
  }
  std::string list_table(const char* options = "") {
    return host("node").sh(fmt::format("nft {} list table inet hawser-proxy", options));
  }

  std::unique_ptr<ServiceNet> net_;
  std::unique_ptr<Proxyd> p_;
  std::unique_ptr<EchoServer> a_, b_, remote_;
};

const EndpointSpec kA{.addr = "10.244.1.2"}, kB{.addr = "10.244.1.3"}, kRemote{.addr = "10.244.2.2", .node = "node-2"};

TEST_F(ProxydTest, ClusterIpSpreadsOverEndpoints) {
  apply({}, {kA, kB, kRemote});
  for (const char* from : {"client", "node"}) {
    const auto got = ask_many(from, "10.96.0.10", 80, 90);
    ASSERT_EQ(got.size(), 3u) << from << ": " << ::testing::PrintToString(got) << list_table();
    // Each is expected 30 times; 10 or fewer has a chance of 1 in 100,000.
    for (const auto& [name, n] : got) EXPECT_GT(n, 10) << from << " " << name;
  }
}

TEST_F(ProxydTest, ClusterIpKeepsAPodsSourceAndMasqueradesOthers) {
  apply({}, {kA});
  EXPECT_EQ(source_seen("client", "10.96.0.10", 80), "10.244.1.9");
  EXPECT_NE(source_seen("node", "10.96.0.10", 80), "10.96.0.10");
  ASSERT_TRUE(host("outside").ok("ip route add 10.96.0.0/16 via 192.0.2.11"));
  EXPECT_EQ(source_seen("outside", "10.96.0.10", 80), "169.254.1.1") << "the node's address towards the pod";
}

}  // namespace
}  // namespace hawser::proxy
