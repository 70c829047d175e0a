// SPDX-License-Identifier: Apache-2.0
#include "proxyd/nft/nft_backend.h"

#include <algorithm>
#include <random>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/nft/fake_nft.h"
#include "lib/testing/golden.h"
#include "proxyd/testing/states.h"

namespace hawser::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using made::ip, made::pod, made::pods, made::state, made::vip;

const LayoutOptions kOptions{{*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00:10::/48")}};

// The lines of a listing that start with `word`, trimmed.
std::vector<std::string> lines(const std::string& listing, std::string_view word) {
  std::vector<std::string> r;
  std::istringstream in(listing);
  for (std::string l; std::getline(in, l);) {
    l.erase(0, l.find_first_not_of('\t'));
    if (l.starts_with(word)) r.push_back(l);
  }
  return r;
}

class NftBackendTest : public ::testing::Test {
 protected:
  std::size_t apply(const DesiredStatePtr& s) {
    auto r = backend_.apply(s);
    EXPECT_TRUE(r) << r.error().text;
    return r ? r->changes : 0;
  }
  std::string list() const { return fake_.list(kTableFamily, kTable); }
  nft::FakeNft fake_;
  NftBackend backend_{fake_, kOptions};
};

TEST_F(NftBackendTest, EmptyTable) {
  apply(state({}));
  hawser::testing::expect_golden("proxyd/nft/testdata/empty.txt", list());
}

TEST_F(NftBackendTest, EveryKindOfFrontend) {
  Frontend affinity = vip("10.96.0.2", pods({1, 2}));
  affinity.affinity_seconds = 10800;
  Frontend drop = vip("10.96.0.4", {});
  drop.when_empty = WhenEmpty::kDrop;
  Frontend node_port = vip("10.96.0.1", pods({1, 2, 3}));
  node_port.addr = {};
  node_port.port = 30080;
  node_port.reach = Reach::kExternal;
  Frontend local = vip("203.0.113.1", pods({1, 2}));
  local.reach = Reach::kExternalLocal;
  local.local = pods({1});
  Frontend local_none = local;
  local_none.addr = {};
  local_none.port = 30081;
  local_none.local = {};
  Frontend local_nowhere = local;
  local_nowhere.addr = ip("203.0.113.2");
  local_nowhere.targets = local_nowhere.local = {};
  Frontend limited = vip("203.0.113.3", pods({1}));
  limited.reach = Reach::kExternal;
  limited.limited = true;
  limited.sources = {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("198.51.100.1/32")};
  Frontend nobody{.addr = ip("2001:db8:1::3"),
                  .family = AF_INET6,
                  .protocol = IPPROTO_TCP,
                  .port = 80,
                  .targets = {{ip("fd00:10::1"), 8080}},
                  .limited = true};
  const Frontend weighted = vip("10.96.0.5", pods({1, 1, 2}));
  Frontend udp = vip("10.96.0.53", pods({1}));
  udp.protocol = IPPROTO_UDP;
  udp.port = 53;
  Frontend six{.addr = ip("fd00:96::1"),
               .family = AF_INET6,
               .protocol = IPPROTO_SCTP,
               .port = 80,
               .affinity_seconds = 60,
               .targets = {{ip("fd00:10::1"), 8080}}};
  Frontend six_port = six;
  six_port.addr = {};
  six_port.reach = Reach::kExternal;
  six_port.port = 30082;
  apply(state({{.key = "d/a",
                .frontends = {vip("10.96.0.1", pods({1, 2, 3})), node_port},
                .cluster_ips = {ip("10.96.0.1"), ip("fd00:96::9")},
                .local_addrs = {pod(1).addr}},
               {.key = "d/e", .frontends = {limited, nobody, weighted}, .cluster_ips = {ip("10.96.0.5")}},
               {.key = "d/b", .frontends = {affinity, vip("10.96.0.3", {}), drop}},
               {.key = "d/c", .frontends = {local, local_none, local_nowhere}, .local_addrs = {pod(1).addr}},
               {.key = "d/d", .frontends = {udp, six, six_port}, .local_addrs = {ip("fd00:10::1")}}}));
  hawser::testing::expect_golden("proxyd/nft/testdata/every_kind.txt", list());
}

TEST_F(NftBackendTest, OneEndpointIsOneElement) {
  apply(state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2, 3}))}},
               {.key = "d/b", .frontends = {vip("10.96.0.2", pods({4}))}}}));
  // Replaced: its slot is written, the others stay.
  EXPECT_EQ(apply(state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 3, 9}))}},
                         {.key = "d/b", .frontends = {vip("10.96.0.2", pods({4}))}}})),
            2u);
  EXPECT_THAT(lines(list(), "element 10.96.0.1 . tcp . 80 . 0x"),
              ElementsAre("element 10.96.0.1 . tcp . 80 . 0x00000000 : 10.244.1.1 . 8080",
                          "element 10.96.0.1 . tcp . 80 . 0x00000001 : 10.244.1.9 . 8080",
                          "element 10.96.0.1 . tcp . 80 . 0x00000002 : 10.244.1.3 . 8080"));
  // Nothing changed: nothing is sent.
  const int before = fake_.applied();
  const auto same = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 3, 9}))}},
                           {.key = "d/b", .frontends = {vip("10.96.0.2", pods({4}))}}});
  EXPECT_EQ(apply(same), 0u);
  EXPECT_EQ(apply(same), 0u);
  EXPECT_EQ(fake_.applied(), before);
}

TEST(AssignSlots, KeepsThoseThatStay) {
  struct Case {
    std::vector<int> have, want, slots;
  };
  const Case cases[] = {
      {{}, {1, 2}, {1, 2}},
      {{1, 2, 3}, {1, 3}, {1, 3}},  // the last moves into the hole
      {{1, 2, 3}, {2, 3}, {3, 2}},
      {{1, 2}, {1, 2, 3}, {1, 2, 3}},
      {{2, 1}, {1, 2}, {2, 1}},  // order is the kernel's
      {{1, 2, 3}, {}, {}},
      {{1, 2}, {3, 4}, {3, 4}},
      {{1, 2}, {1, 1, 2}, {1, 2, 1}},
      {{1, 2, 1}, {1, 1, 2}, {1, 2, 1}},
      {{1, 1, 2}, {1, 2}, {1, 2}},  // weights
  };
  for (const Case& c : cases) EXPECT_EQ(assign_slots(pods(c.have), pods(c.want)), pods(c.slots));
}

TEST_F(NftBackendTest, RestartChangesNothing) {
  Frontend affinity = vip("10.96.0.2", pods({1, 2}));
  affinity.affinity_seconds = 600;
  const auto s =
      state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2})), affinity}, .local_addrs = {pod(1).addr}}});
  apply(s);
  const int before = fake_.applied();
  NftBackend again(fake_, kOptions);
  auto r = again.apply(s);
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->full);
  EXPECT_EQ(r->changes, 0u);
  EXPECT_EQ(fake_.applied(), before);
}

TEST_F(NftBackendTest, RestartWithOtherRangesRewritesOnlyWhatNamesThem) {
  const auto s = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2}))}}});
  apply(s);
  NftBackend again(fake_, {{*Cidr::parse("10.200.0.0/16")}});
  ASSERT_TRUE(again.apply(s));
  EXPECT_THAT(lines(list(), "element 10.2"), ElementsAre("element 10.200.0.0", "element 10.201.0.0 interval-end"));
  NftBackend third(fake_, {{*Cidr::parse("10.200.0.0/16")}});
  EXPECT_EQ(third.apply(s)->changes, 0u);
}

TEST_F(NftBackendTest, AFailedTransactionIsTriedAgainFromWhatIsThere) {
  const auto one = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1}))}}});
  const auto two = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2}))}}});
  fake_.fail_next({EBUSY, "busy", {}});
  EXPECT_FALSE(backend_.apply(one));
  EXPECT_EQ(list(), "");
  apply(one);
  const std::string before = list();
  fake_.fail_next({EBUSY, "busy", {}});
  EXPECT_FALSE(backend_.apply(two));
  EXPECT_EQ(list(), before);
  auto r = backend_.apply(two);
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->full);
  EXPECT_THAT(list(), HasSubstr("10.96.0.1 . tcp . 80 : jump ip-internal-2"));
}

TEST_F(NftBackendTest, RepairsStrangeThings) {
  const auto s = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2}))}}});
  apply(s);
  const std::string want = list();
  nft::Transaction t(kTableFamily, kTable);
  t.add(nft::Chain{"strange", {}});
  t.add(nft::Chain{"strange2", {}});
  t.add(nft::RuleBuilder("strange").verdict({nft::Verdict::Kind::kJump, "strange2"}).build());
  t.add(nft::RuleBuilder("services").verdict({nft::Verdict::Kind::kDrop, {}}).build());
  t.add(nft::Set{.name = "other", .key = {nft::DataType::kMark}});
  nft::Bytes key;
  key.field(nft::Bytes::ip(ip("10.96.0.9"))).field(nft::Bytes::u8(6)).field(nft::Bytes::be16(9));
  t.add_element("services4", {.key = key, .data = nft::Verdict{nft::Verdict::Kind::kJump, "strange"}});
  ASSERT_TRUE(fake_.apply(t));
  backend_.invalidate();
  EXPECT_GT(apply(s), 0u);
  EXPECT_EQ(list(), want);
}

TEST_F(NftBackendTest, ATableOfAnotherLayoutIsMadeAnewInOneStep) {
  nft::Transaction t(kTableFamily, kTable);
  t.add_table();
  t.add(nft::Set{.name = "services4", .key = {nft::DataType::kIpv4Addr}});
  t.add(fixed_chains().front());
  t.add(nft::RuleBuilder(fixed_chains().front().name).verdict({nft::Verdict::Kind::kAccept, {}}).build());
  ASSERT_TRUE(fake_.apply(t));
  const int before = fake_.applied();
  apply(state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2}))}}}));
  EXPECT_EQ(fake_.applied(), before + 1);
  EXPECT_THAT(list(), HasSubstr("10.96.0.1 . tcp . 80 : jump ip-internal-2"));
}

TEST_F(NftBackendTest, ATableThatNoPacketSeesIsFilledFirst) {
  Found f;
  const auto s = state({{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1, 2}))}}});
  const Steps steps = plan_full(f, all_wants(*s), kOptions);
  EXPECT_TRUE(steps.unseen);
  EXPECT_THAT(steps.prepare.text(), HasSubstr("add element services4"));
  EXPECT_THAT(steps.prepare.text(), Not(HasSubstr("rule prerouting")));
  EXPECT_THAT(steps.main.text(), HasSubstr("add rule prerouting"));
  EXPECT_THAT(steps.main.text(), Not(HasSubstr("element ")));
}

TEST_F(NftBackendTest, ManyServicesComeAndGoInParts) {
  std::vector<ServiceState> many;
  for (int i = 0; i < 3000; ++i) {
    many.push_back({.key = fmt::format("d/{:04}", i),
                    .frontends = {vip(fmt::format("10.96.{}.{}", 1 + i / 200, 1 + i % 200), pods({1, 2, 3}))}});
  }
  const auto finds_nothing_to_do = [&](const std::vector<ServiceState>& services) {
    auto r = NftBackend(fake_, kOptions).apply(state(services));
    return r && r->changes == 0;
  };
  apply(state(many));
  EXPECT_EQ(fake_.applied(), 3) << "two parts, then the rules of base chains";
  EXPECT_TRUE(finds_nothing_to_do(many));
  apply(state({}));
  EXPECT_EQ(fake_.applied(), 5);
  apply(state(many));
  EXPECT_TRUE(finds_nothing_to_do(many));
}

TEST_F(NftBackendTest, TheFirstByNameHasAContestedAddress) {
  const ServiceState a{.key = "d/a", .frontends = {vip("203.0.113.1", pods({1}))}};
  const ServiceState b{.key = "d/b", .frontends = {vip("203.0.113.1", pods({2}))}};
  const auto target = [&] { return lines(list(), "element 203.0.113.1 . tcp . 80 . 0x").at(0); };
  apply(state({b}));
  EXPECT_THAT(target(), HasSubstr("10.244.1.2"));
  apply(state({a, b}));
  EXPECT_THAT(target(), HasSubstr("10.244.1.1"));
  apply(state({b}));
  EXPECT_THAT(target(), HasSubstr("10.244.1.2"));
}

TEST_F(NftBackendTest, CleanupTwice) {
  apply(state({}));
  EXPECT_TRUE(backend_.cleanup());
  EXPECT_EQ(list(), "");
  EXPECT_TRUE(backend_.cleanup());
}

std::string listing(const LayoutOptions& o, const std::vector<ServiceState>& services) {
  nft::FakeNft fake;
  NftBackend b(fake, o);
  auto r = b.apply(state(services));
  EXPECT_TRUE(r) << r.error().text;
  return fake.list(kTableFamily, kTable);
}

TEST(Layout, HowPodsAreTold) {
  Frontend local = vip("203.0.113.1", pods({1}));
  local.reach = Reach::kExternalLocal;
  local.local = pods({1});
  const std::vector<ServiceState> s = {{.key = "d/a", .frontends = {vip("10.96.0.1", pods({1})), local}}};
  struct Case {
    LayoutOptions options;
    std::vector<const char*> rules, none;
  };
  const char* const kMark = "meta mark set meta mark | 0x00004000";
  const std::string by_bridge = fmt::format("iifname != \"cni0\" {}", kMark);
  const std::string by_prefix = fmt::format("iifname != \"veth*\" {}", kMark);
  const Case cases[] = {
      {{.detect_local = DetectLocal::kBridgeInterface, .local_interface = "cni0"},
       {by_bridge.c_str(), "\t\tiifname \"cni0\" return\n", "ct state invalid iifname \"cni0\" counter drop"},
       {"saddr @pods", "saddr != @pods"}},
      {{.detect_local = DetectLocal::kInterfacePrefix, .local_interface = "veth"},
       {by_prefix.c_str(), "\t\tiifname \"veth*\" return\n"},
       {"saddr @pods", "saddr != @pods"}},
      {{.detect_local = DetectLocal::kNone},
       {"fib saddr type local meta mark set"},
       {"iifname", "saddr @pods", "!= @"}},
      {{.masquerade_all = true}, {"\t\tmeta mark set meta mark | 0x00004000\n"}, {"!= @pods"}},
      // The remember mark gives way to a masquerade bit that is the same.
      {{.masquerade_mark = 0x2000},
       {"meta mark & 0x00002000 == 0x00002000 meta mark set", "0x00004000 jump remember"},
       {}},
  };
  for (const Case& c : cases) {
    const std::string l = listing(c.options, s);
    for (const char* x : c.rules) EXPECT_THAT(l, HasSubstr(x));
    for (const char* x : c.none) EXPECT_THAT(l, Not(HasSubstr(x)));
  }
}

TEST(Layout, NodePortAddressesEchoAndServiceRanges) {
  const std::string l = listing({.node_port_addresses = {*Cidr::parse("192.0.2.11/32"), *Cidr::parse("192.0.2.0/24")},
                                 .icmp_echo = true,
                                 .service_cidrs = {*Cidr::parse("10.96.0.0/16")}},
                                {});
  EXPECT_THAT(l, HasSubstr("\t\tip daddr @node-port-addresses4 fib daddr type local jump node-ports\n"
                           "\t\tmeta nfproto ipv6 fib daddr type local jump node-ports\n"));
  EXPECT_THAT(lines(l, "element 192."), ElementsAre("element 192.0.2.0", "element 192.0.3.0 interval-end"));
  EXPECT_THAT(l, HasSubstr("icmp type echo-request ip daddr @cluster-ips4 redirect\n"));
  EXPECT_THAT(l, HasSubstr("icmpv6 type echo-request ip6 daddr @cluster-ips6 redirect\n"));
  EXPECT_THAT(l, HasSubstr("ip daddr @service-ranges4 drop\n"));
  EXPECT_THAT(l, Not(HasSubstr("@service-ranges6 drop")));
}

// Any way to a state leaves the elements that a fresh start finds right.
TEST(NftBackend, RandomChangesEqualAFreshStart) {
  std::mt19937 random(20261121);
  const auto roll = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  nft::FakeNft fake;
  NftBackend backend(fake, kOptions);
  std::vector<ServiceStatePtr> services(12);
  for (int step = 0; step < 400; ++step) {
    const int i = roll(static_cast<int>(services.size()));
    ServiceState s{.key = fmt::format("d/{:02}", i)};
    for (int f = roll(3); f >= 0; --f) {
      std::vector<int> numbers;
      for (int n = 1; n < 9; ++n) {
        if (roll(2) == 0) numbers.push_back(n);
      }
      // Addresses of 15 for 12 Services of up to 3: some are contested.
      Frontend x = vip(fmt::format("10.96.0.{}", roll(15)), pods(numbers));
      if (roll(4) == 0) x.addr = {};
      if (roll(3) == 0) x.affinity_seconds = static_cast<std::uint32_t>(60 * (1 + roll(2)));
      x.reach = static_cast<Reach>(roll(3));
      if (roll(3) == 0) x.targets.insert(x.targets.end(), static_cast<std::size_t>(roll(3)), pod(9));
      if (!x.is_node_port() && roll(3) == 0) {
        x.limited = true;
        for (int n = 0; n < 4; ++n) {
          if (roll(2) == 0) x.sources.emplace_back(ip(fmt::format("192.0.{}.0", 16 * n)), 20 + roll(5));
        }
      }
      if (!x.is_node_port() && roll(2) == 0) s.cluster_ips.push_back(x.addr);
      if (x.reach == Reach::kExternalLocal && !numbers.empty() && roll(2) == 0) x.local = pods({numbers[0]});
      s.frontends.push_back(x);
      if (!numbers.empty()) s.local_addrs.push_back(pod(numbers[0]).addr);
    }
    std::ranges::sort(s.cluster_ips);
    s.cluster_ips.erase(std::ranges::unique(s.cluster_ips).begin(), s.cluster_ips.end());
    std::ranges::sort(s.local_addrs);
    s.local_addrs.erase(std::ranges::unique(s.local_addrs).begin(), s.local_addrs.end());
    services[static_cast<std::size_t>(i)] = roll(4) == 0 ? nullptr : std::make_shared<const ServiceState>(s);
    auto d = std::make_shared<DesiredState>();
    std::vector<ServiceStatePtr> there;
    std::ranges::copy_if(services, std::back_inserter(there), [](const auto& p) { return p != nullptr; });
    d->services = ServiceList(std::move(there));
    auto r = backend.apply(d);
    ASSERT_TRUE(r) << "step " << step << ": " << r.error().text;
    nft::FakeNft copy = fake;
    NftBackend fresh(copy, kOptions);
    ASSERT_TRUE(fresh.apply(d));
    ASSERT_EQ(lines(copy.list(kTableFamily, kTable), "element"), lines(fake.list(kTableFamily, kTable), "element"))
        << "step " << step;
  }
}

}  // namespace
}  // namespace hawser::proxy
