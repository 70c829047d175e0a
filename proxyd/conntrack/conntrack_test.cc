// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "lib/base/clock.h"
#include "lib/testing/temp_dir.h"
#include "proxyd/conntrack/kernel_limits.h"
#include "proxyd/conntrack/reconcile.h"

namespace hawser::proxy {
namespace {

Target at(std::string_view addr, std::uint16_t port) {
  return {*IpAddr::parse(addr), port};
}

netlink::FlowEnd end_of(const Target& t) {
  return {t.addr, t.port};
}

Flow flow(const Target& destination, const Target& answers_from, std::uint8_t protocol = IPPROTO_UDP) {
  return {.protocol = protocol,
          .source = end_of(at("10.244.0.9", 4000)),
          .destination = end_of(destination),
          .answers_from = end_of(answers_from)};
}

// One UDP Service on 10.96.0.53:53 and node port 30053: endpoint 10.244.1.2:8053, draining 10.244.1.3:8053.
DesiredState one_service(std::vector<Target> targets = {at("10.244.1.2", 8053)}) {
  auto s = std::make_shared<ServiceState>();
  s->key = "default/dns";
  Frontend vip{
      .addr = *IpAddr::parse("10.96.0.53"), .family = AF_INET, .protocol = IPPROTO_UDP, .port = 53, .targets = targets};
  vip.draining = {at("10.244.1.3", 8053)};
  Frontend node_port = vip;
  node_port.addr = IpAddr();
  node_port.port = 30053;
  s->frontends = {vip, node_port};
  DesiredState d;
  d.services = {s};
  return d;
}

TEST(ConntrackReconciler, RemovesWhatAnEarlierProcessLeft) {
  FakeConntrack table;
  table.flows = {flow(at("10.96.0.99", 53), at("10.244.1.9", 8053)), flow(at("10.96.0.98", 53), at("10.244.1.9", 8053)),
                 flow(at("10.96.0.53", 53), at("10.244.1.2", 8053))};
  metrics::Registry registry;
  ConntrackReconciler r(table, registry, system_clock());
  r.note_left({{IPPROTO_UDP, *IpAddr::parse("10.96.0.99"), AF_INET, 53},
               {IPPROTO_UDP, *IpAddr::parse("10.96.0.53"), AF_INET, 53}});
  const auto d = one_service();
  EXPECT_EQ(*r.run(d, {}), 1);
  EXPECT_EQ(table.flows.size(), 2u) << "what is served again, and what never was ours, stays";
}

TEST(StaleFlows, Table) {
  struct Case {
    int line;
    const char* name;
    Flow flow;
    bool stale;
  };
  const Case cases[] = {
      {__LINE__, "to a current endpoint", flow(at("10.96.0.53", 53), at("10.244.1.2", 8053)), false},
      {__LINE__, "to a draining endpoint", flow(at("10.96.0.53", 53), at("10.244.1.3", 8053)), false},
      {__LINE__, "to an endpoint that is gone", flow(at("10.96.0.53", 53), at("10.244.1.9", 8053)), true},
      {__LINE__, "to another port of an endpoint", flow(at("10.96.0.53", 53), at("10.244.1.2", 8054)), true},
      {__LINE__, "never translated", flow(at("10.96.0.53", 53), at("10.96.0.53", 53)), true},
      {__LINE__, "another port of the VIP", flow(at("10.96.0.53", 54), at("10.244.1.9", 8053)), false},
      {__LINE__, "TCP", flow(at("10.96.0.53", 53), at("10.244.1.9", 8053), IPPROTO_TCP), false},
      {__LINE__, "SCTP, where there is UDP only", flow(at("10.96.0.53", 53), at("10.244.1.9", 8053), IPPROTO_SCTP),
       false},
      {__LINE__, "node port, gone endpoint", flow(at("192.0.2.11", 30053), at("10.244.1.9", 8053)), true},
      {__LINE__, "node port, current endpoint", flow(at("192.0.2.11", 30053), at("10.244.1.2", 8053)), false},
      {__LINE__, "node port, never translated", flow(at("192.0.2.11", 30053), at("192.0.2.11", 30053)), true},
      {__LINE__, "the node port's number elsewhere", flow(at("203.0.113.5", 30053), at("203.0.113.5", 30053)), false},
      {__LINE__, "foreign, translated", flow(at("203.0.113.5", 53), at("10.244.1.9", 8053)), false},
      {__LINE__, "VIP of a Service that is gone", flow(at("10.96.0.99", 53), at("10.244.1.9", 8053)), true},
      {__LINE__, "that VIP, never translated", flow(at("10.96.0.99", 53), at("10.96.0.99", 53)), false},
  };
  auto desired = one_service();
  std::set<FrontendKey> gone{{IPPROTO_UDP, *IpAddr::parse("10.96.0.99"), AF_INET, 53}};
  std::vector<IpAddr> node{*IpAddr::parse("192.0.2.11")};
  for (const auto& c : cases) {
    EXPECT_EQ(stale_flows({desired, gone, node}, {c.flow}).size(), c.stale ? 1u : 0u) << c.line << ": " << c.name;
  }
}

TEST(ConntrackReconciler, FollowsServicesThatComeAndGo) {
  FakeConntrack table;
  metrics::Registry registry;
  FakeClock clock;
  ConntrackReconciler r(table, registry, clock);
  std::vector<IpAddr> node{*IpAddr::parse("192.0.2.11")};
  table.flows = {flow(at("10.96.0.53", 53), at("10.244.1.2", 8053))};

  // Without a UDP Service the kernel is not even asked.
  EXPECT_EQ(*r.run(DesiredState(), node), 0);
  EXPECT_EQ(table.lists, 0);
  // The flow's endpoint is current.
  EXPECT_EQ(*r.run(one_service(), node), 0);
  // All endpoints go: the flow must not stay with the dead one.
  EXPECT_EQ(*r.run(one_service({}), node), 1);
  EXPECT_TRUE(table.flows.empty());
  // The Service goes while a flow is there.
  table.flows = {flow(at("10.96.0.53", 53), at("10.244.1.3", 8053))};
  EXPECT_EQ(*r.run(DesiredState(), node), 1);
  EXPECT_EQ(*r.run(DesiredState(), node), 0);
  EXPECT_NE(registry.text().find("kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 2"),
            std::string::npos);
}

TEST(ConntrackReconciler, SctpLikeUdpAndTcpNot) {
  for (const auto& [protocol, removed] : {std::pair{IPPROTO_SCTP, 1}, {IPPROTO_UDP, 1}, {IPPROTO_TCP, 0}}) {
    auto s = std::make_shared<ServiceState>();
    const auto number = static_cast<std::uint8_t>(protocol);
    s->frontends = {{.addr = *IpAddr::parse("10.96.0.53"),
                     .family = AF_INET,
                     .protocol = number,
                     .port = 53,
                     .targets = {at("10.244.1.2", 8053)},
                     .draining = {at("10.244.1.3", 8053)}}};
    DesiredState d;
    d.services = {s};
    FakeConntrack table;
    for (const char* endpoint : {"10.244.1.2", "10.244.1.3", "10.244.1.9"})
      table.flows.push_back(flow(at("10.96.0.53", 53), at(endpoint, 8053), number));
    metrics::Registry registry;
    ConntrackReconciler r(table, registry, system_clock());
    EXPECT_EQ(*r.run(d, {}), removed) << protocol;
    EXPECT_EQ(table.flows.size(), 3u - static_cast<unsigned>(removed)) << "current and draining ones stay";
  }
}

class LimitsTest : public ::testing::Test {
 protected:
  LimitsTest() {
    write_hash("1024");
    kernel_ = {.read = [this](const std::string& key) -> Result<std::string> {
                 const auto at = values_.find(key);
                 if (at == values_.end()) return fail(ENOENT, "no {}", key);
                 return at->second;
               },
               .write = [this](const std::string& key, const std::string& value) -> Result<> {
                 if (read_only_.contains(key)) return fail(EACCES, "{} is read-only", key);
                 values_[key] = value;
                 return {};
               },
               .hash_size = folder_.file("hashsize")};
  }
  void write_hash(const std::string& text) { std::ofstream(folder_.file("hashsize")) << text << "\n"; }
  std::string hash() {
    std::string s;
    std::ifstream(folder_.file("hashsize")) >> s;
    return s;
  }

  hawser::testing::TempDir folder_;
  std::map<std::string, std::string> values_{{kConntrackMax, "65536"}, {"net.a", "5"}};
  std::set<std::string> read_only_;
  LimitKernel kernel_;
};

TEST_F(LimitsTest, WritesWhatDiffersAndGrowsTheHashTable) {
  const std::vector<KernelSetting> want{{kConntrackMax, "131072", true}, {"net.a", "5"}};
  const auto first = set_limits(want, kernel_);
  EXPECT_TRUE(first.failed.empty());
  EXPECT_EQ(first.wrote.size(), 2u) << "the limit and its table";
  EXPECT_EQ(values_[kConntrackMax], "131072");
  EXPECT_EQ(hash().substr(0, 5), "32768");
  EXPECT_TRUE(set_limits(want, kernel_).wrote.empty());
}

TEST_F(LimitsTest, NobodyAskedForALowerLimit) {
  values_[kConntrackMax] = "1000000";
  write_hash("999999");
  EXPECT_TRUE(set_limits({{kConntrackMax, "131072", true}}, kernel_).wrote.empty());
  EXPECT_EQ(values_[kConntrackMax], "1000000");
  EXPECT_EQ(set_limits({{kConntrackMax, "131072", false}}, kernel_).wrote.size(), 1u) << "given";
  EXPECT_EQ(hash(), "999999") << "never smaller";
}

TEST_F(LimitsTest, OneThatFailsDoesNotStopTheOthers) {
  read_only_ = {kConntrackMax};
  const auto r = set_limits({{kConntrackMax, "131072", true}, {"net.none", "1"}, {"net.a", "6"}}, kernel_);
  EXPECT_EQ(r.failed, (std::vector<std::string>{fmt::format("{} is read-only", kConntrackMax), "no net.none"}));
  EXPECT_EQ(r.wrote, std::vector<std::string>{"net.a = 6"});
  EXPECT_EQ(hash(), "1024");
}

}  // namespace
}  // namespace hawser::proxy
