// SPDX-License-Identifier: Apache-2.0
// The inspect answers on a working model of nftables: what the back end wrote, and what somebody did to it then.
#include <algorithm>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/netlink/ipvs_fake.h"
#include "lib/netlink/rtnl_fake.h"
#include "lib/nft/fake_nft.h"
#include "proxyd/inspect/compare.h"
#include "proxyd/inspect/explain.h"
#include "proxyd/inspect/inspector.h"
#include "proxyd/ipvs/ipvs_backend.h"
#include "proxyd/nft/nft_backend.h"

namespace hawser::proxy {
namespace {

namespace json = boost::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

IpAddr ip(std::string_view text) {
  return *IpAddr::parse(text);
}

kube::ObjectPtr object(std::string_view text) {
  return std::make_shared<const kube::Object>(json::parse(text).as_object());
}

constexpr const char* kWeb = R"({"metadata": {"name": "web", "namespace": "default"}, "spec": {
  "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"name": "http", "port": 80,
  "protocol": "TCP", "nodePort": 30080}], "loadBalancerSourceRanges": ["203.0.113.0/24"]},
  "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.5"}]}}})";
constexpr const char* kWebSlice = R"({"metadata": {"name": "web-x1", "namespace": "default",
  "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
  "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": [
  {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true}},
  {"addresses": ["10.244.2.2"], "nodeName": "node-2", "conditions": {"ready": true}},
  {"addresses": ["10.244.2.3"], "nodeName": "node-2", "conditions": {"ready": false, "serving": true, "terminating": true}},
  {"addresses": ["10.244.2.4"], "nodeName": "node-2", "conditions": {"ready": false, "serving": false}}]})";
constexpr const char* kLocal = R"({"metadata": {"name": "edge", "namespace": "shop"}, "spec": {
  "type": "NodePort", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "externalTrafficPolicy": "Local",
  "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
  "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]}})";
constexpr const char* kLocalSlice = R"({"metadata": {"name": "edge-x1", "namespace": "shop",
  "labels": {"kubernetes.io/service-name": "edge"}}, "addressType": "IPv4",
  "ports": [{"name": "", "port": 5353, "protocol": "UDP"}], "endpoints": [
  {"addresses": ["10.244.1.3"], "nodeName": "node-1"}, {"addresses": ["10.244.2.5"], "nodeName": "node-2"}]})";
constexpr const char* kEmpty = R"({"metadata": {"name": "none", "namespace": "default"}, "spec": {
  "clusterIP": "10.96.0.30", "clusterIPs": ["10.96.0.30"], "ports": [{"port": 80, "protocol": "TCP"}]}})";

class InspectTest : public ::testing::Test {
 protected:
  explicit InspectTest(const std::optional<IpvsOptions>& ipvs = {})
      : inspector_({tracker_, health_, nft_, conntrack_, rtnl_, &ipvs_}, options_, ipvs) {
    const auto set = [](const std::string&, const std::string&) -> Result<bool> { return false; };
    if (ipvs)
      backend_ = std::make_unique<IpvsBackend>(IpvsKernel{ipvs_, rtnl_, nft_, set, "6.1.0"}, options_, *ipvs);
    else
      backend_ = std::make_unique<NftBackend>(nft_, options_);
  }
  void SetUp() override {
    (void)rtnl_.change_address(netlink::Verb::kAdd, {.link = 1, .cidr = *Cidr::parse("192.0.2.11/24")});
    for (const char* s : {kWeb, kLocal, kEmpty}) tracker_.on_service(nullptr, object(s));
    for (const char* s : {kWebSlice, kLocalSlice}) tracker_.on_slice(nullptr, object(s));
    sync();
  }

  void sync() {
    const auto taken = tracker_.take();
    auto r = backend_->apply(taken.state);
    ASSERT_TRUE(r) << r.error().text;
    health_.synced(taken.state->generation);
  }

  json::object get(const std::string& target, int status = 200) {
    auto r = inspector_.answer({.method = "GET", .target = target});
    if (!r) return {};
    EXPECT_EQ(r->status, status) << r->body;
    return json::parse(r->body).as_object();
  }
  json::object explain(const std::string& source, const std::string& destination, const std::string& protocol = "tcp") {
    return get("/inspect/explain?source=" + source + "&destination=" + http::percent_encode(destination) +
               "&protocol=" + protocol);
  }
  static std::string verdict(const json::object& o) { return std::string(o.at("verdict").at("model").as_string()); }
  static bool agree(const json::object& o) { return o.at("agree").as_bool(); }
  static json::object step(const json::object& o, std::string_view name) {
    for (const auto& s : o.at("steps").as_array()) {
      if (s.at("step").as_string() == name) return s.as_object();
    }
    ADD_FAILURE() << "no step " << name << " in " << json::serialize(o);
    return {};
  }
  struct Case {
    const char* name;
    const char* source;
    const char* destination;
    const char* protocol;
    const char* want;
  };
  void check_verdicts(const std::vector<Case>& cases) {
    for (const auto& c : cases) {
      SCOPED_TRACE(c.name);
      const auto answer = explain(c.source, c.destination, c.protocol);
      if (answer.empty() || !answer.contains("verdict")) continue;
      EXPECT_EQ(verdict(answer), c.want);
      EXPECT_TRUE(agree(answer)) << json::serialize(answer);
      EXPECT_TRUE(answer.at("settled").as_bool());
    }
  }
  // As somebody with nft would.
  void tear_out(const std::string& set, const nft::Bytes& key) {
    nft::Transaction t(kTableFamily, kTable);
    t.delete_element(set, key);
    auto r = nft_.apply(t);
    ASSERT_TRUE(r) << r.error().text;
  }
  static SideId key(std::string_view addr, std::uint16_t port, std::uint8_t protocol = IPPROTO_TCP) {
    return {
        .addr = addr.empty() ? IpAddr() : ip(addr), .protocol = protocol, .port = port, .v6 = false, .local = false};
  }

  const TrafficOptions options_{.cluster_cidrs = {*Cidr::parse("10.244.0.0/16")},
                                .service_cidrs = {*Cidr::parse("10.96.0.0/16")}};
  nft::FakeNft nft_;
  netlink::FakeRtnl rtnl_;
  netlink::FakeIpvs ipvs_;
  netlink::FakeConntrack conntrack_;
  ProxyHealth health_{system_clock()};
  Tracker tracker_{{.name = "node-1", .zone = "a"}, [](auto&&...) {}};
  std::unique_ptr<Backend> backend_;
  Inspector inspector_;
};

TEST_F(InspectTest, WhereConnectionsGo) {
  check_verdicts({
      {"pod to cluster IP", "10.244.1.9", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept"},
      {"by name", "10.244.1.9", "web:http", "tcp", "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept"},
      {"outside to cluster IP", "192.0.2.100", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"endpoint to itself", "10.244.1.2", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept, unless it is chosen itself (hairpin)"},
      {"port that the Service lacks", "10.244.1.9", "10.96.0.10:81", "tcp", "refused"},
      {"other protocol", "10.244.1.9", "10.96.0.10:80", "udp", "refused"},
      {"no endpoints", "10.244.1.9", "10.96.0.30:80", "tcp", "refused"},
      {"address of no Service", "10.244.1.9", "10.96.77.1:80", "tcp", "dropped"},
      {"not a Service", "10.244.1.9", "198.51.100.77:80", "tcp", "goes on unchanged"},
      {"inside the source ranges", "203.0.113.7", "198.51.100.5:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"outside the source ranges", "203.0.114.7", "198.51.100.5:80", "tcp", "dropped"},
      {"node port", "192.0.2.100", "192.0.2.11:30080", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"node port of another node", "192.0.2.100", "192.0.2.12:30080", "tcp", "goes on unchanged"},
      {"node port on loopback", "127.0.0.1", "127.0.0.1:30080", "tcp", "goes on unchanged"},
      {"Local, from outside", "192.0.2.100", "192.0.2.11:30053", "udp", "to 10.244.1.3:5353, the source is kept"},
      {"Local, from a pod", "10.244.1.9", "192.0.2.11:30053", "udp",
       "to one of 10.244.1.3:5353, 10.244.2.5:5353, the source is kept"},
      {"Local, from the node", "192.0.2.11", "192.0.2.11:30053", "udp",
       "to one of 10.244.1.3:5353, 10.244.2.5:5353, the source becomes this node's address"},
  });
}

TEST_F(InspectTest, StepsNameTheirObjects) {
  const auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_EQ(answer.at("service").as_string(), "default/web");
  EXPECT_EQ(answer.at("generation").as_int64(), 1);
  EXPECT_EQ(answer.at("applied").as_int64(), 1);
  const auto frontend = step(answer, "frontend");
  EXPECT_EQ(frontend.at("object").as_string(), "Service default/web");
  EXPECT_EQ(json::serialize(frontend.at("found")), R"(["services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-2 }"])");
  const auto endpoints = step(answer, "endpoints");
  EXPECT_EQ(endpoints.at("object").as_string(), "EndpointSlice default/web-x1");
  EXPECT_THAT(json::serialize(endpoints.at("found")), HasSubstr("endpoints4 { 10.96.0.10 . tcp . 80 . 0x00000000 : "));
}

TEST_F(InspectTest, RefusalsNameTheService) {
  const auto answer = explain("10.244.1.9", "10.96.0.10:81");
  EXPECT_EQ(step(answer, "frontend").at("object").as_string(), "Service default/web");
  EXPECT_EQ(json::serialize(step(answer, "frontend").at("found")), R"(["cluster-ips4 { 10.96.0.10 }"])");
  EXPECT_EQ(step(explain("192.0.2.100", "192.0.2.11:30080"), "masquerade").at("object").as_string(),
            "chain ip-external-node-port-2");
}

TEST_F(InspectTest, AnElementThatSomebodyRemovedIsADisagreement) {
  tear_out("services4", key_of(key("10.96.0.10", 80)));
  auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_FALSE(step(answer, "frontend").at("agree").as_bool());
  EXPECT_EQ(answer.at("verdict").at("kernel").as_string(), "refused") << "its address is a cluster IP all the same";
  EXPECT_TRUE(agree(explain("10.244.1.9", "10.96.0.20:53", "udp"))) << "others are not concerned";
  const auto status = get("/inspect/status");
  EXPECT_FALSE(agree(status));
  EXPECT_EQ(json::serialize(status.at("drift")),
            R"(["lacks services4 { 10.96.0.10 . tcp . 80 : jump ip-internal-2 }"])");
  const auto services = get("/inspect/services?namespace=shop");
  EXPECT_TRUE(agree(services));
  EXPECT_EQ(services.at("services").as_array().size(), 1u);
  EXPECT_FALSE(agree(get("/inspect/services")));
}

TEST_F(InspectTest, AnEmptySlotIsADisagreement) {
  tear_out("endpoints4", slot_key(key("10.96.0.10", 80), 1));
  const auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_THAT(std::string(answer.at("verdict").at("kernel").as_string()), HasSubstr("1 of 2 slots are empty"));
  EXPECT_FALSE(agree(get("/inspect/endpoints?service=default/web")));
}

TEST_F(InspectTest, ChangedRulesAreADisagreement) {
  nft::Transaction t(kTableFamily, kTable);
  t.flush_chain("ip-internal-2");
  ASSERT_TRUE(nft_.apply(t));
  auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_THAT(std::string(answer.at("verdict").at("kernel").as_string()), HasSubstr("ip-internal-2 has other rules"));
  nft::Transaction u(kTableFamily, kTable);
  u.flush_chain("services");
  ASSERT_TRUE(nft_.apply(u));
  answer = explain("10.244.1.9", "198.51.100.77:80");
  EXPECT_EQ(step(answer, "rules").at("kernel").as_string(), "changed in chain services");
  EXPECT_FALSE(agree(answer));
}

TEST_F(InspectTest, WhatOnlyTheKernelHasIsADisagreement) {
  nft::Transaction t(kTableFamily, kTable);
  t.add_element("cluster-ips4", {.key = nft::Bytes::ip(ip("198.51.100.77"))});
  ASSERT_TRUE(nft_.apply(t));
  EXPECT_FALSE(agree(explain("10.244.1.9", "198.51.100.77:80")));
}

TEST_F(InspectTest, Affinity) {
  auto answer = explain("10.244.1.9", "10.96.0.20:53", "udp");
  EXPECT_EQ(step(answer, "affinity").at("kernel").as_string(), "by client, 600 s");
  const auto remember = [&](const Target& t) {
    nft::Bytes k;
    k.field(nft::Bytes::ip(ip("10.244.1.9"))).field(key_of(key("10.96.0.20", 53, IPPROTO_UDP)));
    nft::Transaction tx(kTableFamily, kTable);
    tx.add_element("affinity4", {.key = k, .data = bytes_of(t), .timeout_ms = 600000});
    auto r = nft_.apply(tx);
    EXPECT_TRUE(r) << r.error().text;
    return k;
  };
  const auto k = remember({ip("10.244.2.5"), 5353});
  answer = explain("10.244.1.9", "10.96.0.20:53", "udp");
  EXPECT_EQ(step(answer, "affinity").at("kernel").as_string(), "by client, 600 s; remembered: 10.244.2.5:5353");
  EXPECT_TRUE(agree(answer));
  tear_out("affinity4", k);
  remember({ip("10.244.9.9"), 5353});
  answer = explain("10.244.1.9", "10.96.0.20:53", "udp");
  EXPECT_FALSE(agree(answer)) << "remembered for nobody";
}

TEST_F(InspectTest, FlowsThatAreThere) {
  const netlink::FlowEnd vip{ip("10.96.0.20"), 53};
  conntrack_.flows = {{IPPROTO_UDP, {ip("10.244.1.9"), 4000}, vip, {ip("10.244.1.3"), 5353}},
                      {IPPROTO_UDP, {ip("10.244.1.8"), 4000}, vip, {ip("10.244.7.7"), 5353}}};
  auto answer = explain("10.244.1.9", "10.96.0.20:53", "udp");
  EXPECT_EQ(step(answer, "conntrack").at("kernel").as_string(),
            "from port 4000: goes to 10.244.1.3:5353, a current endpoint");
  EXPECT_TRUE(agree(answer));
  answer = explain("10.244.1.8", "10.96.0.20:53", "udp");
  EXPECT_FALSE(agree(answer)) << "the reconciler should have removed it";
  EXPECT_THAT(std::string(step(answer, "conntrack").at("kernel").as_string()), HasSubstr("no endpoint any more"));
}

TEST_F(InspectTest, EndpointsSayWhy) {
  const auto answer = get("/inspect/endpoints?service=web");
  std::vector<std::string> got;
  for (const auto& e : answer.at("endpoints").as_array()) {
    got.push_back(fmt::format("{} {} {}", std::string_view(e.at("address").as_string()),
                              std::string_view(e.at("share").as_string()), std::string_view(e.at("why").as_string())));
    EXPECT_EQ(json::serialize(e.at("slices")), R"(["default/web-x1"])");
  }
  EXPECT_THAT(got,
              ElementsAre("10.244.1.2 1/2 ready", "10.244.2.2 1/2 ready",
                          "10.244.2.3 0/2 terminating: keeps its flows, gets no new ones", "10.244.2.4 0/2 not ready"));
  EXPECT_TRUE(agree(answer));
}

TEST_F(InspectTest, HintsWeightsAndPoliciesAreNamed) {
  tracker_.on_service(nullptr, object(R"({"metadata": {"name": "in", "namespace": "x",
      "annotations": {"hawser.io/endpoint-weights": "10.244.1.5=0"}}, "spec": {"internalTrafficPolicy": "Local",
      "clusterIP": "10.96.0.40", "clusterIPs": ["10.96.0.40"], "ports": [{"port": 80}]}})"));
  tracker_.on_slice(nullptr, object(R"({"metadata": {"name": "in-1", "namespace": "x",
      "labels": {"kubernetes.io/service-name": "in"}}, "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
      "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "node-1"}, {"addresses": ["10.244.1.6"], "nodeName": "node-1"},
      {"addresses": ["10.244.2.6"], "nodeName": "node-2"}]})"));
  sync();
  const auto answer = get("/inspect/endpoints?service=x/in");
  std::vector<std::string> why;
  for (const auto& e : answer.at("endpoints").as_array()) why.emplace_back(e.at("why").as_string());
  EXPECT_THAT(why, ElementsAre("weight 0: keeps its flows, gets no new ones", "ready",
                               "on another node, by internalTrafficPolicy Local"));
  EXPECT_TRUE(agree(answer)) << json::serialize(answer);
  const auto way = explain("10.244.1.9", "x/in:80");
  EXPECT_THAT(std::string(step(way, "policy").at("object").as_string()), HasSubstr("internalTrafficPolicy Local"));
  EXPECT_EQ(verdict(way), "to 10.244.1.6:80, the source is kept");
}

TEST_F(InspectTest, AModelThatIsAheadIsNotSettled) {
  tracker_.on_service(object(kEmpty), nullptr);
  (void)tracker_.take();
  const auto answer = explain("10.244.1.9", "10.96.0.30:80");
  EXPECT_FALSE(answer.at("settled").as_bool());
  EXPECT_EQ(answer.at("generation").as_int64(), 2);
  EXPECT_EQ(answer.at("applied").as_int64(), 1);
  EXPECT_FALSE(agree(answer)) << "the kernel still refuses what the model no longer knows";
}

TEST_F(InspectTest, WrongQuestionsAreToldSo) {
  static const struct {
    const char* target;
    int status;
    const char* says;
  } kCases[] = {
      {"/inspect/nothing", 404, "there are /inspect/status"},
      {"/inspect/endpoints?service=nobody", 404, "no Service default/nobody"},
      {"/inspect/explain?source=pod&destination=10.96.0.10:80", 400, "source \"pod\": want an address"},
      {"/inspect/explain?source=10.244.1.9&destination=10.96.0.10", 400, "want ADDRESS:PORT"},
      {"/inspect/explain?source=10.244.1.9&destination=10.96.0.10:0", 400, "port \"0\" is not a number"},
      {"/inspect/explain?source=10.244.1.9&destination=fd00::1:80", 400, "in brackets"},
      {"/inspect/explain?source=10.244.1.9&destination=%5Bfd00::1%5D:80", 400, "different families"},
      {"/inspect/explain?source=10.244.1.9&destination=nobody:80", 404, "no Service default/nobody"},
      {"/inspect/explain?source=10.244.1.9&destination=web:https", 400, "no TCP port named \"https\""},
      {"/inspect/explain?source=10.244.1.9&destination=10.96.0.10:80&protocol=icmp", 400, "want tcp, udp or sctp"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.target);
    EXPECT_THAT(json::serialize(get(c.target, c.status)),
                HasSubstr(json::serialize(json::string(c.says)).substr(1, std::string_view(c.says).size() - 1)));
  }
  EXPECT_FALSE(inspector_.answer({.method = "GET", .target = "/metrics"}).has_value());
  EXPECT_EQ(inspector_.answer({.method = "POST", .target = "/inspect/status"})->status, 405);
}

class IpvsInspectTest : public InspectTest {
 protected:
  IpvsInspectTest() : InspectTest(IpvsOptions{}) {}
  const netlink::IpvsKey web_{IPPROTO_TCP, ip("10.96.0.10"), 80};
};

TEST_F(IpvsInspectTest, WhereConnectionsGo) {
  check_verdicts({
      {"pod to cluster IP", "10.244.1.9", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept"},
      {"outside to cluster IP", "192.0.2.100", "web:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"the node to cluster IP", "10.96.0.10", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"endpoint to itself", "10.244.1.2", "10.96.0.10:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source is kept, unless it is chosen itself (hairpin)"},
      {"port that the Service lacks", "10.244.1.9", "10.96.0.10:81", "tcp", "refused"},
      {"a balancer's other port", "10.244.1.9", "198.51.100.5:81", "tcp", "refused"},
      {"no endpoints", "10.244.1.9", "10.96.0.30:80", "tcp", "refused"},
      {"inside the source ranges", "203.0.113.7", "198.51.100.5:80", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"outside the source ranges", "203.0.114.7", "198.51.100.5:80", "tcp", "dropped"},
      {"node port", "192.0.2.100", "192.0.2.11:30080", "tcp",
       "to one of 10.244.1.2:8080, 10.244.2.2:8080, the source becomes this node's address"},
      {"node port on a cluster IP", "10.244.1.9", "10.96.0.20:30080", "tcp", "refused"},
      {"Local, from outside", "192.0.2.100", "192.0.2.11:30053", "udp", "to 10.244.1.3:5353, the source is kept"},
      {"Local, from a pod", "10.244.1.9", "192.0.2.11:30053", "udp", "to 10.244.1.3:5353, the source is kept"},
  });
  EXPECT_EQ(explain("10.244.1.9", "10.96.0.10:80").at("mode").as_string(), "ipvs");
  EXPECT_EQ(step(explain("10.244.1.9", "10.96.0.20:53", "udp"), "affinity").at("kernel").as_string(),
            "by client, 600 s");
  EXPECT_TRUE(agree(get("/inspect/status"))) << json::serialize(get("/inspect/status"));
  EXPECT_TRUE(agree(get("/inspect/services"))) << json::serialize(get("/inspect/services"));
  EXPECT_TRUE(agree(get("/inspect/endpoints?service=shop/edge")));
}

TEST_F(IpvsInspectTest, StepsShowIpvs) {
  const auto endpoints = step(explain("10.244.1.9", "10.96.0.10:80"), "endpoints");
  EXPECT_EQ(endpoints.at("kernel").as_string(), "10.244.1.2:8080, 10.244.2.2:8080 by rr");
  const auto found = json::serialize(endpoints.at("found"));
  EXPECT_THAT(found, HasSubstr(R"("ipvs tcp 10.96.0.10:80 rr")"));
  EXPECT_THAT(found, HasSubstr("ipvs tcp 10.96.0.10:80 -> 10.244.1.2:8080 weight 1"));
}

TEST_F(IpvsInspectTest, WhatSomebodyChangedInIpvsIsADisagreement) {
  const netlink::IpvsDestination first{.address = ip("10.244.1.2"), .port = 8080};
  ASSERT_TRUE(ipvs_.change_destination(netlink::IpvsVerb::kDelete, web_, first));
  auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_EQ(answer.at("verdict").at("kernel").as_string(), "to 10.244.2.2:8080, the source is kept");
  EXPECT_FALSE(agree(get("/inspect/endpoints?service=web")));
  EXPECT_TRUE(agree(get("/inspect/services?namespace=shop"))) << "others are not concerned";
  EXPECT_THAT(json::serialize(get("/inspect/status").at("drift")),
              HasSubstr("lacks ipvs tcp 10.96.0.10:80 -> 10.244.1.2:8080 weight 1"));
  ASSERT_TRUE(ipvs_.change_service(netlink::IpvsVerb::kDelete, {.key = web_}));
  answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_EQ(answer.at("verdict").at("kernel").as_string(), "uncertain: no virtual service tcp 10.96.0.10:80");
}

TEST_F(IpvsInspectTest, AMissingAddressIsADisagreement) {
  const auto device = rtnl_.get_link(kIpvsDevice);
  ASSERT_TRUE(device);
  ASSERT_TRUE(rtnl_.change_address(netlink::Verb::kDelete, {device->index, Cidr(ip("10.96.0.10"), 32), true}));
  const auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_FALSE(agree(answer));
  EXPECT_EQ(answer.at("verdict").at("kernel").as_string(), "uncertain: 10.96.0.10 is not on hawser-ipvs0");
  EXPECT_EQ(json::serialize(get("/inspect/status").at("drift")), R"(["lacks 10.96.0.10 on hawser-ipvs0"])");
}

TEST_F(IpvsInspectTest, WhatDrainsIsNoDisagreement) {
  ipvs_.destination(web_, {.address = ip("10.244.2.2"), .port = 8080}).active = 3;
  tracker_.on_slice(object(kWebSlice), nullptr);
  tracker_.on_slice(nullptr, object(R"({"metadata": {"name": "web-x1", "namespace": "default",
      "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
      "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": ["10.244.1.2"]}]})"));
  sync();
  const auto answer = explain("10.244.1.9", "10.96.0.10:80");
  EXPECT_TRUE(agree(answer)) << json::serialize(answer);
  EXPECT_EQ(verdict(answer), "to 10.244.1.2:8080, the source is kept");
  EXPECT_TRUE(agree(get("/inspect/status"))) << json::serialize(get("/inspect/status"));
}

TEST(InspectWords, PickChainsByName) {
  for (const int family : {AF_INET, AF_INET6}) {
    for (const bool node_port : {false, true}) {
      for (const PickReach reach : {PickReach::kInternal, PickReach::kExternal, PickReach::kLocal}) {
        for (const std::uint32_t affinity : {0u, 10800u}) {
          const PickChain c{family, node_port, reach, 12, affinity};
          EXPECT_EQ(parse_pick_chain(chain_name(c), family, node_port), c) << chain_name(c);
        }
      }
    }
  }
  EXPECT_FALSE(parse_pick_chain("reject-no-endpoint", AF_INET, false));
  EXPECT_FALSE(parse_pick_chain("ip-internal-", AF_INET, false));
  EXPECT_FALSE(parse_pick_chain("ip-internal-2-affinity-x", AF_INET, false));
}

}  // namespace
}  // namespace hawser::proxy
