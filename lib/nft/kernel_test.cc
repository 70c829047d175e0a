// SPDX-License-Identifier: Apache-2.0
// lib/nft against the kernel, with the `nft` tool as the oracle. Needs root; each test has its own network namespace.
#include <condition_variable>
#include <cstdio>
#include <mutex>

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "lib/nft/fake_nft.h"
#include "lib/nft/kernel_nft.h"
#include "lib/nft/monitor.h"
#include "lib/nft/rule.h"
#include "lib/nft/text.h"
#include "lib/testing/netns_fixture.h"

namespace hawser::nft {
namespace {

constexpr const char* kTable = "hawser-test";

std::string run(const std::string& command) {
  std::string out;
  FILE* p = ::popen((command + " 2>&1").c_str(), "r");
  if (p == nullptr) return "popen failed";
  char buf[4096];
  for (std::size_t n = 0; (n = ::fread(buf, 1, sizeof buf, p)) > 0;) out.append(buf, n);
  ::pclose(p);
  return out;
}

class KernelNftTest : public hawser::testing::NetNsTest {
 protected:
  void SetUp() override {
    NetNsTest::SetUp();
    if (IsSkipped()) return;
    auto k = KernelNft::open();
    ASSERT_TRUE(k) << k.error().text;
    kernel_ = std::move(*k);
  }
  std::unique_ptr<KernelNft> kernel_;
};

Set eps_map() {
  return {.name = "eps4",
          .key = {DataType::kIpv4Addr, DataType::kInetProto, DataType::kInetService, DataType::kMark},
          .data = {DataType::kIpv4Addr, DataType::kInetService}};
}
Set services_map() {
  return {.name = "services4",
          .key = {DataType::kIpv4Addr, DataType::kInetProto, DataType::kInetService},
          .verdict_map = true};
}
Set affinity_map() {
  return {.name = "affinity4",
          .key = {DataType::kIpv4Addr, DataType::kIpv4Addr, DataType::kInetProto, DataType::kInetService},
          .data = {DataType::kIpv4Addr, DataType::kInetService},
          .timeout = true,
          .dynamic = true,
          .size = 65535};
}
Set pods_set() {
  return {.name = "pods4", .key = {DataType::kIpv4Addr}, .interval = true};
}

// Concatenations with a range in their last field.
Set sources_set() {
  return {.name = "sources4",
          .key = {DataType::kIpv4Addr, DataType::kInetProto, DataType::kInetService, DataType::kIpv4Addr},
          .interval = true};
}

Bytes vip(const char* ip, std::uint8_t proto, std::uint16_t port) {
  Bytes b;
  b.field(Bytes::ip(*IpAddr::parse(ip))).field(Bytes::u8(proto)).field(Bytes::be16(port));
  return b;
}

const std::vector<Field> kVip = {ip_daddr(AF_INET), meta_l4proto(), th_dport()};

// One rule of each statement that the builder knows.
std::vector<Rule> every_rule() {
  auto eps_key = kVip;
  eps_key.push_back(numgen_random(3));
  const std::vector<Field> aff_key = {ip_saddr(AF_INET), ip_daddr(AF_INET), meta_l4proto(), th_dport()};
  std::vector<Rule> r;
  r.push_back(RuleBuilder("prerouting").vmap(kVip, "services4").comment("a comment").build());
  r.push_back(RuleBuilder("prerouting").match_fib_daddr_local().verdict({Verdict::Kind::kJump, "pick"}).build());
  r.push_back(RuleBuilder("pick").match_set({ip_saddr(AF_INET)}, "pods4", Op::kNeq).set_mark_bits(0x4000).build());
  r.push_back(RuleBuilder("postrouting")
                  .update_map({ip_saddr(AF_INET), ct_original_daddr(AF_INET), meta_l4proto(), ct_original_proto_dst()},
                              "affinity4", 10800000, {ip_daddr(AF_INET), th_dport()})
                  .build());
  r.push_back(RuleBuilder("pick").dnat_map(AF_INET, aff_key, "affinity4").build());
  r.push_back(RuleBuilder("pick").dnat_map(AF_INET, eps_key, "eps4").build());
  r.push_back(RuleBuilder("pick").match_set({ip_saddr(AF_INET)}, "pods4").counter().build());
  r.push_back(RuleBuilder("pick").reject_tcp_reset().build());
  r.push_back(RuleBuilder("pick").reject_port_unreachable().build());
  r.push_back(RuleBuilder("postrouting").match_mark(0x4000, Op::kEq).clear_mark_bits(0x4000).masquerade(true).build());
  r.push_back(RuleBuilder("postrouting")
                  .match_cidr(ip_saddr(AF_INET), Op::kEq, *Cidr::parse("10.244.0.0/16"))
                  .match_cidr(ip_daddr(AF_INET), Op::kNeq, *Cidr::parse("10.244.0.0/16"))
                  .match_oifname("lo", Op::kNeq)
                  .masquerade(false)
                  .build());
  r.push_back(RuleBuilder("postrouting")
                  .match_cidr(ip_saddr(AF_INET6), Op::kEq, *Cidr::parse("fd00:10::/37"))
                  .counter()
                  .build());
  r.push_back(RuleBuilder("postrouting").match_ct_status_dnat().verdict({Verdict::Kind::kReturn, ""}).build());
  r.push_back(RuleBuilder("postrouting").match_nfproto(AF_INET).snat(*IpAddr::parse("192.0.2.1")).build());
  r.push_back(
      RuleBuilder("forward").match_ct_state(kCtInvalid, Op::kEq).counter().verdict({Verdict::Kind::kDrop, ""}).build());
  r.push_back(RuleBuilder("pick").match_iifname("cni0", Op::kNeq).set_mark_bits(0x4000).build());
  r.push_back(RuleBuilder("pick").match_iifname("veth*", Op::kEq).verdict({Verdict::Kind::kReturn, ""}).build());
  r.push_back(RuleBuilder("pick")
                  .match_set({ip_daddr(AF_INET), meta_l4proto(), th_dport(), ip_saddr(AF_INET)}, "sources4")
                  .verdict({Verdict::Kind::kReturn, ""})
                  .build());
  r.push_back(RuleBuilder("pick")
                  .match_nfproto(AF_INET)
                  .match_l4proto(17)
                  .match_fib_saddr_local()
                  .dnat(IpAddr::v4(0x7f000001), 1)
                  .build());
  r.push_back(RuleBuilder("pick").match_nfproto(AF_INET6).dnat(*IpAddr::parse("::1"), 1).build());
  r.push_back(RuleBuilder("pick").match_echo_request(AF_INET).redirect().build());
  r.push_back(RuleBuilder("pick").match_echo_request(AF_INET6).redirect().build());
  r.push_back(RuleBuilder("forward").limit_per_second(5, 10).verdict({Verdict::Kind::kAccept, ""}).build());
  return r;
}

Transaction every_object() {
  using Hook = BaseHook::Hook;
  Transaction t(Family::kInet, kTable);
  t.add_table("made by a test");
  t.add(Chain{"prerouting", BaseHook{"nat", Hook::kPrerouting, -100}});
  t.add(Chain{"postrouting", BaseHook{"nat", Hook::kPostrouting, 99}});
  t.add(Chain{"forward", BaseHook{"filter", Hook::kForward, 0}});
  t.add(Chain{"pick", {}});
  for (const Set& s : {eps_map(), services_map(), affinity_map(), pods_set(), sources_set()}) t.add(s);
  for (Rule& r : every_rule()) t.add(std::move(r));
  t.add_element("services4", {.key = vip("10.96.0.10", 17, 53), .data = Verdict{Verdict::Kind::kGoto, "pick"}});
  for (const Element& e : interval_elements(*Cidr::parse("10.244.0.0/16"))) t.add_element("pods4", e);
  Element range{.key = vip("10.96.0.10", 17, 53), .data = RangeEnd{vip("10.96.0.10", 17, 53)}};
  range.key.field(Bytes::ip(*IpAddr::parse("198.51.100.0")));
  std::get<RangeEnd>(range.data).key.field(Bytes::ip(*IpAddr::parse("198.51.100.255")));
  t.add_element("sources4", range);
  Bytes slot = vip("10.96.0.10", 17, 53);
  slot.field(Bytes::host32(2));
  Bytes to;
  to.field(Bytes::ip(*IpAddr::parse("10.244.1.5"))).field(Bytes::be16(53));
  t.add_element("eps4", {.key = slot, .data = to});
  return t;
}

TEST_F(KernelNftTest, EveryStatementIsListedAsItsText) {
  const auto r = kernel_->apply(every_object());
  ASSERT_TRUE(r) << r.error().text;
  const std::string listed = run(std::string("nft -s list table inet ") + kTable);
  for (const Rule& rule : every_rule()) {
    EXPECT_NE(listed.find("\t" + rule_text(rule) + "\n"), std::string::npos) << rule_text(rule) << "\nnot in\n"
                                                                             << listed;
  }
  EXPECT_NE(listed.find("10.96.0.10 . udp . 53 : goto pick"), std::string::npos) << listed;
  EXPECT_NE(listed.find("10.96.0.10 . udp . 53 . 0x00000002 : 10.244.1.5 . 53"), std::string::npos) << listed;
  EXPECT_NE(listed.find("10.96.0.10 . udp . 53 . 198.51.100.0/24"), std::string::npos) << listed;
  EXPECT_NE(listed.find("10.244.0.0/16"), std::string::npos) << listed;
  EXPECT_NE(listed.find("comment \"made by a test\""), std::string::npos) << listed;
}

TEST_F(KernelNftTest, ReadsBackWhatTheModelReadsBack) {
  const Transaction t = every_object();
  FakeNft fake;
  ASSERT_TRUE(fake.apply(t));
  ASSERT_TRUE(kernel_->apply(t));
  const auto got = kernel_->read_table(Family::kInet, kTable);
  const auto want = fake.read_table(Family::kInet, kTable);
  ASSERT_TRUE(got) << got.error().text;
  ASSERT_TRUE(got->exists);
  ASSERT_EQ(got->chains.size(), want->chains.size());
  for (const auto& [name, c] : want->chains) {
    ASSERT_TRUE(got->chains.contains(name));
    const ChainState& k = got->chains.at(name);
    EXPECT_EQ(k.spec, c.spec) << name;
    ASSERT_EQ(k.rules.size(), c.rules.size()) << name;
    for (std::size_t i = 0; i < c.rules.size(); ++i) {
      EXPECT_EQ(k.rules[i].fingerprint, c.rules[i].fingerprint);
      EXPECT_EQ(k.rules[i].comment, c.rules[i].comment);
    }
  }
  ASSERT_EQ(got->sets.size(), want->sets.size());
  for (const auto& [name, s] : want->sets) {
    EXPECT_TRUE(got->sets.at(name).spec.compatible(s.spec)) << name;
    std::vector<std::string> a, b;
    ASSERT_TRUE(kernel_->read_elements(
        Family::kInet, kTable, s.spec, [&](const Element& e) { a.push_back(element_text(s.spec, e)); },
        [&] { a.clear(); }));
    ASSERT_TRUE(fake.read_elements(
        Family::kInet, kTable, s.spec, [&](const Element& e) { b.push_back(element_text(s.spec, e)); },
        [&] { b.clear(); }));
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    EXPECT_EQ(a, b) << name;
  }
}

TEST_F(KernelNftTest, ChangesElementsInOneTransaction) {
  ASSERT_TRUE(kernel_->apply(every_object()));
  Transaction t(Family::kInet, kTable);
  const Bytes key = vip("10.96.0.10", 17, 53);
  t.delete_element("services4", key);
  t.add_element("services4", {.key = key, .data = Verdict{Verdict::Kind::kDrop, ""}});
  const auto r = kernel_->apply(t);
  ASSERT_TRUE(r) << r.error().text;
  std::vector<Element> got;
  ASSERT_TRUE(kernel_->read_elements(
      Family::kInet, kTable, services_map(), [&](const Element& e) { got.push_back(e); }, [&] { got.clear(); }));
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(std::get<Verdict>(got[0].data).kind, Verdict::Kind::kDrop);
}

TEST_F(KernelNftTest, FailureNamesTheStepAndChangesNothing) {
  ASSERT_TRUE(kernel_->apply(every_object()));
  Transaction t(Family::kInet, kTable);
  t.flush_set("services4");
  t.delete_chain("pick");  // still has rules
  const auto r = kernel_->apply(t);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, EBUSY);
  EXPECT_NE(r.error().text.find("delete chain pick"), std::string::npos) << r.error().text;
  int n = 0;
  ASSERT_TRUE(kernel_->read_elements(
      Family::kInet, kTable, services_map(), [&](const Element&) { ++n; }, [&] { n = 0; }));
  EXPECT_EQ(n, 1);
}

TEST_F(KernelNftTest, CarriesAHundredThousandElements) {
  ASSERT_TRUE(kernel_->apply(every_object()));
  Transaction t(Family::kInet, kTable);
  constexpr int kCount = 100000;
  const IpAddr base = *IpAddr::parse("10.100.0.0");
  for (int i = 0; i < kCount; ++i) {
    Bytes key;
    key.field(Bytes::ip(base.plus(static_cast<std::uint64_t>(i)))).field(Bytes::u8(6)).field(Bytes::be16(80));
    t.add_element("services4", {.key = key, .data = Verdict{Verdict::Kind::kGoto, "pick"}});
  }
  const auto r = kernel_->apply(t);
  ASSERT_TRUE(r) << r.error().text;
  int n = 0;
  ASSERT_TRUE(kernel_->read_elements(
      Family::kInet, kTable, services_map(), [&](const Element&) { ++n; }, [&] { n = 0; }));
  EXPECT_EQ(n, kCount + 1);
}

TEST_F(KernelNftTest, AbsentTableReadsAsAbsent) {
  const auto got = kernel_->read_table(Family::kInet, "no-such-table");
  ASSERT_TRUE(got) << got.error().text;
  EXPECT_FALSE(got->exists);
}

TEST_F(KernelNftTest, GenerationMovesWithEachTransaction) {
  const auto before = kernel_->generation();
  ASSERT_TRUE(before) << before.error().text;
  ASSERT_TRUE(kernel_->apply(every_object()));
  EXPECT_GT(*kernel_->generation(), *before);
}

TEST_F(KernelNftTest, MonitorReportsOthersAndNotUs) {
  std::mutex mu;
  std::condition_variable cv;
  int changes = 0;
  auto m = NftMonitor::start(kTable, kernel_->port_id(), [&] {
    std::lock_guard l(mu);
    ++changes;
    cv.notify_all();
  });
  ASSERT_TRUE(m) << m.error().text;
  ASSERT_TRUE(kernel_->apply(every_object()));
  EXPECT_EQ(run("nft add table inet other"), "");
  EXPECT_EQ(run(std::string("nft delete table inet ") + kTable), "");
  std::unique_lock l(mu);
  ASSERT_TRUE(cv.wait_for(l, std::chrono::seconds(10), [&] { return changes > 0; }));
  EXPECT_EQ(changes, 1);
}

}  // namespace
}  // namespace hawser::nft
