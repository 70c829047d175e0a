// SPDX-License-Identifier: Apache-2.0
// Switching modes: the plan, the clients that are handed over, and the steps on fakes, stopped after any write.
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/netlink/ipvs_fake.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/nft/fake_nft.h"
#include "proxyd/switch/clients.h"
#include "proxyd/switch/switch_backend.h"

namespace hawser::proxy {
namespace {

using netlink::IpvsKey;
using netlink::IpvsVerb;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

IpAddr ip(std::string_view text) {
  return *IpAddr::parse(text);
}
Target pod(int n) {
  return {IpAddr::v4(0x0af40100u + static_cast<std::uint32_t>(n)), 8080};
}
const IpvsKey kWeb{IPPROTO_TCP, ip("10.96.0.1"), 80};
const TrafficOptions kTraffic{{*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00:10::/48")}};

TEST(SwitchPlan, FromEveryState) {
  using enum Step;
  const auto plan = [](Mode want, bool table, Mode decides, bool ipvs, bool clients) {
    return plan_switch(want, {.table = table, .decides = decides, .ipvs = ipvs, .clients = clients});
  };
  const Mode nft = Mode::kNftables, ipvs = Mode::kIpvs;
  EXPECT_THAT(plan(nft, false, nft, false, false), ElementsAre(kOnlyTable)) << "a new node";
  EXPECT_THAT(plan(nft, true, nft, false, true), ElementsAre(kOnlyTable)) << "a restart";
  EXPECT_THAT(plan(ipvs, false, nft, false, false), ElementsAre(kCheckIpvs, kOnlyIpvs)) << "a new node";
  EXPECT_THAT(plan(ipvs, true, ipvs, true, false), ElementsAre(kCheckIpvs, kOnlyIpvs)) << "a restart";
  EXPECT_THAT(plan(ipvs, true, ipvs, true, true), ElementsAre(kCheckIpvs, kIpvsAndClients));
  EXPECT_THAT(plan(ipvs, true, nft, false, false),
              ElementsAre(kCheckIpvs, kTableDecides, kFillIpvs, kVerifyIpvs, kIpvsDecides, kVerifyTable, kOnlyIpvs));
  EXPECT_THAT(plan(ipvs, true, nft, true, true), Contains(kIpvsAndClients)) << "back again before the end";
  EXPECT_THAT(plan(nft, true, ipvs, true, false), ElementsAre(kIpvsDecides, kVerifyTable, kClients, kTableDecides,
                                                              kClients, kDrain, kRemoveIpvs, kOnlyTable));
  EXPECT_THAT(plan(nft, true, nft, true, false), ElementsAre(kTableDecides, kDrain, kRemoveIpvs, kOnlyTable))
      << "killed after the switch";
  EXPECT_EQ(plan(nft, false, nft, true, false), plan(nft, true, ipvs, true, false)) << "kube-proxy's IPVS";
}

// The order that keeps connections, whatever the kernel shows.
TEST(SwitchPlan, NeverSwitchesToWhatWasNotReadBack) {
  for (const Mode want : {Mode::kNftables, Mode::kIpvs}) {
    for (int n = 0; n < 16; n++) {
      const SwitchFacts f{(n & 1) != 0, (n & 2) != 0 ? Mode::kIpvs : Mode::kNftables, (n & 4) != 0, (n & 8) != 0};
      const auto steps = plan_switch(want, f);
      const auto at = [&](Step s) { return std::ranges::find(steps, s) - steps.begin(); };
      const auto end = static_cast<std::ptrdiff_t>(steps.size());
      if (at(Step::kFillIpvs) < end) {
        EXPECT_LT(at(Step::kTableDecides), at(Step::kFillIpvs));
        EXPECT_LT(at(Step::kFillIpvs), at(Step::kVerifyIpvs));
        EXPECT_LT(at(Step::kVerifyIpvs), at(Step::kIpvsDecides));
      }
      if (at(Step::kRemoveIpvs) < end) {
        EXPECT_LT(at(Step::kTableDecides), at(Step::kDrain));
        EXPECT_LT(at(Step::kDrain), at(Step::kRemoveIpvs));
      }
      if (f.table && f.decides == Mode::kIpvs && want == Mode::kNftables && f.ipvs) {
        EXPECT_LT(at(Step::kVerifyTable), at(Step::kTableDecides));
        EXPECT_LT(at(Step::kClients), at(Step::kTableDecides));
      }
    }
  }
}

constexpr const char* kConnections =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
    "TCP 0AF40109 8001 0A600001 0050 0AF40101 1F90 ESTABLISHED     899\n"
    "TCP 0AF40109 0000 0A600001 0050 0AF40101 1F90 ASSURED         310\n"
    "UDP C0000264 0000 C000020B 7580 0AF40102 1F90 NONE            599\n"
    "TCP fd00:0010:0000:0000:0000:0000:0000:0009 0000 fd00:0096:0000:0000:0000:0000:0000:0001 0050 "
    "fd00:0010:0000:0000:0000:0000:0000:0001 1F90 NONE              10\n"
    "ICMP something else\n";

TEST(SwitchClients, AreReadFromTheKernelsList) {
  const auto all = parse_connections(kConnections);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0], (IpvsConnection{kWeb, ip("10.244.1.9"), 0x8001, pod(1), 899}));
  EXPECT_EQ(all[1], (IpvsConnection{kWeb, ip("10.244.1.9"), 0, pod(1), 310}));
  EXPECT_EQ(all[3].target, (Target{ip("fd00:10::1"), 8080}));
  EXPECT_THAT(parse_connections("TCP"), IsEmpty());
  EXPECT_THAT(parse_connections("TCP 0 zz 0 0 0 0 NONE 1\n"), IsEmpty());
}

Frontend vip(std::uint32_t affinity, std::vector<Target> targets) {
  return {.addr = kWeb.address,
          .family = AF_INET,
          .protocol = IPPROTO_TCP,
          .port = 80,
          .affinity_seconds = affinity,
          .targets = std::move(targets)};
}
DesiredStatePtr state(std::vector<Frontend> frontends) {
  static std::uint64_t generation = 0;
  auto d = std::make_shared<DesiredState>();
  d->generation = ++generation;
  d->services = ServiceList({std::make_shared<const ServiceState>(
      ServiceState{.key = "d/a", .frontends = std::move(frontends), .cluster_ips = {kWeb.address}})});
  return d;
}

TEST(SwitchClients, OfFrontendsThatStillHaveTheTarget) {
  const NodeAddresses node{{ip("192.0.2.11")}, {ip("192.0.2.11")}};
  const auto connections = parse_connections(kConnections);
  const Frontend port{
      .family = AF_INET, .protocol = IPPROTO_UDP, .port = 30080, .affinity_seconds = 300, .targets = {pod(2)}};
  const auto got = clients_of(connections, *state({vip(600, {pod(1), pod(2)}), port}), node);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].address, ip("10.244.1.9"));
  EXPECT_EQ(got[0].seconds, 310u);
  EXPECT_TRUE(got[1].frontend.node_port());
  EXPECT_EQ(got[1].seconds, 300u) << "not longer than the Service says";
  EXPECT_THAT(clients_of(connections, *state({vip(600, {pod(2)})}), node), IsEmpty()) << "the endpoint went";
  EXPECT_THAT(clients_of(connections, *state({vip(0, {pod(1)})}), node), IsEmpty()) << "no affinity any more";
}

class SwitchTest : public ::testing::Test {
 protected:
  SwitchTest() {
    eth_ = rtnl_.add_hardware("eth0", 1500);
    EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {eth_, *Cidr::parse("192.0.2.11/24"), false}));
  }
  void start(Mode mode, bool adopt = false) {
    const auto sysctl = [](const std::string&, const std::string&) -> Result<bool> { return false; };
    backend_.reset();  // as a process that ends
    registry_ = std::make_unique<metrics::Registry>();
    backend_ = std::make_unique<SwitchBackend>(
        SwitchKernel{{ipvs_, rtnl_, nft_, sysctl, "6.1.0"},
                     conntrack_,
                     [this]() -> Result<std::string> { return connections_; }},
        SwitchOptions{
            .mode = mode,
            .traffic = kTraffic,
            .ipvs = {.adopt = adopt},
            .on_event = [this](const char* reason, const std::string&, bool) { events_.emplace_back(reason); }},
        *registry_, clock_);
  }
  void apply(const DesiredStatePtr& s) {
    auto r = backend_->apply(s);
    ASSERT_TRUE(r) << r.error().text;
  }
  void run(Mode mode, const DesiredStatePtr& s) {
    start(mode);
    apply(s);
  }
  [[nodiscard]] std::string rules() const { return nft_.list(kTableFamily, kTable); }
  bool has_device(const char* name = kIpvsDevice) { return rtnl_.get_link(name).has_value(); }
  std::string addresses() {
    std::string out;
    auto link = rtnl_.get_link(kIpvsDevice);
    if (!link) return "no device\n";
    const auto list = rtnl_.list_addresses(link->index).value();
    for (const auto& a : list) out += fmt::format("{}\n", a.cidr);
    return out;
  }
  std::string all() { return rules() + ipvs_.list() + addresses(); }
  void set_active(std::uint32_t n) { ipvs_.destination(kWeb, {.address = pod(1).addr, .port = 8080}).active = n; }

  netlink::FakeIpvs ipvs_;
  netlink::FakeRtnl rtnl_;
  nft::FakeNft nft_;
  netlink::FakeConntrack conntrack_;
  std::string connections_;
  FakeClock clock_;
  std::unique_ptr<metrics::Registry> registry_;
  std::unique_ptr<SwitchBackend> backend_;
  std::vector<std::string> events_;
  int eth_ = 0;
  const DesiredStatePtr web_ = state({vip(0, {pod(1), pod(2)})});
  const DesiredStatePtr sticky_ = state({vip(600, {pod(1), pod(2)})});
};

TEST_F(SwitchTest, ThereAndBackLeavesNothing) {
  run(Mode::kNftables, web_);
  const auto nftables = all();
  run(Mode::kIpvs, web_);
  EXPECT_EQ(backend_->name(), "ipvs");
  EXPECT_THAT(events_, ElementsAre("ModeSwitching", "ModeSwitched", "ModeDrained"));
  const auto ipvs = all();
  EXPECT_THAT(ipvs, HasSubstr("tcp 10.96.0.1:80 rr"));
  EXPECT_THAT(rules(), Not(HasSubstr("map @endpoints4")));
  run(Mode::kNftables, web_);
  EXPECT_EQ(all(), nftables);
  run(Mode::kIpvs, web_);
  EXPECT_EQ(all(), ipvs);
  EXPECT_THAT(registry_->text(), HasSubstr("hawser_proxyd_mode{mode=\"ipvs\"} 1"));
  EXPECT_THAT(registry_->text(), HasSubstr("hawser_proxyd_mode_switches_total 1"));
}

TEST_F(SwitchTest, TheSameAsIfItHadAlwaysBeenSo) {
  run(Mode::kIpvs, sticky_);
  const auto ipvs = all();
  ASSERT_TRUE(backend_->cleanup());
  run(Mode::kNftables, sticky_);
  run(Mode::kIpvs, sticky_);
  EXPECT_EQ(all(), ipvs);
}

TEST_F(SwitchTest, ConnectionsOfIpvsEndWhereTheyAre) {
  run(Mode::kIpvs, web_);
  set_active(2);
  run(Mode::kNftables, web_);
  EXPECT_EQ(backend_->name(), "nftables");
  EXPECT_EQ(backend_->status().step, "drain IPVS");
  EXPECT_EQ(backend_->status().draining, 2u);
  EXPECT_THAT(rules(), HasSubstr("map @endpoints4"));
  EXPECT_THAT(ipvs_.list(), HasSubstr("10.244.1.1:8080"));
  EXPECT_THAT(addresses(), HasSubstr("10.96.0.1"));
  const auto later = state({vip(0, {pod(2), pod(3)})});
  apply(later);
  EXPECT_THAT(rules(), HasSubstr("10.244.1.3")) << "changes are served meanwhile";
  EXPECT_THAT(ipvs_.list(), HasSubstr("10.244.1.1:8080")) << "and IPVS keeps what has connections";
  apply(later);
  EXPECT_TRUE(has_device());
  set_active(0);
  // This node's own connection has the address as its source.
  conntrack_.flows = {{.protocol = IPPROTO_TCP, .source = {kWeb.address, 40000}, .destination = {kWeb.address, 80}}};
  apply(later);
  EXPECT_TRUE(has_device());
  conntrack_.flows.clear();
  apply(later);
  EXPECT_FALSE(has_device());
  EXPECT_EQ(ipvs_.list(), "");
  EXPECT_EQ(backend_->status().step, "");
}

TEST_F(SwitchTest, DrainEndsAtItsTimeAndTakesTheFlowsAlong) {
  run(Mode::kIpvs, web_);
  set_active(1);
  connections_ = "TCP 0AF40109 8001 0A600001 0050 0AF40101 1F90 ESTABLISHED     899\n";
  conntrack_.flows = {{.protocol = IPPROTO_TCP,
                       .source = {ip("10.244.1.9"), 0x8001},
                       .destination = {kWeb.address, 80},
                       .answers_from = {pod(1).addr, 8080}},
                      {.protocol = IPPROTO_TCP,
                       .source = {ip("10.244.1.9"), 0x8002},
                       .destination = {kWeb.address, 80},
                       .answers_from = {pod(1).addr, 8080}}};
  run(Mode::kNftables, web_);
  clock_.advance(std::chrono::minutes(14));
  apply(web_);
  EXPECT_TRUE(has_device());
  clock_.advance(std::chrono::minutes(1));
  apply(web_);
  EXPECT_FALSE(has_device());
  ASSERT_EQ(conntrack_.flows.size(), 1u) << "the table's own stays";
  EXPECT_EQ(conntrack_.flows[0].source.port, 0x8002);
}

TEST_F(SwitchTest, ClientsOfIpvsGoWhereTheyWent) {
  run(Mode::kIpvs, sticky_);
  connections_ = kConnections;
  run(Mode::kNftables, sticky_);
  EXPECT_EQ(*count_clients(nft_), 1u);
  EXPECT_THAT(rules(), HasSubstr("10.244.1.9 . 10.96.0.1 . tcp . 80"));
}

TEST_F(SwitchTest, ClientsOfTheTableStayWithIt) {
  run(Mode::kNftables, sticky_);
  ASSERT_TRUE(remember_clients(nft_, {{ip("10.244.1.9"), main_side(vip(600, {})), pod(2), 60}}));
  run(Mode::kIpvs, sticky_);
  EXPECT_EQ(backend_->name(), "ipvs");
  EXPECT_THAT(rules(), HasSubstr("map @affinity4"));
  EXPECT_EQ(*count_clients(nft_), 1u);
  apply(sticky_);
  EXPECT_EQ(*count_clients(nft_), 1u);
  // Until its endpoint goes, or its time.
  const auto without = state({vip(600, {pod(1)})});
  apply(without);
  EXPECT_EQ(*count_clients(nft_), 0u);
  apply(without);
  EXPECT_THAT(rules(), Not(HasSubstr("map @endpoints4")));
}

TEST_F(SwitchTest, WithoutIpvsTheTableGoesOn) {
  run(Mode::kNftables, web_);
  const auto before = all();
  ipvs_.set_absent();
  run(Mode::kIpvs, web_);
  EXPECT_EQ(all(), before);
  EXPECT_EQ(backend_->name(), "nftables");
  EXPECT_THAT(backend_->status().problem, HasSubstr("check IPVS: mode ipvs: this kernel has no IPVS"));
  EXPECT_THAT(events_, ElementsAre("ModeSwitching", "ModeSwitchFailed"));
  const auto later = state({vip(0, {pod(3)})});
  apply(later);
  apply(later);
  EXPECT_THAT(rules(), HasSubstr("10.244.1.3"));
  EXPECT_EQ(events_.size(), 2u) << "said once";
}

TEST_F(SwitchTest, WithoutTheSchedulerTheTableGoesOnUntilItIsThere) {
  run(Mode::kNftables, web_);
  ipvs_.set_schedulers({});
  run(Mode::kIpvs, web_);
  EXPECT_EQ(backend_->name(), "nftables");
  EXPECT_THAT(backend_->status().problem, HasSubstr("fill IPVS: "));
  const auto later = state({vip(0, {pod(3)})});
  apply(later);
  EXPECT_THAT(rules(), HasSubstr("10.244.1.3"));
  ipvs_.set_schedulers({"rr"});
  apply(later);
  EXPECT_EQ(backend_->name(), "ipvs");
  EXPECT_EQ(backend_->status().problem, "");
  // And back, as if nothing had been.
  run(Mode::kNftables, later);
  EXPECT_FALSE(has_device());
}

TEST_F(SwitchTest, KubeProxysIpvsIsTakenOver) {
  ASSERT_TRUE(rtnl_.add_link({.name = kKubeIpvsDevice, .kind = "dummy"}));
  const int device = rtnl_.get_link(kKubeIpvsDevice)->index;
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {device, Cidr(kWeb.address, 32), true}));
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = kWeb}));
  ASSERT_TRUE(ipvs_.change_destination(IpvsVerb::kAdd, kWeb, {.address = pod(1).addr, .port = 8080}));
  set_active(1);
  run(Mode::kNftables, web_);
  EXPECT_THAT(ipvs_.list(), HasSubstr("10.244.1.1")) << "not asked for";
  EXPECT_EQ(backend_->status().step, "");
  ASSERT_TRUE(backend_->cleanup());
  start(Mode::kNftables, true);
  connections_ = kConnections;
  apply(web_);
  EXPECT_EQ(backend_->status().step, "drain IPVS");
  set_active(0);
  apply(web_);
  EXPECT_EQ(ipvs_.list(), "");
  EXPECT_FALSE(has_device(kKubeIpvsDevice));
  EXPECT_EQ(addresses(), "no device\n");
}

TEST_F(SwitchTest, KubeProxysIpvsServicesBecomeOurs) {
  ASSERT_TRUE(rtnl_.add_link({.name = kKubeIpvsDevice, .kind = "dummy"}));
  const int device = rtnl_.get_link(kKubeIpvsDevice)->index;
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {device, Cidr(kWeb.address, 32), true}));
  ASSERT_TRUE(ipvs_.change_service(IpvsVerb::kAdd, {.key = kWeb}));
  ASSERT_TRUE(ipvs_.change_destination(IpvsVerb::kAdd, kWeb, {.address = pod(1).addr, .port = 8080}));
  ipvs_.take_log();
  start(Mode::kIpvs, true);
  apply(web_);
  EXPECT_THAT(ipvs_.take_log(), ElementsAre("dest+ 10.244.1.2:8080 weight 1"));
  EXPECT_THAT(addresses(), HasSubstr("10.96.0.1")) << "on our device too: theirs goes";
}

// Killed after any write of the kernel, another process comes to the same end, in either direction.
class SwitchKilled : public SwitchTest, public ::testing::WithParamInterface<int> {};

TEST_P(SwitchKilled, IsFinishedOrTakenBack) {
  const int n = GetParam();
  run(Mode::kIpvs, sticky_);
  const auto ipvs = all();
  run(Mode::kNftables, sticky_);
  const auto nftables = all();
  for (const Mode to : {Mode::kIpvs, Mode::kNftables}) {
    for (const Mode then : {Mode::kIpvs, Mode::kNftables}) {
      for (const int kind : {0, 1, 2}) {
        run(to == Mode::kIpvs ? Mode::kNftables : Mode::kIpvs, sticky_);
        start(to);
        if (kind == 0) ipvs_.fail_write(n);
        if (kind == 1) rtnl_.fail_write(n);
        // A killed process writes nothing further: what comes after the failure is not looked at.
        if (kind == 2) nft_.fail_after(n);
        (void)backend_->apply(sticky_);
        ipvs_.fail_write(0);
        rtnl_.fail_write(0);
        nft_.fail_after(0);
        run(then, sticky_);
        EXPECT_EQ(all(), then == Mode::kIpvs ? ipvs : nftables)
            << "to " << mode_name(to) << ", write " << n << " of " << kind << ", then " << mode_name(then);
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(AnyWrite, SwitchKilled, ::testing::Range(1, 9));

}  // namespace
}  // namespace hawser::proxy
