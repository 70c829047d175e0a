// SPDX-License-Identifier: Apache-2.0
// The IPVS back end: plans, what it writes and in which order, drain, repair, adoption, cleanup. Everything by fakes.
#include <algorithm>
#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/netlink/ipvs_fake.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/nft/fake_nft.h"
#include "lib/testing/golden.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/ipvs/options.h"
#include "proxyd/testing/states.h"

namespace hawser::proxy {
namespace {

using netlink::IpvsKey;
using netlink::IpvsVerb;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

using made::ip, made::pod, made::pods, made::state, made::vip;

Frontend node_port(std::uint16_t port, int family, std::vector<Target> targets) {
  return {.family = family,
          .protocol = IPPROTO_TCP,
          .port = port,
          .reach = Reach::kExternal,
          .targets = std::move(targets)};
}
DesiredStatePtr one(Frontend f) {
  ServiceState s{.key = "d/a", .frontends = {f}, .cluster_ips = {}, .local_addrs = {}};
  if (f.addr) s.cluster_ips = {f.addr};
  return state({s});
}

const TrafficOptions kTraffic{{*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00:10::/48")}};
const NodeAddresses kNode{{ip("127.0.0.1"), ip("192.0.2.11"), ip("2001:db8::11")},
                          {ip("192.0.2.11"), ip("2001:db8::11")}};
const IpvsKey kWeb{IPPROTO_TCP, ip("10.96.0.1"), 80};
const IpvsKey kDns{IPPROTO_UDP, ip("10.96.0.1"), 80};

TEST(IpvsPlan, SchedulersByName) {
  EXPECT_EQ(parse_scheduler("").value(), "rr");
  for (const char* name : {"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh"})
    EXPECT_EQ(parse_scheduler(name).value(), name);
  auto wrong = parse_scheduler("fastest");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().text, HasSubstr("\"fastest\", want one of rr, wrr, lc"));
}

TEST(IpvsPlan, SysctlsByKernel) {
  const char* reuse = "net.ipv4.vs.conn_reuse_mode";
  EXPECT_THAT(ipvs_sysctls({}, "6.1.0-18-amd64"), Contains(Pair(reuse, "1")));
  EXPECT_THAT(ipvs_sysctls({}, "5.10.1"), Contains(Pair(reuse, "1")));
  EXPECT_THAT(ipvs_sysctls({}, "5.4.0-generic"), Contains(Pair(reuse, "0")));
  EXPECT_THAT(ipvs_sysctls({}, "4.0.9"), Not(Contains(Pair(reuse, ::testing::_))));
  EXPECT_THAT(ipvs_sysctls({}, "strange"), Not(Contains(Pair(reuse, ::testing::_))));
  for (const char* key : {"conntrack", "expire_nodest_conn", "expire_quiescent_template"})
    EXPECT_THAT(ipvs_sysctls({}, "6.1"), Contains(Pair(std::string("net.ipv4.vs.") + key, "1")));
  EXPECT_THAT(ipvs_sysctls({}, "6.1"), Not(Contains(Pair("net.ipv4.conf.all.arp_ignore", "1"))));
  EXPECT_THAT(ipvs_sysctls({.strict_arp = true}, "6.1"), Contains(Pair("net.ipv4.conf.all.arp_ignore", "1")));
  EXPECT_THAT(ipvs_sysctls({.strict_arp = true}, "6.1"), Contains(Pair("net.ipv4.conf.all.arp_announce", "2")));
}

TEST(IpvsPlan, NodePortsAreOnTheAddressesThatServeThem) {
  const auto all = node_addresses({ip("192.0.2.11"), ip("fe80::1"), ip("127.0.0.1"), ip("192.0.2.11"), ip("::1")}, {});
  EXPECT_THAT(all.all, ElementsAre(ip("127.0.0.1"), ip("192.0.2.11"), ip("::1"), ip("fe80::1")));
  EXPECT_THAT(all.node_ports, ElementsAre(ip("192.0.2.11")));
  TrafficOptions some;
  some.node_port_addresses = {*Cidr::parse("198.51.100.0/24")};
  EXPECT_THAT(node_addresses({ip("192.0.2.11"), ip("198.51.100.1")}, some).node_ports, ElementsAre(ip("198.51.100.1")));
  const auto v = virtual_services(*one(node_port(30080, AF_INET6, {{ip("fd00:10::1"), 80}})), kNode, {});
  ASSERT_EQ(v.size(), 1u);
  EXPECT_EQ(v.begin()->first, (IpvsKey{IPPROTO_TCP, ip("2001:db8::11"), 30080}));
}

TEST(IpvsPlan, WeightsNeedASchedulerThatKnowsThem) {
  Frontend f = vip("10.96.0.1", pods({1, 1, 1, 2}));
  EXPECT_EQ(virtual_services(*one(f), kNode, {}).at(kWeb).scheduler, "wrr");
  EXPECT_EQ(virtual_services(*one(f), kNode, {.scheduler = "lc"}).at(kWeb).scheduler, "wlc");
  EXPECT_EQ(virtual_services(*one(f), kNode, {.scheduler = "sh"}).at(kWeb).scheduler, "sh");
  EXPECT_EQ(virtual_services(*one(f), kNode, {}).at(kWeb).weights.at(pod(1)), 3u);
  f.targets = pods({1, 2});
  EXPECT_EQ(virtual_services(*one(f), kNode, {}).at(kWeb).scheduler, "rr");
}

TEST(IpvsPlan, LocalPolicyTakesLocalEndpointsIfThereAre) {
  Frontend f = vip("203.0.113.1", pods({1, 2}));
  f.reach = Reach::kExternalLocal;
  const IpvsKey key{IPPROTO_TCP, f.addr, 80};
  EXPECT_EQ(virtual_services(*one(f), kNode, {}).at(key).weights.size(), 2u);
  f.local = pods({2});
  f.draining = pods({3});
  EXPECT_THAT(virtual_services(*one(f), kNode, {}).at(key).weights, ElementsAre(Pair(pod(2), 1u), Pair(pod(3), 0u)));
}

TEST(IpvsPlan, TheFirstServiceByNameHasAFrontend) {
  ServiceState a{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1}))}};
  ServiceState b{.key = "d/b", .frontends = {vip("10.96.0.1", pods({2}))}};
  EXPECT_TRUE(virtual_services(*state({b, a}), kNode, {}).at(kWeb).weights.contains(pod(1)));
}

TEST(IpvsPlan, AddressesThatTheNodeHasAreNotOurs) {
  const auto s = state({{.key = "d/a",
                         .frontends = {vip("10.96.0.1", {}), vip("192.0.2.11", {}), node_port(30080, AF_INET, {})},
                         .cluster_ips = {ip("10.96.0.1"), ip("fd00:96::1")}}});
  EXPECT_THAT(device_addresses(*s, kNode), ElementsAre(ip("10.96.0.1"), ip("fd00:96::1")));
  EXPECT_THAT(rules_of(*s->services[0], kNode).cluster_ips, ElementsAre(ip("10.96.0.1"), ip("fd00:96::1")));
}

TEST(IpvsSettings, AreReadUnderTheirModeOnly) {
  const auto read = [](std::vector<GivenFlag> flags) {
    auto c = resolve_config(std::nullopt, flags);
    EXPECT_TRUE(c) << c.error().text;
    return ipvs_settings(*c);
  };
  EXPECT_FALSE(*read({{"ipvs-scheduler", "nonsense"}}));
  const auto s = *read({{"proxy-mode", "ipvs"},
                        {"ipvs-scheduler", "lc"},
                        {"ipvs-exclude-cidrs", "198.51.100.7/24"},
                        {"ipvs-strict-arp", "true"},
                        {"ipvs-udp-timeout", "1500ms"},
                        {"ipvs-sync-period", "1m"}});
  ASSERT_TRUE(s);
  EXPECT_EQ(s->options.scheduler, "lc");
  EXPECT_THAT(s->options.exclude, ElementsAre(*Cidr::parse("198.51.100.0/24")));
  EXPECT_TRUE(s->options.strict_arp);
  EXPECT_EQ(s->options.timeouts, (netlink::IpvsTimeouts{.udp_seconds = 2}));
  EXPECT_EQ(s->sync_period, std::chrono::minutes(1));
  EXPECT_EQ(s->min_sync_period, std::chrono::milliseconds(5));
  for (auto [flag, text, why] : {std::tuple{"ipvs-scheduler", "x", "ipvs.scheduler: \"x\", want one of"},
                                 {"ipvs-exclude-cidrs", "x", "ipvs.excludeCIDRs"},
                                 {"ipvs-tcp-timeout", "-1s", "ipvs.tcpTimeout"},
                                 {"ipvs-min-sync-period", "1h", "ipvs.minSyncPeriod"},
                                 {"ipvs-sync-period", "-1s", "ipvs.syncPeriod"}}) {
    auto r = read({{"proxy-mode", "ipvs"}, {flag, text}});
    ASSERT_FALSE(r) << flag;
    EXPECT_THAT(r.error().text, HasSubstr(why));
  }
}

class IpvsBackendTest : public ::testing::Test {
 protected:
  IpvsBackendTest() {
    eth_ = rtnl_.add_hardware("eth0", 1500);
    EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {eth_, *Cidr::parse("192.0.2.11/24"), false}));
    EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {eth_, *Cidr::parse("2001:db8::11/64"), false}));
    rtnl_.take_log();
  }
  IpvsKernel kernel() {
    return {ipvs_, rtnl_, nft_,
            [this](const std::string& key, const std::string& value) -> Result<bool> {
              return std::exchange(sysctls_[key], value) != value;
            },
            "6.1.0"};
  }
  SyncReport apply(const DesiredStatePtr& s) {
    auto r = backend_.apply(s);
    EXPECT_TRUE(r) << r.error().text;
    return r.value_or(SyncReport{});
  }
  [[nodiscard]] std::string rules() const { return nft_.list(kTableFamily, kTable); }
  std::string addresses() {
    std::string out;
    auto link = rtnl_.get_link(kIpvsDevice);
    if (!link) return "no device";
    auto addresses = rtnl_.list_addresses(link->index).value();
    std::ranges::sort(addresses, {}, &netlink::Address::cidr);
    for (const auto& a : addresses) out += fmt::format("{}\n", a.cidr);
    return out;
  }
  // Two endpoints, of which the second went while `active` connections were open to it.
  void remove_second(std::uint32_t active) {
    apply(one(vip("10.96.0.1", pods({1, 2}))));
    ipvs_.destination(kWeb, {.address = pod(2).addr, .port = 8080}).active = active;
    ipvs_.take_log();
    apply(last_ = one(vip("10.96.0.1", pods({1}))));
  }

  netlink::FakeIpvs ipvs_;
  netlink::FakeRtnl rtnl_;
  nft::FakeNft nft_;
  FakeClock clock_;
  std::map<std::string, std::string> sysctls_;
  int eth_ = 0;
  DesiredStatePtr last_;
  IpvsBackend backend_{kernel(), kTraffic, {}, clock_};
};

TEST_F(IpvsBackendTest, EveryKindOfFrontend) {
  Frontend affinity = vip("10.96.0.2", pods({1, 2}));
  affinity.affinity_seconds = 10800;
  Frontend silent = vip("10.96.0.4", {});
  silent.when_empty = WhenEmpty::kDrop;
  Frontend local = vip("203.0.113.1", pods({1, 2}));
  local.reach = Reach::kExternalLocal;
  local.local = pods({1});
  Frontend local_none = node_port(30081, AF_INET, pods({2}));
  local_none.reach = Reach::kExternalLocal;
  Frontend limited = vip("203.0.113.3", pods({1}));
  limited.reach = Reach::kExternal;
  limited.limited = true;
  limited.sources = {*Cidr::parse("192.0.2.0/24")};
  Frontend dns = vip("10.96.0.53", pods({1}));
  dns.protocol = IPPROTO_UDP;
  apply(state({{.key = "d/a",
                .frontends = {vip("10.96.0.1", pods({1, 2, 2})), node_port(30080, AF_INET, pods({1, 2}))},
                .cluster_ips = {ip("10.96.0.1")},
                .local_addrs = {pod(1).addr}},
               {.key = "d/b", .frontends = {affinity, vip("10.96.0.3", {}), silent}},
               {.key = "d/c", .frontends = {local, local_none, limited}},
               {.key = "d/d",
                .frontends = {dns, vip("fd00:96::1", {{ip("fd00:10::1"), 8080}}),
                              node_port(30082, AF_INET6, {{ip("fd00:10::1"), 8080}})}}}));
  hawser::testing::expect_golden("proxyd/ipvs/testdata/every_kind.txt",
                                 ipvs_.list() + "\n" + addresses() + "\n" + rules());
}

TEST_F(IpvsBackendTest, SetsTheKernelUp) {
  apply(state({}));
  EXPECT_EQ(sysctls_["net.ipv4.vs.conntrack"], "1");
  auto link = rtnl_.get_link(kIpvsDevice);
  ASSERT_TRUE(link);
  EXPECT_EQ(link->kind, "dummy");
  EXPECT_TRUE(link->up);
  IpvsBackend timed(kernel(), kTraffic, {.timeouts = {.udp_seconds = 30}}, clock_);
  ASSERT_TRUE(timed.apply(state({})));
  EXPECT_EQ(ipvs_.get_timeouts()->udp_seconds, 30u);
  EXPECT_EQ(ipvs_.get_timeouts()->tcp_seconds, 900u) << "not given: stays";
}

TEST_F(IpvsBackendTest, SaysThatTheKernelHasNoIpvs) {
  ipvs_.set_absent();
  auto r = backend_.apply(one(vip("10.96.0.1", pods({1}))));
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text, HasSubstr("mode ipvs: this kernel has no IPVS"));
  EXPECT_EQ(addresses(), "no device");
  EXPECT_EQ(rules(), "");
}

TEST_F(IpvsBackendTest, AnEqualStateWritesNothing) {
  const auto s = one(vip("10.96.0.1", pods({1})));
  const auto first = apply(s);
  EXPECT_TRUE(first.full);
  EXPECT_GT(first.changes, 0u);
  ipvs_.take_log();
  const auto again = apply(s);
  EXPECT_FALSE(again.full);
  EXPECT_EQ(again.changes, 0u);
  EXPECT_THAT(ipvs_.take_log(), IsEmpty());
}

TEST_F(IpvsBackendTest, AReplacedEndpointIsThereBeforeTheOldOneGoes) {
  apply(one(vip("10.96.0.1", pods({1}))));
  ipvs_.take_log();
  const int transactions = nft_.applied();
  apply(one(vip("10.96.0.1", pods({2}))));
  EXPECT_THAT(ipvs_.take_log(),
              ElementsAre("dest+ 10.244.1.2:8080 weight 1", "dest= 10.244.1.1:8080 weight 0", "dest- 10.244.1.1:8080"));
  EXPECT_EQ(nft_.applied(), transactions) << "the rules do not know endpoints";
}

TEST_F(IpvsBackendTest, AnEndpointWithConnectionsDrains) {
  remove_second(3);
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest= 10.244.1.2:8080 weight 0"));
  apply(last_);
  EXPECT_THAT(ipvs_.take_log(), IsEmpty());
  ipvs_.destination(kWeb, {.address = pod(2).addr, .port = 8080}).active = 0;
  EXPECT_EQ(apply(last_).changes, 0u) << "no repair";
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest- 10.244.1.2:8080"));
}

TEST_F(IpvsBackendTest, DrainEndsAtItsTime) {
  remove_second(1);
  clock_.advance(std::chrono::minutes(14));
  apply(last_);
  EXPECT_EQ(ipvs_.list_destinations(kWeb)->size(), 2u);
  clock_.advance(std::chrono::minutes(1));
  apply(last_);
  EXPECT_EQ(ipvs_.list_destinations(kWeb)->size(), 1u);
}

TEST_F(IpvsBackendTest, AnEndpointThatComesBackIsUsedAgain) {
  remove_second(1);
  ipvs_.take_log();
  apply(one(vip("10.96.0.1", pods({1, 2}))));
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest= 10.244.1.2:8080 weight 1"));
  clock_.advance(std::chrono::hours(1));
  apply(one(vip("10.96.0.1", pods({1, 2}))));
  EXPECT_EQ(ipvs_.list_destinations(kWeb)->size(), 2u);
}

TEST_F(IpvsBackendTest, UdpDoesNotDrain) {
  Frontend f = vip("10.96.0.1", pods({1, 2}));
  f.protocol = IPPROTO_UDP;
  apply(one(f));
  ipvs_.destination(kDns, {.address = pod(2).addr, .port = 8080}).inactive = 9;
  ipvs_.take_log();
  f.targets = pods({1});
  EXPECT_TRUE(apply(one(f)).flows);
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest- 10.244.1.2:8080"));
}

TEST_F(IpvsBackendTest, TerminatingEndpointsKeepTheirFlows) {
  apply(one(vip("10.96.0.1", pods({1, 2}))));
  ipvs_.take_log();
  Frontend f = vip("10.96.0.1", pods({1}));
  f.draining = pods({2, 3});
  const auto s = one(f);
  apply(s);
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest= 10.244.1.2:8080 weight 0"));
  apply(s);
  EXPECT_THAT(ipvs_.take_log(), IsEmpty()) << "as long as the API has it";
}

TEST_F(IpvsBackendTest, WithoutEndpointsTheRulesRefuseFirst) {
  apply(one(vip("10.96.0.1", pods({1}))));
  nft_.fail_next({EIO, "made to fail", {}});
  const auto none = one(vip("10.96.0.1", {}));
  EXPECT_FALSE(backend_.apply(none));
  EXPECT_EQ(ipvs_.list_destinations(kWeb)->at(0).weight, 1u);
  apply(none);
  EXPECT_THAT(*ipvs_.list_destinations(kWeb), IsEmpty());
  EXPECT_THAT(rules(), HasSubstr("10.96.0.1 . tcp . 80 : jump reject-no-endpoint"));
}

TEST_F(IpvsBackendTest, ARestartAdopts) {
  Frontend f = vip("10.96.0.1", pods({1, 2}));
  f.affinity_seconds = 60;
  const auto s = state({{.key = "d/a", .frontends = {f, node_port(30080, AF_INET, pods({1}))}}});
  apply(s);
  ipvs_.take_log();
  rtnl_.take_log();
  IpvsBackend second(kernel(), kTraffic, {}, clock_);
  auto r = second.apply(s);
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_EQ(r->changes, 0u);
  EXPECT_THAT(ipvs_.take_log(), IsEmpty());
  EXPECT_THAT(rtnl_.take_log(), IsEmpty());
}

TEST_F(IpvsBackendTest, RepairsWhatOthersChanged) {
  const auto s = one(vip("10.96.0.1", pods({1, 2})));
  apply(s);
  const auto was = ipvs_.list() + addresses();
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kSet, {.key = kWeb, .scheduler = "sh"}));
  ASSERT_TRUE(ipvs_.change_destination(IpvsVerb::kDelete, kWeb, {.address = pod(1).addr, .port = 8080}));
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = kDns}));
  auto link = rtnl_.get_link(kIpvsDevice);
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kDelete, {link->index, Cidr(ip("10.96.0.1"), 32), true}));
  const auto r = apply(s);
  EXPECT_TRUE(r.full);
  EXPECT_EQ(r.changes, 4u);
  EXPECT_EQ(ipvs_.list() + addresses(), was);
  ASSERT_TRUE(rtnl_.delete_link(link->index));
  apply(s);
  EXPECT_EQ(ipvs_.list() + addresses(), was);
}

TEST_F(IpvsBackendTest, NodePortsFollowTheNodesAddresses) {
  const auto s = one(node_port(30080, AF_INET, pods({1})));
  apply(s);
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {eth_, *Cidr::parse("198.51.100.1/24"), false}));
  apply(s);
  EXPECT_THAT(ipvs_.list(), HasSubstr("tcp 198.51.100.1:30080"));
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kDelete, {eth_, *Cidr::parse("192.0.2.11/24"), false}));
  apply(s);
  EXPECT_THAT(ipvs_.list(), Not(HasSubstr("192.0.2.11")));
}

TEST_F(IpvsBackendTest, OthersServicesStayWhereExcluded) {
  IpvsBackend careful(kernel(), kTraffic, {.exclude = {*Cidr::parse("198.51.100.0/24")}}, clock_);
  const IpvsKey theirs{IPPROTO_TCP, ip("198.51.100.7"), 443};
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = theirs}));
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = kDns}));
  ASSERT_TRUE(careful.apply(one(vip("10.96.0.1", pods({1})))));
  EXPECT_THAT(ipvs_.list(), HasSubstr("198.51.100.7"));
  EXPECT_THAT(ipvs_.list(), Not(HasSubstr("udp")));
  ASSERT_TRUE(careful.cleanup());
  EXPECT_EQ(ipvs_.list(), "tcp 198.51.100.7:443 rr\n");
}

TEST_F(IpvsBackendTest, CleanupLeavesNothing) {
  apply(one(vip("10.96.0.1", pods({1}))));
  ASSERT_TRUE(backend_.cleanup());
  EXPECT_EQ(ipvs_.list() + rules() + addresses(), "no device");
  // Where this mode never was, virtual services are somebody else's.
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = kWeb}));
  ASSERT_TRUE(backend_.cleanup());
  EXPECT_NE(ipvs_.list(), "");
}

// Stopped after any write, the next apply() comes to the same end.
TEST_F(IpvsBackendTest, AnyFailureIsMadeGood) {
  Frontend dns = vip("10.96.0.53", pods({1}));
  dns.protocol = IPPROTO_UDP;
  const auto a = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2})), dns}}});
  const auto b = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({2, 3})), vip("10.96.0.2", pods({1}))}}});
  apply(b);
  const auto want = ipvs_.list() + addresses() + rules();
  for (int n = 1; n < 12; n++) {
    for (const bool address : {false, true}) {
      apply(a);
      if (address)
        rtnl_.fail_write(n);
      else
        ipvs_.fail_write(n);
      backend_.apply(b);
      ipvs_.fail_write(0);
      rtnl_.fail_write(0);
      apply(b);
      const auto got = ipvs_.list() + addresses();
      EXPECT_TRUE(want.starts_with(got)) << n << "\n" << got;
    }
  }
}

}  // namespace
}  // namespace hawser::proxy
