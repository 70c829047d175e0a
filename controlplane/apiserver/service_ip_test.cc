// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <thread>

#include "controlplane/apiserver/registry_fixture.h"

namespace hawser::apiserver {
namespace {

class ServiceTest : public RegistryTest {
 protected:
  static std::string text(std::string_view name, std::string_view spec) {
    return fmt::format(R"({{"metadata":{{"name":"{}"}},"spec":{}}})", name, spec);
  }
  Object service(std::string_view name, std::string_view spec) { return create("services", text(name, spec)); }
  std::string failure(std::string_view name, std::string_view spec) {
    return error_of(try_create("services", text(name, spec)));
  }
  static std::string ip(const Object& o) { return std::string(kube::str(o, {"spec", "clusterIP"})); }
  static std::int64_t node_port(const Object& o, std::size_t i = 0) {
    return kube::num(kube::as_obj(kube::arr(o, {"spec", "ports"}).at(i)), {"nodePort"});
  }
  std::set<std::string> keys() {
    std::set<std::string> out;
    auto got = store_->range({.key = "/allocator/", .end = store::prefix_end("/allocator/")});
    for (auto& kv : got->kvs) out.insert(kv.key.substr(11));
    return out;
  }
  using Keys = std::set<std::string>;
};

TEST_F(ServiceTest, FieldsOfAClusterIpService) {
  auto o = service("s", R"({"ports":[{"port":80}]})");
  EXPECT_TRUE(Cidr::parse("10.96.0.0/24")->contains(IpAddr::parse(ip(o)).value()));
  EXPECT_EQ(kube::arr(o, {"spec", "clusterIPs"}).at(0), Value(ip(o)));
  EXPECT_EQ(kube::str(o, {"spec", "ipFamilyPolicy"}), "SingleStack");
  EXPECT_EQ(kube::arr(o, {"spec", "ipFamilies"}).at(0), "IPv4");
  EXPECT_EQ(kube::str(o, {"spec", "internalTrafficPolicy"}), "Cluster");
  EXPECT_EQ(keys(), (Keys{"clusterips/" + ip(o)}));
}

TEST_F(ServiceTest, HeadlessAndExternalNameTakeNothing) {
  auto headless = service("h", R"({"clusterIP":"None","ports":[{"port":80}]})");
  EXPECT_EQ(ip(headless), "None");
  EXPECT_EQ(kube::arr(headless, {"spec", "clusterIPs"}).at(0), "None");
  auto external = service("e", R"({"type":"ExternalName","externalName":"example.com"})");
  EXPECT_EQ(ip(external), "");
  EXPECT_TRUE(keys().empty());
}

TEST_F(ServiceTest, ErrorTexts) {
  service("a", R"({"clusterIP":"10.96.0.10","type":"NodePort","ports":[{"port":80,"nodePort":30010}]})");
  struct Case {
    int line;
    std::string_view spec, want;
  };
  const Case cases[] = {
      {__LINE__, R"({"clusterIP":"10.96.0.10","ports":[{"port":80}]})",
       "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already "
       "allocated"},
      {__LINE__, R"({"clusterIP":"10.97.0.10","ports":[{"port":80}]})",
       "spec.clusterIPs: Invalid value: [\"10.97.0.10\"]: failed to allocate IP 10.97.0.10: the provided IP is not in "
       "the valid "
       "range. The range of valid IPs is 10.96.0.0/24"},
      {__LINE__, R"({"type":"NodePort","ports":[{"port":80,"nodePort":30010}]})",
       "spec.ports[0].nodePort: Invalid value: 30010: provided port is already allocated"},
      {__LINE__, R"({"type":"NodePort","ports":[{"port":80,"nodePort":80}]})",
       "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports "
       "is "
       "30000-30099"},
      {__LINE__, R"({"ipFamilies":["IPv6"],"ports":[{"port":80}]})",
       "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"},
  };
  for (auto& c : cases)
    EXPECT_EQ(failure("b", c.spec), fmt::format("422 Invalid: Service \"b\" is invalid: {}", c.want)) << c.line;
  EXPECT_EQ(keys(), (Keys{"clusterips/10.96.0.10", "nodeports/30010"}));
}

TEST_F(ServiceTest, DeleteReleases) {
  service("a", R"({"clusterIP":"10.96.0.10","type":"NodePort","ports":[{"port":80,"nodePort":30010}]})");
  ASSERT_TRUE(remove("services", "a"));
  EXPECT_TRUE(keys().empty());
  service("b", R"({"clusterIP":"10.96.0.10","type":"NodePort","ports":[{"port":80,"nodePort":30010}]})");
}

TEST_F(ServiceTest, TypeChangesAllocateAndRelease) {
  auto o = service("a", R"({"ports":[{"port":80}]})");
  auto own = "clusterips/" + ip(o);
  auto to = [&](std::string_view patch) {
    auto e = merge("services", "a", patch);
    EXPECT_TRUE(e) << e.error().message;
    return e ? *(*e)->object : Object();
  };
  auto node = to(R"({"spec":{"type":"NodePort"}})");
  auto port = node_port(node);
  EXPECT_GE(port, 30000);
  EXPECT_EQ(kube::str(node, {"spec", "externalTrafficPolicy"}), "Cluster");
  EXPECT_EQ(keys(), (Keys{own, fmt::format("nodeports/{}", port)}));
  // A port that is named again keeps its number, a new one gets its own.
  auto two = to(R"({"spec":{"ports":[{"name":"a","port":80},{"name":"b","port":81}]}})");
  EXPECT_EQ(node_port(two, 0), port);
  EXPECT_NE(node_port(two, 1), port);
  auto back = to(R"({"spec":{"type":"ClusterIP"}})");
  EXPECT_EQ(node_port(back, 0), 0);
  EXPECT_EQ(ip(back), ip(o));
  EXPECT_EQ(keys(), (Keys{own}));
  to(R"({"spec":{"type":"ExternalName","externalName":"example.com"}})");
  EXPECT_TRUE(keys().empty());
}

TEST_F(ServiceTest, PutWithoutAddressKeepsIt) {
  auto o = service("a", R"({"type":"NodePort","ports":[{"port":80}]})");
  auto sent = parse(
      R"({"kind":"Service","apiVersion":"v1","metadata":{"name":"a"},"spec":{"type":"NodePort","ports":[{"port":80,"protocol":"TCP"}]}})");
  auto done = parts_.registry.update(kind("services"), {"default", "a"}, sent, "", {});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(ip(*done->entry->object), ip(o));
  EXPECT_EQ(node_port(*done->entry->object), node_port(o));
}

TEST_F(ServiceTest, OneNodePortForBothProtocols) {
  auto o = service(
      "dns",
      R"({"type":"NodePort","ports":[{"name":"u","port":53,"protocol":"UDP"},{"name":"t","port":53,"protocol":"TCP"}]})");
  EXPECT_EQ(node_port(o, 0), node_port(o, 1));
}

TEST_F(ServiceTest, LocalLoadBalancerGetsAHealthPort) {
  auto o = service("lb", R"({"type":"LoadBalancer","externalTrafficPolicy":"Local","ports":[{"port":80}]})");
  EXPECT_GE(kube::num(o, {"spec", "healthCheckNodePort"}), 30000);
  EXPECT_NE(kube::num(o, {"spec", "healthCheckNodePort"}), node_port(o));
  EXPECT_EQ(keys().size(), 3u);
}

TEST_F(ServiceTest, RangesRunOutAndComeBack) {
  for (int i = 0; i < 100; ++i) service(fmt::format("s{}", i), R"({"type":"NodePort","ports":[{"port":80}]})");
  EXPECT_TRUE(failure("more", R"({"type":"NodePort","ports":[{"port":80}]})").contains("range is full"));
  ASSERT_TRUE(remove("services", "s50"));
  service("more", R"({"type":"NodePort","ports":[{"port":80}]})");
  for (int i = 0; i < 154; ++i) service(fmt::format("c{}", i), R"({"ports":[{"port":80}]})");
  EXPECT_EQ(failure("last", R"({"ports":[{"port":80}]})"),
            "500 InternalError: Internal error occurred: failed to allocate a serviceIP: range is full");
}

// Two servers on one store know nothing of each other's picks but what the transactions tell them.
TEST_F(ServiceTest, ConcurrentCreationsNeverCollide) {
  RegistryParts other(*store_);
  std::mutex mu;
  std::multiset<std::string> ips;
  std::multiset<std::int64_t> ports;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto& registry = t % 2 == 0 ? parts_.registry : other.registry;
      for (int i = 0; i < 20; ++i) {
        Object o = parse(R"({"kind":"Service","apiVersion":"v1","spec":{"type":"NodePort","ports":[{"port":80}]}})");
        o["metadata"] = Object{{"name", fmt::format("s{}-{}", t, i)}};
        auto e = registry.create(kind("services"), "default", o, {});
        ASSERT_TRUE(e) << e.error().message;
        std::lock_guard l(mu);
        ips.insert(ip(*(*e)->object));
        ports.insert(node_port(*(*e)->object));
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ((std::set(ips.begin(), ips.end()).size()), 80u);
  EXPECT_EQ((std::set(ports.begin(), ports.end()).size()), 80u);
  EXPECT_EQ(keys().size(), 160u);
}

TEST_F(ServiceTest, RepairPutsARestoredDatabaseRight) {
  auto a = service("a", R"({"type":"NodePort","ports":[{"port":80}]})");
  auto want = keys();
  store::Txn damage;
  damage.success.push_back({.type = store::Op::Type::kDelete, .key = "/allocator/clusterips/" + ip(a)});
  damage.success.push_back(
      {.type = store::Op::Type::kPut, .key = "/allocator/nodeports/30099", .value = "default/gone"});
  ASSERT_TRUE(store_->txn(damage));
  RegistryParts next(*store_);
  auto services = next.cache.of(kind("services")).list({}, 0);
  auto fixed = next.allocator.repair(*store_, services.items);
  ASSERT_TRUE(fixed);
  EXPECT_EQ(*fixed, 2);
  EXPECT_EQ(keys(), want);
  EXPECT_EQ(next.allocator.repair(*store_, services.items).value(), 0);
}

TEST(PortRange, Parse) {
  EXPECT_EQ(PortRange::parse("30000-32767")->text(), "30000-32767");
  for (auto bad : {"", "1", "5-4", "0-3", "1-70000", "a-b", "1-2x"}) EXPECT_FALSE(PortRange::parse(bad)) << bad;
}

}  // namespace
}  // namespace hawser::apiserver
