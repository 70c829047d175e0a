// SPDX-License-Identifier: Apache-2.0
#include "proxyd/health/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  h.synced(2);
  EXPECT_TRUE(h.alive());
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
  auto body = answer_metrics("/metrics", h, registry, "nftables").body;
  for (const char* name :
       {"kubeproxy_sync_proxy_rules_duration_seconds_bucket", "kubeproxy_network_programming_duration_seconds_count",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds", "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending"})
    EXPECT_THAT(body, HasSubstr(name));
  EXPECT_EQ(answer_metrics("/proxyMode", h, registry, "nftables").body, "nftables");
  EXPECT_EQ(answer_metrics("/nothing", h, registry, "nftables").status, 404);
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
  auto busy =
      HealthServers::start({.healthz_bind = fmt::format("127.0.0.1:{}", *port), .metrics_bind = ""}, h, registry);
  ASSERT_FALSE(busy);
  EXPECT_THAT(busy.error().text, HasSubstr(std::to_string(*port)));
  EXPECT_TRUE(HealthServers::start({.healthz_bind = "127.0.0.1:0", .metrics_bind = "[::1]:0"}, h, registry));
}

}  // namespace
}  // namespace hawser::proxy
