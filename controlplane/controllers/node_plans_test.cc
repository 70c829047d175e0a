// SPDX-License-Identifier: Apache-2.0
#include <set>

#include <gtest/gtest.h>

#include "controlplane/controllers/cidr_pool.h"
#include "controlplane/controllers/controllers_testing.h"
#include "controlplane/controllers/node_lifecycle_plan.h"

namespace hawser::controllers {
namespace {

using namespace std::chrono_literals;

Cidr cidr(std::string_view s) {
  return Cidr::parse(s).value_or(Cidr());
}
CidrPool pool(std::string_view range, int mask) {
  auto p = CidrPool::make(cidr(range), mask);
  EXPECT_TRUE(p) << p.error().text;
  return std::move(*p);
}
std::string allocate(CidrPool& p, const std::string& node) {
  const auto c = p.allocate(node);
  return c ? c->text() : "";
}

TEST(CidrPool, GivesEachBlockOnceAndReusesFreedOnes) {
  CidrPool p = pool("10.244.0.0/22", 24);
  EXPECT_EQ(allocate(p, "a"), "10.244.0.0/24");
  EXPECT_EQ(allocate(p, "b"), "10.244.1.0/24");
  EXPECT_EQ(allocate(p, "a"), "10.244.0.0/24") << "the same again";
  EXPECT_EQ(allocate(p, "c"), "10.244.2.0/24");
  p.release("b");
  EXPECT_EQ(allocate(p, "d"), "10.244.3.0/24") << "a freed block rests";
  EXPECT_EQ(allocate(p, "e"), "10.244.1.0/24");
  EXPECT_EQ(allocate(p, "f"), "") << "full";
  p.release("c");
  EXPECT_EQ(allocate(p, "f"), "10.244.2.0/24");
}

TEST(CidrPool, AdoptsWhatNodesHave) {
  CidrPool p = pool("10.244.0.0/22", 24);
  EXPECT_TRUE(p.adopt("a", cidr("10.244.1.0/24")));
  EXPECT_TRUE(p.adopt("a", cidr("10.244.1.0/24")));
  EXPECT_TRUE(p.adopt("far", cidr("10.9.0.0/24"))) << "not ours";
  EXPECT_FALSE(p.adopt("b", cidr("10.244.1.0/24")));
  EXPECT_TRUE(p.adopt("wide", cidr("10.244.2.0/23")));
  EXPECT_EQ(p.used(), 3u);
  EXPECT_EQ(allocate(p, "c"), "10.244.0.0/24");
  EXPECT_EQ(allocate(p, "d"), "");
}

TEST(CidrPool, Ipv6AndBadSettings) {
  CidrPool p = pool("fd00:10:244::/56", 64);
  EXPECT_EQ(allocate(p, "a"), "fd00:10:244::/64");
  EXPECT_EQ(allocate(p, "b"), "fd00:10:244:1::/64");
  EXPECT_TRUE(p.adopt("c", cidr("fd00:10:244:2::/64")));
  EXPECT_EQ(allocate(p, "d"), "fd00:10:244:3::/64");
  EXPECT_FALSE(CidrPool::make(cidr("10.0.0.0/16"), 8));
  EXPECT_FALSE(CidrPool::make(cidr("10.0.0.0/8"), 28));
}

TEST(CidrPool, NoTwoOverlap) {
  CidrPool p = pool("10.0.0.0/16", 26);
  std::set<std::string> seen;
  for (std::size_t i = 0; i < p.capacity(); ++i) EXPECT_TRUE(seen.insert(allocate(p, "n" + std::to_string(i))).second);
  EXPECT_EQ(seen.size(), 1024u);
}

const WallTime kNow = at("2026-01-01T01:00:00Z");

Object node(const std::string& ready, const std::string& taints = "", const std::string& spec = "") {
  return json("{'metadata':{'name':'n'},'spec':{'taints':[" + taints + "]" + spec + "},'status':{'conditions':[" +
              (ready.empty() ? "" : "{'type':'Ready','status':'" + ready + "'}") + "]}}");
}
std::string keys(const Array& taints) {
  std::string out;
  for (const Value& v : taints) {
    const std::string_view key = kube::str(kube::as_obj(v), {"key"});
    out += (out.empty() ? "" : " ") + std::string(key.substr(key.rfind('/') + 1)) + ":" +
           std::string(kube::str(kube::as_obj(v), {"effect"}));
  }
  return out;
}

TEST(NodeLifecyclePlan, Taints) {
  const std::string unreachable =
      "{'key':'node.kubernetes.io/unreachable','effect':'NoSchedule'},{'key':'node.kubernetes.io/"
      "unreachable','effect':'NoExecute','timeAdded':'2026-01-01T00:59:00Z'}";
  struct {
    int line;
    Object node;
    bool evict, lift;
    const char* want;  // "=": nothing to write
  } const cases[] = {
      {__LINE__, node("True"), true, false, "="},
      {__LINE__, node("False"), true, false, "not-ready:NoSchedule not-ready:NoExecute"},
      {__LINE__, node("Unknown"), true, false, "unreachable:NoSchedule unreachable:NoExecute"},
      {__LINE__, node("Unknown"), false, false, "unreachable:NoSchedule"},
      {__LINE__, node(""), true, false, "not-ready:NoSchedule"},
      {__LINE__, node("True", unreachable), true, false, ""},
      {__LINE__, node("Unknown", unreachable), false, false, "="},
      {__LINE__, node("Unknown", unreachable), false, true, "unreachable:NoSchedule"},
      {__LINE__, node("False", unreachable), false, false, "not-ready:NoSchedule not-ready:NoExecute"},
      {__LINE__, node("True", "{'key':'mine','effect':'NoExecute'}"), true, false, "="},
      {__LINE__, node("False", "{'key':'mine','effect':'NoExecute'}"), true, false,
       "mine:NoExecute not-ready:NoSchedule not-ready:NoExecute"},
      {__LINE__, node("True", "", ",'unschedulable':true"), true, false, "unschedulable:NoSchedule"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    const auto got = plan_taints({.node = c.node, .evict = c.evict, .lift = c.lift, .now = kNow});
    EXPECT_EQ(got ? keys(*got) : "=", c.want);
  }
}

TEST(NodeLifecyclePlan, SilentNode) {
  const Object n = node("True");
  const auto status = silent_status(n, kNow);
  ASSERT_TRUE(status);
  Object after = n;
  after["status"] = *status;
  EXPECT_EQ(readiness(after), Readiness::kUnknown);
  EXPECT_EQ(kube::str(*condition(after, "Ready"), {"message"}), "Kubelet stopped posting node status.");
  EXPECT_EQ(kube::str(*condition(after, "DiskPressure"), {"reason"}), "NodeStatusNeverUpdated");
  EXPECT_FALSE(silent_status(after, kNow));
}

TEST(NodeLifecyclePlan, EvictionTime) {
  const Array taints = kube::arr(
      json("{'t':[{'key':'node.kubernetes.io/unreachable','effect':'NoExecute','timeAdded':'2026-01-01T00:59:00Z'}]}"),
      {"t"});
  const Array custom =
      kube::arr(json("{'t':[{'key':'mine','effect':'NoExecute','timeAdded':'2026-01-01T00:59:00Z'}]}"), {"t"});
  const WallTime added = at("2026-01-01T00:59:00Z");
  struct {
    int line;
    const char* tolerations;
    const Array& taints;
    std::optional<WallTime> want;
  } const cases[] = {
      {__LINE__, "", taints, added + 300s},
      {__LINE__,
       "{'key':'node.kubernetes.io/unreachable','operator':'Exists','effect':'NoExecute','tolerationSeconds':30}",
       taints, added + 30s},
      {__LINE__, "{'operator':'Exists'}", taints, std::nullopt},
      {__LINE__, "{'key':'node.kubernetes.io/not-ready','operator':'Exists','tolerationSeconds':1}", taints,
       added + 300s},
      {__LINE__, "{'key':'node.kubernetes.io/unreachable','operator':'Exists','tolerationSeconds':0}", taints, added},
      {__LINE__, "", custom, added},
      {__LINE__, "{'key':'mine','operator':'Exists'}", custom, std::nullopt},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    EXPECT_EQ(eviction_time(json(std::string("{'spec':{'tolerations':[") + c.tolerations + "]}}"), c.taints, kNow),
              c.want);
  }
  EXPECT_EQ(eviction_time(Object(), Array(), kNow), std::nullopt);
}

TEST(NodeLifecyclePlan, Disruption) {
  EXPECT_EQ(disruption(2, 1), Disruption::kNormal);
  EXPECT_EQ(disruption(0, 3), Disruption::kFull);
  EXPECT_EQ(disruption(1, 2), Disruption::kNormal) << "fewer than three";
  EXPECT_EQ(disruption(2, 3), Disruption::kPartial);
  EXPECT_EQ(eviction_interval(Disruption::kNormal, 3), 10s);
  EXPECT_EQ(eviction_interval(Disruption::kPartial, 5), std::nullopt);
  EXPECT_EQ(eviction_interval(Disruption::kPartial, 100), 100s);
  EXPECT_EQ(eviction_interval(Disruption::kFull, 3), std::nullopt);
}

}  // namespace
}  // namespace hawser::controllers
