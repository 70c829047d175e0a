// SPDX-License-Identifier: Apache-2.0
#include "proxyd/health/health.h"

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/http/client.h"
#include "proxyd/health/node_ports.h"

namespace hawser::proxy {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

TEST(ProxyHealth, IsUnhealthyUntilTheKernelHasAState) {
  FakeClock clock;
  ProxyHealth h(clock, 60s);
  EXPECT_FALSE(h.healthy());
  EXPECT_EQ(answer_healthz("/healthz", h).status, 503);
  EXPECT_EQ(answer_healthz("/readyz", h).status, 503);
  h.queued();
  h.synced(7);
  EXPECT_TRUE(h.healthy());
  EXPECT_THAT(answer_healthz("/readyz", h).body, HasSubstr("generation 7"));
}

TEST(ProxyHealth, AChangeThatWaitsTooLongIsUnhealthy) {
  FakeClock clock;
  ProxyHealth h(clock, 60s);
  h.synced(1);
  clock.advance(1h);  // quiet is healthy
  EXPECT_TRUE(h.healthy());
  h.queued();
  clock.advance(59s);
  h.queued();  // a later change does not hide the first
  EXPECT_TRUE(h.alive());
  clock.advance(2s);
  EXPECT_FALSE(h.alive());
  h.syncing();
  EXPECT_FALSE(h.alive()) << "until it has succeeded";
  h.queued();  // came during the sync: the sync's success is not its own
  h.synced(2);
  EXPECT_TRUE(h.alive());
  clock.advance(61s);
  EXPECT_FALSE(h.alive());
  h.syncing();
  h.syncing();  // the first attempt failed
  EXPECT_FALSE(h.alive());
  h.synced(3);
  EXPECT_TRUE(h.alive());
}

TEST(ProxyHealth, StatusNamesWhatTheKernelServes) {
  FakeClock clock;
  ProxyHealth h(clock);
  EXPECT_THAT(h.status("n1", {.current = "nftables"}), HasSubstr(R"("ready":false)"));
  h.synced(4, {{"services", 17}});
  EXPECT_THAT(h.status("n1", {.current = "nftables"}), HasSubstr(R"("generation":4,"pending":false)"));
  EXPECT_THAT(h.status("n1", {.current = "nftables"}), HasSubstr(R"("resourceVersions":{"services":"17"})"));
}

TEST(ProxyHealth, ANodeOnItsWayOutIsAliveButNotHealthy) {
  FakeClock clock;
  ProxyHealth h(clock);
  h.synced(1);
  h.set_node_eligible(false);
  EXPECT_EQ(answer_healthz("/healthz", h).status, 503);
  EXPECT_EQ(answer_healthz("/livez", h).status, 200);
  EXPECT_THAT(answer_healthz("/healthz", h).body, HasSubstr(R"("nodeEligible": false)"));
  EXPECT_THAT(answer_healthz("/healthz", h).body, HasSubstr(R"("lastUpdated": "2026-01-01T00:00:00Z")"));
}

TEST(AnswerMetrics, HasKubeProxysNames) {
  metrics::Registry registry;
  ProxyMetrics m(registry);
  FakeClock clock;
  ProxyHealth h(clock);
  m.sync_duration.observe(0.01);
  auto body = answer_metrics("/metrics", h, registry, {}).body;
  for (const char* name :
       {"kubeproxy_sync_proxy_rules_duration_seconds_bucket", "kubeproxy_network_programming_duration_seconds_count",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds", "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending"})
    EXPECT_THAT(body, HasSubstr(name));
  EXPECT_EQ(answer_metrics("/proxyMode", h, registry, {}).body, "nftables");
  EXPECT_EQ(answer_metrics("/nothing", h, registry, {}).status, 404);
}

TEST(HealthServers, ServeAndNameAddressesThatDoNotWork) {
  metrics::Registry registry;
  FakeClock clock;
  ProxyHealth h(clock);
  auto bad = HealthServers::start({.healthz_bind = "nowhere:10256"}, h, registry);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().text, HasSubstr("--healthz-bind-address \"nowhere:10256\""));

  http::Server holder({}, nullptr, [](const http::Request&, http::Responder& out) { out.send({}); });
  auto port = holder.listen("127.0.0.1", 0);
  ASSERT_TRUE(port);
  auto busy = HealthServers::start(
      {.healthz_bind = fmt::format("127.0.0.1:{}", *port), .metrics_bind = "", .hard_fail = true}, h, registry);
  ASSERT_FALSE(busy);
  EXPECT_THAT(busy.error().text, HasSubstr(std::to_string(*port)));
  auto patient =
      HealthServers::start({.healthz_bind = fmt::format("127.0.0.1:{}", *port), .metrics_bind = ""}, h, registry);
  ASSERT_TRUE(patient);
  EXPECT_FALSE((*patient)->retry());
  holder.stop();
  EXPECT_TRUE((*patient)->retry());
  EXPECT_TRUE(HealthServers::start({.healthz_bind = "127.0.0.1:0", .metrics_bind = "[::1]:0"}, h, registry));
}

kube::ObjectPtr object(std::string_view text) {
  return std::make_shared<const kube::Object>(boost::json::parse(text).as_object());
}
kube::ObjectPtr slice(std::string_view name, std::string_view endpoints) {
  return object(fmt::format(
      R"({{"metadata": {{"namespace": "ns", "name": "{}", "labels": {{"kubernetes.io/service-name": "lb"}}}}, "endpoints": [{}]}})",
      name, endpoints));
}
kube::ObjectPtr load_balancer(int port, std::string_view policy = "Local") {
  return object(fmt::format(
      R"({{"metadata": {{"namespace": "ns", "name": "lb"}}, "spec": {{"type": "LoadBalancer", "externalTrafficPolicy": "{}", "healthCheckNodePort": {}}}}})",
      policy, port));
}

TEST(LocalEndpointCounts, CountsReadyOnesOfThisNodeOnce) {
  LocalEndpointCounts counts("n1");
  counts.on_service(nullptr, load_balancer(30100));
  EXPECT_EQ(counts.checks(), (HealthChecks{{"ns/lb", {30100, 0}}}));
  const std::string here = R"({"addresses": ["10.0.0.1"], "nodeName": "n1"})";
  auto a = slice("a", here + R"(, {"addresses": ["10.0.0.2"], "nodeName": "n2"})");
  auto b = slice("b", here + R"(, {"addresses": ["10.0.0.3"], "nodeName": "n1", "conditions": {"ready": true}},
    {"addresses": ["10.0.0.4"], "nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}})");
  counts.on_slice(nullptr, a);
  counts.on_slice(nullptr, b);
  EXPECT_EQ(counts.checks(), (HealthChecks{{"ns/lb", {30100, 2}}}));
  counts.on_slice(b, nullptr);
  EXPECT_EQ(counts.checks(), (HealthChecks{{"ns/lb", {30100, 1}}}));
  counts.on_slice(a, slice("a", ""));
  EXPECT_EQ(counts.checks(), (HealthChecks{{"ns/lb", {30100, 0}}}));
  counts.on_service(nullptr, load_balancer(30100, "Cluster"));
  EXPECT_TRUE(counts.checks().empty());
  counts.on_service(nullptr, load_balancer(-5));
  EXPECT_TRUE(counts.checks().empty());
}

TEST(AnswerHealthCheck, IsKubeProxys) {
  auto r = answer_health_check("ns/lb", 2, true);
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.headers.get("X-Load-Balancing-Endpoint-Weight"), "2");
  EXPECT_EQ(r.headers.get("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(boost::json::parse(r.body),
            boost::json::parse(
                R"({"service": {"namespace": "ns", "name": "lb"}, "localEndpoints": 2, "serviceProxyHealthy": true})"));
  EXPECT_EQ(answer_health_check("ns/lb", 0, true).status, 503);
  EXPECT_EQ(answer_health_check("ns/lb", 2, false).status, 503);
}

TEST(HealthCheckNodePorts, OpensAndClosesAsServicesChange) {
  FakeClock clock;
  ProxyHealth health(clock);
  health.synced(1);
  std::vector<std::string> problems;
  HealthCheckNodePorts ports(health,
                             [&](const std::string& s, const std::string& t) { problems.push_back(s + ": " + t); });
  // A port that is free: taken for a moment to learn its number.
  http::Server holder({}, nullptr, [](const http::Request&, http::Responder& out) { out.send({}); });
  const auto busy = holder.listen("127.0.0.1", 0).value();
  const std::vector<IpAddr> addresses = {*IpAddr::parse("127.0.0.1")};
  const auto get = [&](std::uint16_t port) {
    return http::Client({.host = "127.0.0.1", .port = port}).send({.target = "/any/path"});
  };
  ports.apply({{"ns/a", {busy, 1}}}, addresses);
  ports.apply({{"ns/a", {busy, 1}}}, addresses);
  ASSERT_EQ(problems.size(), 1u) << "told once";
  EXPECT_THAT(problems[0], HasSubstr("ns/a: spec.healthCheckNodePort"));
  holder.stop();
  ports.apply({{"ns/a", {busy, 1}}}, addresses);
  auto r = get(busy);
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_EQ(r->status, 200);
  ports.apply({{"ns/a", {busy, 0}}}, addresses);
  EXPECT_EQ(get(busy).value().status, 503);
  ports.apply({{"ns/b", {busy, 3}}}, addresses);  // another Service has it now
  EXPECT_EQ(get(busy).value().headers.get("X-Load-Balancing-Endpoint-Weight"), "3");
  ports.apply({{"ns/b", {busy, 3}}}, {});  // on all addresses
  EXPECT_EQ(get(busy).value().status, 200);
  ports.apply({}, {});
  EXPECT_FALSE(get(busy));
  EXPECT_EQ(problems.size(), 1u);
}

}  // namespace
}  // namespace hawser::proxy
