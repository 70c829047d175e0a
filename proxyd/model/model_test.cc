// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <random>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proxyd/model/desired_state.h"
#include "proxyd/model/endpoint_slice_cache.h"
#include "proxyd/model/options.h"
#include "proxyd/model/topology.h"
#include "proxyd/model/tracker.h"

namespace hawser::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

kube::ObjectPtr object(std::string_view json) {
  return std::make_shared<const kube::Object>(boost::json::parse(json).as_object());
}

IpAddr ip(std::string_view text) {
  return *IpAddr::parse(text);
}

// "r" ready, "s" serving and terminating, "t" terminating and not serving, "n" not ready; "L" appended: local.
std::vector<Endpoint> endpoints(const std::vector<std::string>& specs) {
  std::vector<Endpoint> r;
  std::uint32_t n = 0;
  for (const auto& s : specs) {
    Endpoint e{.target = {IpAddr::v4(0x0af40101 + n++), 80}};
    e.ready = s[0] == 'r';
    e.serving = s[0] == 'r' || s[0] == 's';
    e.terminating = s[0] == 's' || s[0] == 't';
    e.local = s.ends_with('L');
    r.push_back(e);
  }
  return r;
}

// Indexes of the chosen: "0,2".
std::string chosen(const std::vector<Target>& targets) {
  std::string r;
  for (const auto& t : targets) r += fmt::format("{}{}", r.empty() ? "" : ",", t.addr.v4_host_order() - 0x0af40101);
  return r;
}

TEST(SelectEndpoints, ConditionsTruthTable) {
  struct Case {
    int line;
    std::vector<std::string> in;
    const char *cluster, *local, *draining;
    WhenEmpty local_empty;
  };
  constexpr auto kReject = WhenEmpty::kReject;
  constexpr auto kDrop = WhenEmpty::kDrop;
  const Case cases[] = {
      // One endpoint of each kind, near and far.
      {__LINE__, {}, "", "", "", kReject},
      {__LINE__, {"r"}, "0", "", "", kDrop},
      {__LINE__, {"s"}, "0", "", "0", kDrop},
      {__LINE__, {"t"}, "", "", "", kReject},
      {__LINE__, {"n"}, "", "", "", kReject},
      {__LINE__, {"rL"}, "0", "0", "", kDrop},
      {__LINE__, {"sL"}, "0", "0", "0", kDrop},
      {__LINE__, {"tL"}, "", "", "", kReject},
      {__LINE__, {"nL"}, "", "", "", kReject},
      // Ready ones push terminating ones out of their own set only.
      {__LINE__, {"r", "rL"}, "0,1", "1", "", kDrop},
      {__LINE__, {"r", "sL"}, "0", "1", "1", kDrop},
      {__LINE__, {"r", "tL"}, "0", "", "", kDrop},
      {__LINE__, {"r", "nL"}, "0", "", "", kDrop},
      {__LINE__, {"s", "rL"}, "1", "1", "0", kDrop},
      {__LINE__, {"s", "sL"}, "0,1", "1", "0,1", kDrop},
      {__LINE__, {"s", "tL"}, "0", "", "0", kDrop},
      {__LINE__, {"s", "nL"}, "0", "", "0", kDrop},
      {__LINE__, {"t", "rL"}, "1", "1", "", kDrop},
      {__LINE__, {"t", "sL"}, "1", "1", "1", kDrop},
      {__LINE__, {"t", "tL"}, "", "", "", kReject},
      {__LINE__, {"n", "rL"}, "1", "1", "", kDrop},
      {__LINE__, {"n", "sL"}, "1", "1", "1", kDrop},
      {__LINE__, {"n", "nL"}, "", "", "", kReject},
      {__LINE__, {"rL", "sL"}, "0", "0", "1", kDrop},
      {__LINE__, {"sL", "tL", "nL"}, "0", "0", "0", kDrop},
      {__LINE__, {"r", "r", "sL", "rL"}, "0,1,3", "3", "2", kDrop},
  };
  for (const Case& c : cases) {
    const Selection s = select_endpoints(endpoints(c.in), {.name = "n1"}, AF_INET);
    EXPECT_EQ(chosen(s.cluster), c.cluster) << "line " << c.line;
    EXPECT_EQ(chosen(s.local), c.local) << "line " << c.line;
    EXPECT_EQ(chosen(s.draining), c.draining) << "line " << c.line;
    EXPECT_EQ(when_empty(s, true), c.local_empty) << "line " << c.line;
    EXPECT_EQ(when_empty(s, false), kReject) << "line " << c.line;
    const Selection other = select_endpoints(endpoints(c.in), {.name = "n1"}, AF_INET6);
    EXPECT_TRUE(other.cluster.empty() && other.local.empty()) << "line " << c.line;
  }
}

TEST(SelectEndpoints, Hints) {
  const auto hints = [](std::vector<std::string> zones, std::vector<std::string> nodes) {
    return std::make_shared<const Hints>(Hints{std::move(zones), std::move(nodes)});
  };
  struct Case {
    int line;
    std::vector<std::shared_ptr<const Hints>> in;
    const char* zone;
    const char* want;
  };
  const Case cases[] = {
      {__LINE__, {hints({"a"}, {}), hints({"b"}, {})}, "a", "0"},
      {__LINE__, {hints({"a"}, {}), hints({"b"}, {})}, "b", "1"},
      {__LINE__, {hints({"a"}, {}), hints({"b"}, {})}, "c", "0,1"},  // nobody for this zone
      {__LINE__, {hints({"a"}, {}), hints({"b"}, {})}, "", "0,1"},   // a node without a zone
      {__LINE__, {hints({"a"}, {}), nullptr}, "a", "0,1"},           // one hint missing disables them
      {__LINE__, {hints({"a", "b"}, {}), hints({"b"}, {})}, "b", "0,1"},
      {__LINE__, {hints({"a"}, {"n1"}), hints({"a"}, {"n2"})}, "a", "0"},  // the node before the zone
      {__LINE__, {hints({"a"}, {"n2"}), hints({"b"}, {"n3"})}, "b", "1"},  // no endpoint for this node: the zone
      {__LINE__, {hints({"a"}, {"n1"}), hints({"a"}, {})}, "a", "0,1"},    // node hints not on all: the zone
  };
  for (const Case& c : cases) {
    auto in = endpoints(std::vector<std::string>(c.in.size(), "r"));
    for (std::size_t i = 0; i < in.size(); ++i) in[i].hints = c.in[i];
    EXPECT_EQ(chosen(select_endpoints(in, {"n1", c.zone}, AF_INET).cluster), c.want) << "line " << c.line;
  }
  // Hints are for ready endpoints; those that serve while they terminate are a last resort for all.
  auto ending = endpoints({"s", "s"});
  ending[0].hints = hints({"a"}, {});
  ending[1].hints = hints({"b"}, {});
  EXPECT_EQ(chosen(select_endpoints(ending, {"n1", "a"}, AF_INET).cluster), "0,1");
}

TEST(ParseService, ReadsWhatIsThere) {
  std::vector<std::string> problems;
  const Service s =
      parse_service(*object(R"({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"type": "LoadBalancer",
    "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["203.0.113.1"],
    "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 80, "protocol": "UDP"}],
    "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000},
    "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}, {"ip": "203.0.113.3", "ipMode": "Proxy"}, {"hostname": "x"}]}}})"),
                    problems);
  EXPECT_THAT(problems, IsEmpty());
  EXPECT_EQ(s.key, "ns/web");
  EXPECT_THAT(s.cluster_ips, ElementsAre(ip("10.96.0.1"), ip("fd00::1")));
  EXPECT_THAT(s.external_ips, ElementsAre(ip("203.0.113.1")));
  EXPECT_THAT(s.load_balancer_ips, ElementsAre(ip("203.0.113.2")));
  EXPECT_THAT(s.ports, ElementsAre(ServicePort{"a", IPPROTO_TCP, 80, 30080}, ServicePort{"b", IPPROTO_UDP, 80, 0}));
  EXPECT_EQ(s.affinity_seconds, 10800u);
  EXPECT_TRUE(s.external_local);
  EXPECT_FALSE(s.internal_local);
  EXPECT_EQ(s.health_check_node_port, 31000);
}

TEST(ParseService, LeavesOthersAlone) {
  const char* not_ours[] = {
      R"({"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]}})",
      R"({"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}})",
      R"({"metadata": {"name": "x"}, "spec": {"clusterIP": "", "ports": [{"port": 80}]}})",
      R"({"metadata": {"name": "x"}, "spec": {}})",
      R"({})",
      R"({"spec": 7, "metadata": []})",
  };
  for (const char* o : not_ours) {
    std::vector<std::string> problems;
    EXPECT_THAT(parse_service(*object(o), problems).ports, IsEmpty()) << o;
    EXPECT_THAT(problems, IsEmpty()) << o;
  }
}

TEST(ParseService, NamesEachThingItCannotUseAndKeepsTheRest) {
  struct Case {
    const char* spec;
    const char* problem;
    std::size_t ports;
  };
  const Case cases[] = {
      {R"({"clusterIP": "10.96.0.300", "ports": [{"port": 80}]})", "spec.clusterIP: \"10.96.0.300\"", 0},
      {R"({"clusterIP": "10.96.0.1", "ports": [{"port": -1}, {"port": 80}]})", "port -1 is not between", 1},
      {R"({"clusterIP": "10.96.0.1", "ports": [{"port": 70000}, {"port": 80}]})", "port 70000", 1},
      {R"({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 70000}]})", "nodePort 70000", 0},
      {R"({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "ICMP"}]})", "protocol \"ICMP\"", 0},
      {R"({"clusterIP": "10.96.0.1", "ports": [{"port": 80}, {"port": 80}]})", "port 80 is there twice", 1},
      {R"({"clusterIP": "10.96.0.1", "externalIPs": ["x"], "ports": [{"port": 80}]})", "spec.externalIPs: \"x\"", 1},
      {R"({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
           "ports": [{"port": 80}]})",
       "timeoutSeconds: 0", 1},
  };
  for (const Case& c : cases) {
    std::vector<std::string> problems;
    const Service s = parse_service(
        *object(fmt::format(R"({{"metadata": {{"namespace": "d", "name": "x"}}, "spec": {}}})", c.spec)), problems);
    EXPECT_EQ(s.ports.size(), c.ports) << c.spec;
    ASSERT_EQ(problems.size(), 1u) << c.spec;
    EXPECT_THAT(problems[0], HasSubstr(c.problem));
    EXPECT_THAT(problems[0], HasSubstr("Service d/x"));
  }
}

Service load_balancer(std::string_view ranges, std::string_view annotations, std::vector<std::string>& problems) {
  return parse_service(
      *object(fmt::format(
          R"({{"metadata": {{"namespace": "d", "name": "x", "annotations": {}}}, "spec": {{"type": "LoadBalancer",
    "clusterIPs": ["10.96.0.1", "fd00:96::1"], "externalIPs": ["203.0.113.1", "203.0.113.2"],
    "loadBalancerSourceRanges": {}, "ports": [{{"port": 80, "nodePort": 30080}}]}},
    "status": {{"loadBalancer": {{"ingress": [{{"ip": "203.0.113.2"}}, {{"ip": "2001:db8:1::2"}}]}}}}}})",
          annotations, ranges)),
      problems);
}

TEST(ParseService, LoadBalancerSourceRanges) {
  struct Case {
    int line;
    const char *ranges, *annotations;
    bool limited;
    const char* want;
    std::vector<const char*> problems;
  };
  const Case cases[] = {
      {__LINE__, "[]", "{}", false, "", {}},
      {__LINE__, R"(["192.0.2.9/24", "2001:db8::/32"])", "{}", true, "192.0.2.0/24 2001:db8::/32 ", {}},
      {__LINE__, R"(["10.1.0.0/16", " 10.0.0.0/8 ", "10.0.0.0/8"])", "{}", true, "10.0.0.0/8 ", {}},
      {__LINE__, R"(["0.0.0.0/0"])", "{}", true, "0.0.0.0/0 ", {}},
      {__LINE__, R"(["192.0.2.0/33", "10.0.0.0/8", "x"])", "{}", true, "10.0.0.0/8 ", {"192.0.2.0/33", "\"x\""}},
      // Nobody: the opposite of what was asked would be everybody.
      {__LINE__, R"(["nonsense"])", "{}", true, "", {"spec.loadBalancerSourceRanges"}},
      {__LINE__,
       "[]",
       R"({"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, 192.0.2.0/24,"})",
       true,
       "10.0.0.0/8 192.0.2.0/24 ",
       {"service.beta.kubernetes.io/load-balancer-source-ranges"}},
      // The field has precedence.
      {__LINE__,
       R"(["10.0.0.0/8"])",
       R"({"service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24"})",
       true,
       "10.0.0.0/8 ",
       {}},
  };
  for (const Case& c : cases) {
    std::vector<std::string> problems;
    const Service s = load_balancer(c.ranges, c.annotations, problems);
    std::string got;
    for (const Cidr& r : s.source_ranges) got += r.text() + " ";
    EXPECT_EQ(got, c.want) << c.line;
    EXPECT_EQ(s.limited, c.limited) << c.line;
    ASSERT_EQ(problems.size(), c.problems.size()) << c.line;
    for (std::size_t i = 0; i < problems.size(); ++i) EXPECT_THAT(problems[i], HasSubstr(c.problems[i])) << c.line;
    EXPECT_THAT(s.external_ips, ElementsAre(ip("203.0.113.1"))) << "the other is the balancer's";
    EXPECT_THAT(s.load_balancer_ips, ElementsAre(ip("203.0.113.2"), ip("2001:db8:1::2")));
  }
}

TEST(MakeServiceState, SourceRangesAreTheBalancersOnly) {
  std::vector<std::string> problems;
  const Service s = load_balancer(R"(["198.51.100.0/24", "192.0.2.0/24"])", "{}", problems);
  const auto state = make_service_state(s, {{s.ports[0], endpoints({"r"})}},
                                        {.name = "n1", .addresses = {ip("192.0.2.11"), ip("2001:db8::11")}});
  int limited = 0;
  for (const Frontend& f : state.frontends) {
    if (!f.limited) continue;
    ++limited;
    if (f.family == AF_INET) {
      // This node is inside, so it may use the address from the address itself.
      EXPECT_EQ(f.addr, ip("203.0.113.2"));
      EXPECT_THAT(f.sources, ElementsAre(*Cidr::parse("192.0.2.0/24"), *Cidr::parse("198.51.100.0/24"),
                                         *Cidr::parse("203.0.113.2/32")));
    } else {
      EXPECT_EQ(f.addr, ip("2001:db8:1::2"));
      EXPECT_THAT(f.sources, IsEmpty()) << "no range of this family: nobody";
    }
  }
  EXPECT_EQ(limited, 2);
}

TEST(Weights, AreSharesOfNewConnections) {
  const auto of = [](std::vector<std::uint16_t> weights) {
    std::vector<Endpoint> e = endpoints(std::vector<std::string>(weights.size(), "rL"));
    for (std::size_t i = 0; i < e.size(); ++i) e[i].weight = weights[i];
    return select_endpoints(e, {.name = "n1"}, AF_INET);
  };
  EXPECT_EQ(chosen(of({1, 1}).cluster), "0,1");
  EXPECT_EQ(chosen(of({3, 1}).cluster), "0,0,0,1");
  EXPECT_EQ(chosen(of({3, 1}).local), "0,0,0,1");
  EXPECT_EQ(chosen(of({100, 50}).cluster), "0,0,1") << "a common divisor";
  EXPECT_EQ(chosen(of({1, 0}).cluster), "0");
  EXPECT_EQ(chosen(of({1, 0}).draining), "1") << "its flows stay";
  EXPECT_EQ(chosen(of({0, 0}).cluster), "0,1") << "they are all there is";
  std::vector<std::uint16_t> many(100, 100);
  many[0] = 1;
  const auto big = of(many).cluster;
  EXPECT_LE(big.size(), 1200u);
  EXPECT_EQ(std::ranges::count(big, big[0]), 1) << "nobody who has a weight loses it";
}

TEST(Weights, ComeFromTheSliceOrTheService) {
  const auto annotated = [](std::string_view text) {
    return *object(fmt::format(R"({{"metadata": {{"annotations": {{"hawser.io/endpoint-weights": "{}"}}}}}})", text));
  };
  std::vector<std::string> problems;
  const auto problem = [&](std::string p) { problems.push_back(std::move(p)); };
  const std::vector<EndpointWeight> want = {{ip("10.244.1.2"), 3}, {ip("fd00::1"), 0}};
  EXPECT_EQ(parse_weights(annotated("10.244.1.2=3, fd00::1=0"), problem), want);
  EXPECT_THAT(problems, IsEmpty());
  for (const char* wrong : {"x", "10.0.0.1", "10.0.0.1=", "10.0.0.1=101", "10.0.0.1=-1", "=1", "10.0.0.1=1x", ","}) {
    problems.clear();
    EXPECT_THAT(parse_weights(annotated(wrong), problem), IsEmpty()) << wrong;
    EXPECT_FALSE(problems.empty()) << wrong;
  }
  auto slice = *object(R"({"metadata": {"namespace": "d", "labels": {"kubernetes.io/service-name": "web"},
    "annotations": {"hawser.io/endpoint-weights": "10.244.1.2=7"}}, "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.244.1.2"]}, {"addresses": ["10.244.1.3"]}]})");
  const Slice parsed = parse_slice(slice, "n1", problems);
  EXPECT_EQ(parsed.endpoints.at(0).weight, 7);
  EXPECT_EQ(parsed.endpoints.at(1).weight, 1);
  // The Service's word has precedence.
  const Service s{.key = "d/x",
                  .ports = {{.protocol = 6, .port = 80}},
                  .cluster_ips = {ip("10.96.0.1")},
                  .weights = {{endpoints({"r"})[0].target.addr, 2}}};
  const auto state = make_service_state(s, {{s.ports[0], endpoints({"r", "r"})}}, {.name = "n1"});
  EXPECT_EQ(chosen(state.frontends.at(0).targets), "0,0,1");
}

std::string slice_json(std::string_view name, std::string_view endpoints,
                       std::string_view ports = R"([{"name": "", "port": 8080}])") {
  return fmt::format(
      R"({{"metadata": {{"namespace": "d", "name": "{}", "labels": {{"kubernetes.io/service-name": "web"}}}},
    "addressType": "IPv4", "ports": {}, "endpoints": {}}})",
      name, ports, endpoints);
}

TEST(ParseSlice, ConditionsHaveDefaults) {
  struct Case {
    const char* conditions;
    bool ready, serving, terminating;
  };
  const Case cases[] = {
      {R"({})", true, true, false},
      {R"({"ready": null})", true, true, false},
      {R"({"ready": false})", false, false, false},
      {R"({"ready": false, "serving": true, "terminating": true})", false, true, true},
      {R"({"ready": true, "serving": null})", true, true, false},
  };
  for (const Case& c : cases) {
    std::vector<std::string> problems;
    const Slice s = parse_slice(
        *object(slice_json("s", fmt::format(R"([{{"addresses": ["10.244.1.1"], "conditions": {}, "nodeName": "n1"}}])",
                                            c.conditions))),
        "n1", problems);
    ASSERT_EQ(s.endpoints.size(), 1u);
    EXPECT_EQ(s.endpoints[0].ready, c.ready) << c.conditions;
    EXPECT_EQ(s.endpoints[0].serving, c.serving) << c.conditions;
    EXPECT_EQ(s.endpoints[0].terminating, c.terminating) << c.conditions;
    EXPECT_TRUE(s.endpoints[0].local);
  }
}

TEST(ParseSlice, SkipsWhatIsBad) {
  std::vector<std::string> problems;
  const Slice s = parse_slice(
      *object(slice_json(
          "s",
          R"([{"addresses": []}, {"addresses": ["x"]}, {"addresses": ["fd00::1"]}, {"addresses": ["10.244.1.1"]}, 7])",
          R"([{"name": "a"}, {"name": "b", "port": 0}, {"name": "c", "port": 80}])")),
      "n1", problems);
  EXPECT_EQ(s.endpoints.size(), 1u);
  EXPECT_FALSE(s.endpoints[0].local) << "no nodeName is never local";
  ASSERT_EQ(s.ports.size(), 1u);
  EXPECT_EQ(s.ports[0].name, "c");
  EXPECT_EQ(problems.size(), 6u);
  EXPECT_THAT(
      parse_slice(*object(R"({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "FQDN",
    "endpoints": [{"addresses": ["example.com"]}]})"),
                  "n1", problems)
          .service,
      "");
}

Slice slice(std::vector<Endpoint> e, std::string port_name = "", std::uint16_t port = 8080) {
  return {.service = "d/web", .ports = {{std::move(port_name), IPPROTO_TCP, port}}, .endpoints = std::move(e)};
}

TEST(EndpointSliceCache, MergesSlicesWithoutDoubles) {
  EndpointSliceCache c;
  const ServicePort port{"", IPPROTO_TCP, 80, 0};
  const Endpoint a{.target = {ip("10.244.1.1"), 0}}, b{.target = {ip("10.244.1.2"), 0}};
  Endpoint a_old = a;
  a_old.ready = a_old.serving = false;
  EXPECT_TRUE(c.update("d/1", slice({a_old})));
  EXPECT_TRUE(c.update("d/2", slice({a, b})));
  EXPECT_FALSE(c.update("d/2", slice({a, b}))) << "equal content is no change";
  auto r = c.endpoints("d/web", port);
  ASSERT_EQ(r.size(), 2u);
  EXPECT_TRUE(r[0].ready) << "the more usable of two that are the same";
  // One address with two ports behind one name is two endpoints [P40].
  EXPECT_TRUE(c.update("d/3", slice({a}, "", 9090)));
  EXPECT_EQ(c.endpoints("d/web", port).size(), 3u);
  EXPECT_THAT(c.endpoints("d/web", {"other", IPPROTO_TCP, 80, 0}), IsEmpty());
  EXPECT_THAT(c.endpoints("d/web", {"", IPPROTO_UDP, 80, 0}), IsEmpty());
  EXPECT_EQ(c.remove("d/2"), "d/web");
  EXPECT_EQ(c.remove("d/2"), "");
  EXPECT_EQ(c.endpoints("d/web", port).size(), 2u);
}

TEST(MakeServiceState, FrontendsOfEachPolicy) {
  Service s{.key = "d/web",
            .ports = {{"", IPPROTO_TCP, 80, 30080}},
            .cluster_ips = {ip("10.96.0.1"), ip("fd00::1")},
            .external_ips = {ip("203.0.113.1")}};
  auto e = endpoints({"r", "rL"});
  const ServiceState cluster = make_service_state(s, {{s.ports[0], e}}, {.name = "n1"});
  ASSERT_EQ(cluster.frontends.size(), 5u) << "VIP, external, node port; VIP and node port of IPv6";
  EXPECT_EQ(cluster.frontends[0].reach, Reach::kInternal);
  EXPECT_EQ(cluster.frontends[1].reach, Reach::kExternal);
  EXPECT_TRUE(cluster.frontends[2].is_node_port());
  EXPECT_EQ(cluster.frontends[2].port, 30080);
  EXPECT_THAT(cluster.frontends[3].targets, IsEmpty());
  EXPECT_THAT(cluster.local_addrs, ElementsAre(e[1].target.addr));
  s.external_local = s.internal_local = true;
  const ServiceState local = make_service_state(s, {{s.ports[0], e}}, {.name = "n1"});
  EXPECT_EQ(local.frontends[0].targets.size(), 1u) << "internal Local";
  EXPECT_EQ(local.frontends[1].reach, Reach::kExternalLocal);
  EXPECT_EQ(local.frontends[1].targets.size(), 2u);
  EXPECT_EQ(local.frontends[1].local.size(), 1u);
}

class TrackerTest : public ::testing::Test {
 protected:
  static kube::ObjectPtr service(std::string_view name, std::string_view vip, std::string_view extra = "") {
    return object(fmt::format(
        R"({{"metadata": {{"namespace": "d", "name": "{}"}}, "spec": {{"clusterIP": "{}", "ports": [{{"port": 80}}] {}}}}})",
        name, vip, extra));
  }
  static kube::ObjectPtr slice_of(std::string_view address, std::string_view time = "", std::string_view of = "web") {
    return object(
        fmt::format(R"({{"metadata": {{"namespace": "d", "name": "s", "labels": {{"kubernetes.io/service-name": "{}"}},
      "annotations": {{"endpoints.kubernetes.io/last-change-trigger-time": "{}"}}}}, "addressType": "IPv4",
      "ports": [{{"name": "", "port": 8080}}], "endpoints": [{{"addresses": ["{}"]}}]}})",
                    of, time, address));
  }
  std::vector<std::string> problems_;
  Tracker t_{{.name = "n1"}, [this](const std::string& p) { problems_.push_back(p); }};
};

TEST_F(TrackerTest, SharesWhatDidNotChange) {
  EXPECT_TRUE(t_.on_service(nullptr, service("web", "10.96.0.1")));
  EXPECT_TRUE(t_.on_service(nullptr, service("api", "10.96.0.2")));
  const auto first = t_.take();
  ASSERT_EQ(first.state->services.size(), 2u);
  EXPECT_EQ(first.state->services[0]->key, "d/api");
  EXPECT_EQ(first.counts.service_changes, 2u);
  EXPECT_TRUE(t_.on_slice(nullptr, slice_of("10.244.1.1")));
  const auto second = t_.take();
  EXPECT_EQ(second.state->generation, first.state->generation + 1);
  EXPECT_EQ(second.state->services[0], first.state->services[0]) << "same object";
  EXPECT_NE(second.state->services[1], first.state->services[1]);
  EXPECT_EQ(second.state->services[1]->frontends[0].targets.size(), 1u);
  EXPECT_EQ(second.counts.endpoint_changes, 1u);
}

TEST_F(TrackerTest, AChangeThatUndoesItselfIsNone) {
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  t_.on_slice(nullptr, slice_of("10.244.1.1"));
  const auto before = t_.take().state;
  t_.on_slice(nullptr, slice_of("10.244.1.2"));
  t_.on_slice(nullptr, slice_of("10.244.1.1"));
  t_.on_service(service("web", "10.96.0.1"), nullptr);
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  EXPECT_EQ(t_.take().state, before);
  EXPECT_FALSE(t_.on_service(nullptr, service("web", "10.96.0.1", R"(, "appProtocol": "x")"))) << "nothing we use";
}

TEST_F(TrackerTest, OrderOfServiceAndSliceDoesNotMatter) {
  t_.on_slice(nullptr, slice_of("10.244.1.1"));
  const auto none = t_.take().state;
  EXPECT_THAT(none->services, IsEmpty());
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  EXPECT_EQ(t_.take().state->services[0]->frontends[0].targets.size(), 1u);
  t_.on_service(service("web", "10.96.0.1"), nullptr);
  EXPECT_THAT(t_.take().state->services, IsEmpty());
}

TEST_F(TrackerTest, ASliceCanChangeItsService) {
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  t_.on_service(nullptr, service("api", "10.96.0.2"));
  t_.on_slice(nullptr, slice_of("10.244.1.1"));
  (void)t_.take();
  EXPECT_TRUE(t_.on_slice(slice_of("10.244.1.1"), slice_of("10.244.1.1", "", "api")));
  const auto state = t_.take().state;
  EXPECT_EQ(state->services.find("d/api")->frontends[0].targets.size(), 1u);
  EXPECT_THAT(state->services.find("d/web")->frontends[0].targets, IsEmpty());
}

TEST_F(TrackerTest, KeepsTheOldestTriggerTime) {
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  t_.on_slice(nullptr, slice_of("10.244.1.1", "2026-01-01T00:00:05Z"));
  t_.on_slice(nullptr, slice_of("10.244.1.2", "2026-01-01T00:00:03Z"));
  const auto taken = t_.take();
  ASSERT_EQ(taken.trigger_times.size(), 1u);
  EXPECT_EQ(taken.trigger_times[0].time_since_epoch() % std::chrono::minutes(1), std::chrono::seconds(3));
  EXPECT_THAT(t_.take().trigger_times, IsEmpty());
}

TEST_F(TrackerTest, NodeZoneAndEligibility) {
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  t_.take();
  EXPECT_TRUE(
      t_.on_node(nullptr, object(R"({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}}})")));
  EXPECT_TRUE(t_.node_eligible());
  EXPECT_FALSE(
      t_.on_node(nullptr, object(R"({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
    "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}})")));
  EXPECT_FALSE(t_.node_eligible());
  t_.on_node(nullptr, object(R"({"metadata": {"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z"}})"));
  EXPECT_FALSE(t_.node_eligible());
}

TEST_F(TrackerTest, BadObjectsAreReportedAndTheRestWorks) {
  t_.on_service(nullptr, service("bad", "nonsense"));
  t_.on_service(nullptr, service("web", "10.96.0.1"));
  EXPECT_EQ(t_.take().state->services.size(), 1u);
  EXPECT_EQ(problems_.size(), 1u);
}

TEST(TrafficOptions, NodePortAddresses) {
  const std::vector<IpAddr> node = {ip("192.0.2.11"), ip("2001:db8::11")};
  EXPECT_THAT(*parse_node_port_addresses({"primary"}, node),
              ElementsAre(*Cidr::parse("192.0.2.11/32"), *Cidr::parse("2001:db8::11/128")));
  EXPECT_THAT(*parse_node_port_addresses({"10.1.2.3/8"}, node), ElementsAre(*Cidr::parse("10.0.0.0/8")));
  for (const auto& wrong : {std::vector<std::string>{"primary", "10.0.0.0/8"}, {"x"}, {"10.0.0.1"}}) {
    EXPECT_THAT(parse_node_port_addresses(wrong, node).error().text, HasSubstr("nodePortAddresses"));
  }
  TrafficOptions o;
  EXPECT_TRUE(serves_node_ports(o, ip("192.0.2.11")));
  EXPECT_FALSE(serves_node_ports(o, ip("127.0.0.1")));
  EXPECT_FALSE(serves_node_ports(o, ip("::1")));
  o.node_port_addresses = {*Cidr::parse("192.0.2.0/24")};
  EXPECT_TRUE(serves_node_ports(o, ip("192.0.2.11")));
  EXPECT_FALSE(serves_node_ports(o, ip("198.51.100.1")));
}

TEST(TrafficOptions, MistakesAreNamed) {
  EXPECT_TRUE(check({}));
  EXPECT_THAT(check({.detect_local = DetectLocal::kBridgeInterface}).error().text, HasSubstr("detectLocal"));
  EXPECT_THAT(
      check({.detect_local = DetectLocal::kInterfacePrefix, .local_interface = "sixteen-letters-"}).error().text,
      HasSubstr("detectLocal"));
  EXPECT_THAT(check({.masquerade_mark = 3}).error().text, HasSubstr("masqueradeBit"));
  EXPECT_THAT(check({.cluster_cidrs = {*Cidr::parse("10.0.0.0/8"), *Cidr::parse("10.1.0.0/16")}}).error().text,
              HasSubstr("overlaps"));
}

ServiceStatePtr named(int n, int version = 0) {
  return std::make_shared<const ServiceState>(ServiceState{
      .key = fmt::format("d/{:05}", n), .local_addrs = std::vector<IpAddr>(static_cast<unsigned>(version))});
}

TEST(ServiceListTest, OneChangeSharesTheRest) {
  std::vector<ServiceStatePtr> all;
  for (int i = 9999; i >= 0; --i) all.push_back(named(i));
  const ServiceList before(all);
  ASSERT_EQ(before.size(), 10000u);
  EXPECT_TRUE(std::ranges::is_sorted(before, {}, [](const auto& s) { return s->key; }));
  const auto changed = named(5000, 1);
  const ServiceList after = before.with({{changed->key, changed}});
  EXPECT_EQ(after.find("d/05000"), changed);
  EXPECT_EQ(after[5000], changed);
  EXPECT_NE(before.find("d/05000"), changed) << "a value does not change";
  std::size_t shared = 0;
  for (const auto& c : after.chunks()) shared += std::ranges::count(before.chunks(), c);
  EXPECT_EQ(shared, before.chunks().size() - 1);
  int gone = 0, come = 0;
  ServiceList::compare(
      before, after, [&](const ServiceState& s) { gone += s.key == "d/05000" ? 1 : 100; },
      [&](const ServiceState& s) { come += &s == changed.get() ? 1 : 100; });
  EXPECT_EQ(gone, 1);
  EXPECT_EQ(come, 1);
}

TEST(ServiceListTest, LikeAMapWhateverComesAndGoes) {
  std::mt19937 random(1);
  std::map<std::string, ServiceStatePtr> want;
  ServiceList list;
  for (int step = 0; step < 400; ++step) {
    SCOPED_TRACE(step);
    const ServiceList before = list;
    const auto was = want;
    std::map<std::string, ServiceStatePtr> changes;
    // Grows, then shrinks; many at once and few.
    const unsigned n = step % 7 == 0 ? 300 : random() % 4;
    for (unsigned i = 0; i < n; ++i) {
      auto s = named(static_cast<int>(random() % 2000), step);
      const bool remove = random() % 10 < (step < 200 ? 3u : 8u);
      changes[s->key] = remove ? nullptr : s;
    }
    for (const auto& [key, s] : changes) {
      if (s)
        want[key] = s;
      else
        want.erase(key);
    }
    list = list.with({changes.begin(), changes.end()});
    ASSERT_EQ(list.size(), want.size());
    ASSERT_TRUE(std::ranges::equal(list, want, {}, {}, [](const auto& w) { return w.second; }));
    for (const auto& c : list.chunks()) ASSERT_TRUE(!c->empty() && c->size() <= ServiceList::kMaxChunk);
    ASSERT_LE(list.chunks().size(), 2 * list.size() / ServiceList::kMinChunk + 2) << "small chunks join";
    auto patched = was;
    ServiceList::compare(
        before, list, [&](const ServiceState& s) { ASSERT_EQ(patched.erase(s.key), 1u); },
        [&](const ServiceState& s) { ASSERT_TRUE(patched.emplace(s.key, list.find(s.key)).second); });
    ASSERT_EQ(patched, want);
  }
}

}  // namespace
}  // namespace hawser::proxy
