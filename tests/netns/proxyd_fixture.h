// SPDX-License-Identifier: Apache-2.0
// ProxydTest: proxyd on ServiceNet's node with three endpoints' servers, for the traffic tests.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/netns/service_net.h"

namespace hawser::proxy {

class ProxydTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto n = ServiceNet::make();
    if (!n) GTEST_SKIP() << "needs the right to make network namespaces: " << n.error().text;
    net_ = std::move(*n);
    start();
    a_ = std::make_unique<EchoServer>(host("a"), "a", 8080);
    b_ = std::make_unique<EchoServer>(host("b"), "b", 8080);
    remote_ = std::make_unique<EchoServer>(host("far"), "remote", 8080);
  }
  void start() {
    p_ = std::make_unique<Proxyd>(host("node"), net_->api, options_);
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

  // proxyd again, with these options.
  void restart(TrafficOptions o) {
    options_ = std::move(o);
    p_.reset();
    start();
  }
  // Who answers a datagram; "" for nobody.
  static std::string ask_udp_name(UdpClient& c) {
    auto r = c.ask(std::chrono::milliseconds(200));
    return r ? r->substr(0, r->find(' ')) : "";
  }
  static int error_code(const Result<std::string>& r) { return r ? 0 : r.error().code; }

  TrafficOptions options_ = pod_ranges();
  std::unique_ptr<ServiceNet> net_;
  std::unique_ptr<Proxyd> p_;
  std::unique_ptr<EchoServer> a_, b_, remote_;
};

inline const EndpointSpec kA{.addr = "10.244.1.2"}, kB{.addr = "10.244.1.3"},
    kRemote{.addr = "10.244.2.2", .node = "node-2"};

}  // namespace hawser::proxy
