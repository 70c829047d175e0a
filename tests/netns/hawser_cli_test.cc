// SPDX-License-Identifier: Apache-2.0
// The command `hawser` as a person runs it on a node, against proxyd's daemon and the real kernel: what it says is what
// connections do, and what somebody did to the table is told, with exit status 2. No monitor repairs the table here.
#include <set>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxyd/inspect/inspector.h"
#include "tests/netns/service_net.h"

namespace hawser::proxy {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

class HawserCliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto net = ServiceNet::make();
    if (!net) GTEST_SKIP() << "needs the right to make network namespaces: " << net.error().text;
    net_ = std::move(*net);
    const ServiceSpec web{.node_port = 30080};
    create(web, {{.addr = "10.244.1.2"}, {.addr = "10.244.2.2", .node = "node-2"}});
    const ServiceSpec local{.name = "edge",
                            .cluster_ips = {"10.96.0.20"},
                            .node_port = 30081,
                            .affinity_seconds = 600,
                            .external_local = true};
    create(local, {{.addr = "10.244.1.3"}, {.addr = "10.244.2.2", .node = "node-2"}});
    (*net_)["node"].run([&] { start(); });
    ASSERT_TRUE(eventually([&] { return daemon_ && daemon_->health().generation().value_or(0) > 0; }));
  }

  void TearDown() override {
    health_.reset();
    if (daemon_) daemon_->stop();
  }

  void create(const ServiceSpec& s, const std::vector<EndpointSpec>& endpoints) {
    ASSERT_TRUE(net_->api.create(kube::kEndpointSlices, "default", slice_object(s, endpoints)));
    ASSERT_TRUE(net_->api.create(kube::kServices, "default", service_object(s)));
  }

  void start() {
    auto nft = nft::KernelNft::open();
    auto conntrack = KernelConntrack::open();
    auto rtnl = netlink::KernelRtnl::open();
    ASSERT_TRUE(nft && conntrack && rtnl);
    nft_ = std::move(*nft);
    conntrack_.emplace(std::move(*conntrack));
    rtnl_.emplace(std::move(*rtnl));
    backend_ = std::make_unique<NftBackend>(*nft_, pod_ranges());
    daemon_ = std::make_unique<Daemon>(DaemonOptions{.node = "node-1"}, net_->api,
                                       Kernel{*backend_, *conntrack_, *rtnl_}, registry_);
    auto inspect = inspect_kernel(std::nullopt, daemon_->tracker(), daemon_->health(), pod_ranges());
    ASSERT_TRUE(inspect) << inspect.error().text;
    auto health = HealthServers::start({.healthz_bind = "", .hard_fail = true, .more = std::move(*inspect)},
                                       daemon_->health(), registry_);
    ASSERT_TRUE(health) << health.error().text;
    health_ = std::move(*health);
    daemon_->start();
  }

  std::string hawser(const std::string& arguments, int want = 0) {
    int status = -1;
    const std::string out = (*net_)["node"].sh(std::string(HAWSER_CLI) + " " + arguments, &status);
    EXPECT_EQ(status, want) << arguments << "\n" << out;
    return out;
  }
  json::object hawser_json(const std::string& arguments, int want = 0) {
    boost::system::error_code ec;
    auto v = json::parse(hawser(arguments + " --json", want), ec);
    EXPECT_FALSE(ec) << arguments;
    return v.is_object() ? v.as_object() : json::object();
  }
  void nft(const std::string& command) { (*net_)["node"].ok("nft '" + command + "'"); }

  std::unique_ptr<ServiceNet> net_;
  metrics::Registry registry_;
  std::unique_ptr<nft::KernelNft> nft_;
  std::unique_ptr<NftBackend> backend_;
  std::optional<KernelConntrack> conntrack_;
  std::optional<netlink::KernelRtnl> rtnl_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<HealthServers> health_;
};

TEST_F(HawserCliTest, ModelAndKernelAgreeAndConnectionsGoThere) {
  EXPECT_THAT(hawser("status"), HasSubstr("model and kernel agree"));
  EXPECT_THAT(hawser("services"), HasSubstr("10.96.0.10:80/tcp"));
  EXPECT_THAT(hawser("services -n other"), Not(HasSubstr("10.96.0.10")));
  EXPECT_THAT(hawser("endpoints web"), HasSubstr("10.244.2.2"));
  EchoServer a((*net_)["a"], "a", 8080), b((*net_)["b"], "b", 8080), far((*net_)["far"], "far", 8080);
  static const struct {
    const char* from;
    const char* source;
    const char* addr;
    std::uint16_t port;
    std::set<std::string> answers;  // name, and the address that it saw
    const char* verdict;
  } kCases[] = {
      {"client",
       "10.244.1.9",
       "10.96.0.10",
       80,
       {"a 10.244.1.9", "far 10.244.1.9"},
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept"},
      {"outside", "192.0.2.100", "192.0.2.11", 30081, {"b 192.0.2.100"}, "to 10.244.1.3:8080, the source is kept"},
      {"client",
       "10.244.1.9",
       "192.0.2.11",
       30081,
       {"b 10.244.1.9", "far 10.244.1.9"},
       "to one of 10.244.1.3:8080, 10.244.2.2:8080, the source is kept"},
      {"outside",
       "192.0.2.100",
       "192.0.2.11",
       30080,
       {"a 169.254.1.1", "a 192.0.2.11", "far 192.0.2.11"},
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"client", "10.244.1.9", "10.96.0.10", 81, {"connect: Connection refused"}, "refused"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(fmt::format("{} to {}:{}", c.from, c.addr, c.port));
    const auto before = hawser_json(fmt::format("explain {} {}:{}", c.source, c.addr, c.port));
    ASSERT_TRUE(before.contains("verdict"));
    EXPECT_EQ(before.at("verdict").at("kernel").as_string(), c.verdict);
    for (int i = 0; i < 6; ++i) {
      auto r = ask((*net_)[c.from], c.addr, c.port);
      EXPECT_THAT(c.answers, ::testing::Contains(r ? *r : r.error().text));
    }
    // Flows are there now, and a client may be remembered: still agreed.
    hawser(fmt::format("explain {} {}:{}", c.source, c.addr, c.port));
  }
  EXPECT_THAT(hawser("explain 10.244.1.9 192.0.2.11:30081"), HasSubstr("remembered: 10.244."));
  EXPECT_THAT(hawser("explain 10.244.1.9 edge:80"), HasSubstr("EndpointSlice default/edge-v4"));
}

TEST_F(HawserCliTest, WhatSomebodyRemovedIsToldByStatus2) {
  nft("delete element inet hawser-proxy services4 { 10.96.0.10 . tcp . 80 }");
  const auto text = hawser("explain 10.244.1.9 10.96.0.10:80", 2);
  EXPECT_THAT(text, HasSubstr("the kernel lacks services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-2 }"));
  EXPECT_THAT(text, HasSubstr("MODEL AND KERNEL DISAGREE"));
  const auto answer = hawser_json("explain 10.244.1.9 10.96.0.10:80", 2);
  EXPECT_EQ(answer.at("verdict").at("kernel").as_string(), "refused");
  auto r = ask((*net_)["client"], "10.96.0.10", 80);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ECONNREFUSED) << "as the kernel's side said: " << r.error().text;
  hawser("services", 2);
  hawser("endpoints web", 2);
  EXPECT_THAT(hawser("status", 2), HasSubstr("lacks services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-2 }"));
  hawser("explain 10.244.1.9 10.96.0.20:80");  // others are not concerned
  // Repaired as after a notification.
  daemon_->table_changed();
  EXPECT_TRUE(eventually([&] {
    int status = -1;
    (*net_)["node"].sh(std::string(HAWSER_CLI) + " status", &status);
    return status == 0;
  }));
}

TEST_F(HawserCliTest, ChangedRulesAreTold) {
  nft("flush chain inet hawser-proxy postrouting");
  EXPECT_THAT(hawser("explain 10.244.1.9 10.96.0.10:80", 2), HasSubstr("changed in chain postrouting"));
  nft("delete table inet hawser-proxy");
  EXPECT_THAT(hawser("explain 10.244.1.9 10.96.0.10:80", 2), HasSubstr("there is no table"));
  EXPECT_THAT(hawser("status", 2), HasSubstr("the table is missing"));
}

TEST_F(HawserCliTest, MistakesAreToldByStatus1) {
  EXPECT_THAT(hawser("explain 10.244.1.9 nobody:80", 1), HasSubstr("no Service default/nobody"));
  EXPECT_THAT(hawser("explain pod 10.96.0.10:80", 1), HasSubstr("source \"pod\": want an address"));
  EXPECT_THAT(hawser("endpoints nobody -n x", 1), HasSubstr("no Service x/nobody"));
  EXPECT_THAT(hawser("status --server 127.0.0.1:1", 1), HasSubstr("does not answer at 127.0.0.1:1"));
  EXPECT_THAT(hawser("status --server nonsense", 1), HasSubstr("--server \"nonsense\""));
  hawser("", 1);
}

}  // namespace
}  // namespace hawser::proxy
