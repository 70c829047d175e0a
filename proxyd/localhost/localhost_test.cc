// SPDX-License-Identifier: Apache-2.0
#include "proxyd/localhost/localhost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/netlink/rtnl_fake.h"
#include "proxyd/localhost/program.h"

namespace hawser::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

IpAddr ip(std::string_view text) {
  return *IpAddr::parse(text);
}

DesiredStatePtr state(std::uint64_t generation, const std::vector<std::uint16_t>& node_ports) {
  auto s = std::make_shared<ServiceState>();
  s->key = "d/a";
  s->frontends.push_back({.addr = ip("10.96.0.1"), .family = AF_INET, .protocol = IPPROTO_TCP, .port = 80});
  for (const std::uint16_t port : node_ports)
    s->frontends.push_back({.family = AF_INET, .protocol = IPPROTO_TCP, .port = port});
  auto d = std::make_shared<DesiredState>();
  d->generation = generation;
  d->services = {s};
  return d;
}

class LocalhostTest : public ::testing::Test {
 protected:
  LocalhostTest() {
    const int eth = rtnl_.add_hardware("eth0", 1500);
    for (const char* a : {"198.51.100.1/24", "192.0.2.11/24", "2001:db8::11/64", "fe80::1/64"})
      EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {eth, *Cidr::parse(a), false}));
    EXPECT_TRUE(rtnl_.change_address(netlink::Verb::kAdd, {1, *Cidr::parse("127.0.0.1/8"), false}));
  }
  LocalhostNodePorts make(TrafficOptions o = {}) { return {hooks_, rtnl_, std::move(o)}; }

  netlink::FakeRtnl rtnl_;
  FakeHooks hooks_;
  const std::vector<IpAddr> node_{ip("203.0.113.9"), ip("198.51.100.1")};  // the first is not on this machine
};

TEST_F(LocalhostTest, FollowsTheState) {
  auto l = make();
  l.apply(state(1, {30080, 30081}), node_, true);
  EXPECT_TRUE(hooks_.attached);
  EXPECT_THAT(hooks_.there,
              ElementsAre(LoopbackPort{AF_INET, IPPROTO_TCP, 30080}, LoopbackPort{AF_INET, IPPROTO_TCP, 30081}));
  EXPECT_EQ(hooks_.targets, (LoopbackTargets{ip("198.51.100.1"), ip("2001:db8::11")}));
  EXPECT_EQ(l.status(), "serving 2 ports by 198.51.100.1 and 2001:db8::11");
  const auto second = state(2, {30081});
  l.apply(second, node_, false);
  EXPECT_THAT(hooks_.there, ElementsAre(LoopbackPort{AF_INET, IPPROTO_TCP, 30081}));
  const int writes = hooks_.writes;
  l.apply(second, node_, true);
  EXPECT_EQ(hooks_.writes, writes) << "what is right is not written again";
  l.apply(second, {ip("192.0.2.11")}, false);
  EXPECT_EQ(hooks_.targets.v4, ip("192.0.2.11"));
}

TEST_F(LocalhostTest, TakesOverWhatAnEarlierProcessLeft) {
  hooks_.there = {{AF_INET, IPPROTO_TCP, 30080}, {AF_INET6, IPPROTO_UDP, 30099}};
  auto l = make();
  l.apply(state(1, {30080}), node_, true);
  EXPECT_THAT(hooks_.there, ElementsAre(LoopbackPort{AF_INET, IPPROTO_TCP, 30080}));
  EXPECT_EQ(hooks_.writes, 2) << "the port that went, and the addresses";
}

TEST_F(LocalhostTest, PutsRightWhatOthersTookAway) {
  auto l = make();
  const auto s = state(1, {30080});
  l.apply(s, node_, true);
  hooks_.attached = false;
  hooks_.there = {{AF_INET, IPPROTO_TCP, 30099}};
  l.apply(s, node_, false);
  EXPECT_FALSE(hooks_.attached) << "nothing to do, so nothing is looked at";
  l.apply(s, node_, true);
  EXPECT_TRUE(hooks_.attached);
  EXPECT_THAT(hooks_.there, ElementsAre(LoopbackPort{AF_INET, IPPROTO_TCP, 30080}));
}

TEST_F(LocalhostTest, WithoutAnAddressNothingIsAttached) {
  auto l = make({.node_port_addresses = {*Cidr::parse("127.0.0.0/8"), *Cidr::parse("::1/128")}});
  hooks_.attached = true;
  l.apply(state(1, {30080}), node_, true);
  EXPECT_FALSE(hooks_.attached);
  EXPECT_THAT(l.status(), HasSubstr("not served"));
}

TEST_F(LocalhostTest, AKernelThatCannotIsAskedAgainLater) {
  hooks_.fail = EPERM;
  auto l = make();
  l.apply(state(1, {30080}), node_, true);
  EXPECT_THAT(l.status(), HasSubstr("not served: made to fail"));
  hooks_.fail = 0;
  l.apply(state(2, {30080}), node_, false);
  EXPECT_THAT(l.status(), HasSubstr("not served")) << "not with each change";
  l.apply(state(3, {30080}), node_, true);
  EXPECT_THAT(l.status(), HasSubstr("serving 1 ports"));
}

TEST(LoopbackTargets, Table) {
  struct Case {
    int line;
    const char* name;
    std::vector<const char*> node_port_addresses;
    const char *v4, *v6;  // "": none
  };
  const Case cases[] = {
      {__LINE__, "all addresses", {}, "192.0.2.11", "2001:db8::11"},
      {__LINE__, "with loopback", {"127.0.0.0/8", "198.51.100.0/24"}, "198.51.100.1", "2001:db8::11"},
      {__LINE__, "without loopback of IPv4", {"192.0.2.0/24"}, "", "2001:db8::11"},
      {__LINE__, "without loopback of IPv6", {"2001:db8::/32"}, "192.0.2.11", ""},
      {__LINE__, "loopback alone", {"127.0.0.0/8", "::1/128"}, "", ""},
      {__LINE__, "everything", {"0.0.0.0/0", "::/0"}, "192.0.2.11", "2001:db8::11"},
  };
  for (const auto& c : cases) {
    TrafficOptions o;
    for (const char* r : c.node_port_addresses) o.node_port_addresses.push_back(*Cidr::parse(r));
    const auto t = loopback_targets(
        {ip("198.51.100.1"), ip("192.0.2.11"), ip("127.0.0.1"), ip("::1"), ip("fe80::1"), ip("2001:db8::11")},
        {ip("192.0.2.11")}, o);
    EXPECT_EQ(t.v4 ? t.v4.text() : "", c.v4) << c.line << ": " << c.name;
    EXPECT_EQ(t.v6 ? t.v6.text() : "", c.v6) << c.line << ": " << c.name;
  }
}

// The kernel's verifier judges the rest.
TEST(HookProgram, JumpsStayInside) {
  for (const HookKind& kind : hook_kinds()) {
    const auto code = hook_program(kind, {3, 4, 5});
    ASSERT_FALSE(code.empty());
    EXPECT_EQ(code.back().code, BPF_JMP | BPF_EXIT);
    for (std::size_t i = 0; i < code.size(); ++i) {
      const auto type = BPF_CLASS(code[i].code);
      const bool jump = (type == BPF_JMP || type == BPF_JMP32) && BPF_OP(code[i].code) != BPF_CALL &&
                        BPF_OP(code[i].code) != BPF_EXIT;
      if (!jump) continue;
      EXPECT_GE(code[i].off, 0) << "no loops";
      EXPECT_LT(i + 1 + static_cast<std::size_t>(code[i].off), code.size());
    }
  }
}

}  // namespace
}  // namespace hawser::proxy
