// SPDX-License-Identifier: Apache-2.0
#include "proxyd/daemon.h"

#include <condition_variable>
#include <mutex>
#include <set>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/http/client.h"
#include "lib/kube/event_recorder.h"
#include "lib/kube/fake_client.h"
#include "lib/netlink/rtnl_fake.h"
#include "proxyd/model/no_local.h"

namespace hawser::proxy {
namespace {

using ::testing::HasSubstr;

// Keeps what it is given; fails as often as it is told. The sync thread calls it, tests look.
class FakeBackend final : public Backend {
 public:
  [[nodiscard]] std::string_view name() const override { return "fake"; }
  Result<SyncReport> apply(const DesiredStatePtr& state) override {
    std::lock_guard l(mu_);
    ++calls_;
    cv_.notify_all();
    if (failures_ > 0) {
      --failures_;
      return fail(EBUSY, "the kernel is busy");
    }
    const bool full = !valid_;
    valid_ = true;
    last_ = state;
    return SyncReport{.full = full, .changes = full ? 1u : 0u, .frontends = state->services.size(), .flows = true};
  }
  void invalidate() override {
    std::lock_guard l(mu_);
    valid_ = false;
  }
  Result<> cleanup() override { return {}; }

  void fail_times(int n) {
    std::lock_guard l(mu_);
    failures_ = n;
  }
  bool wait(const std::function<bool(const DesiredState&, int calls)>& done) {
    std::unique_lock l(mu_);
    return cv_.wait_for(l, std::chrono::seconds(20), [&] { return last_ && done(*last_, calls_); });
  }
  int calls() {
    std::lock_guard l(mu_);
    return calls_;
  }

 private:
  std::mutex mu_;
  std::condition_variable cv_;
  bool valid_ = false;
  int failures_ = 0, calls_ = 0;
  DesiredStatePtr last_;
};

kube::Object service(std::string_view name, std::string_view labels = "{}") {
  return boost::json::parse(fmt::format(R"({{"metadata": {{"namespace": "d", "name": "{}", "labels": {}}},
    "spec": {{"clusterIP": "10.96.0.1", "ports": [{{"port": 80}}]}}}})",
                                        name, labels))
      .as_object();
}

// For what nothing announces.
bool eventually(const std::function<bool()>& done) {
  std::mutex mu;
  std::condition_variable cv;
  auto& clock = system_clock();
  const auto end = clock.now() + std::chrono::seconds(20);
  while (!done()) {
    if (clock.now() > end) return false;
    std::unique_lock l(mu);
    cv.wait_for(l, std::chrono::milliseconds(5));
  }
  return true;
}

class DaemonTest : public ::testing::Test {
 protected:
  void start() {
    const auto problem = [this](const kube::Resource& kind, const kube::Object& o, const std::string& text) {
      if (events_) events_->record(kind, o, {.warning = true, .reason = "ProxyCannotServe", .message = text});
    };
    daemon_ = std::make_unique<Daemon>(DaemonOptions{.node = "n1", .on_problem = problem}, api_,
                                       Kernel{backend_, conntrack_, rtnl_}, registry_);
    daemon_->start();
  }
  kube::FakeClient api_;
  FakeBackend backend_;
  FakeConntrack conntrack_;
  netlink::FakeRtnl rtnl_;
  metrics::Registry registry_;
  std::unique_ptr<kube::EventRecorder> events_;
  std::unique_ptr<Daemon> daemon_;
};

TEST_F(DaemonTest, AppliesWhatTheApiHasAndFollowsIt) {
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("a")));
  start();
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 1; }));
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("b")));
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 2; }));
  ASSERT_TRUE(api_.remove(kube::kServices, "d", "a"));
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 1 && s.services[0]->key == "d/b"; }));
}

TEST_F(DaemonTest, LeavesOtherProxiesServicesAlone) {
  ASSERT_TRUE(
      api_.create(kube::kServices, "d", service("other", R"({"service.kubernetes.io/service-proxy-name": "x"})")));
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("ours")));
  start();
  EXPECT_TRUE(
      backend_.wait([](const auto& s, int) { return s.services.size() == 1 && s.services[0]->key == "d/ours"; }));
}

TEST_F(DaemonTest, WritesNothingBeforeEverythingIsListed) {
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("a")));
  std::mutex mu;
  bool away = true;
  int asked = 0;
  std::condition_variable cv;
  api_.set_fault([&](const kube::FakeClient::Call& c) -> std::optional<Error> {
    std::lock_guard l(mu);
    if (c.resource != "endpointslices" || !away) return std::nullopt;
    ++asked;
    cv.notify_all();
    return Error{ECONNREFUSED, "connection refused", {}};
  });
  start();
  {
    std::unique_lock l(mu);
    ASSERT_TRUE(cv.wait_for(l, std::chrono::seconds(20), [&] { return asked >= 3; }));
  }
  EXPECT_EQ(backend_.calls(), 0);
  EXPECT_FALSE(daemon_->health().generation());
  EXPECT_FALSE(daemon_->health().healthy());
  {
    std::lock_guard l(mu);
    away = false;
  }
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 1; }));
  daemon_->stop();  // its threads use what is about to go
}

TEST_F(DaemonTest, TriesAgainAfterAFailure) {
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("a")));
  backend_.fail_times(1);
  start();
  EXPECT_TRUE(backend_.wait([](const auto& s, int calls) { return s.services.size() == 1 && calls >= 2; }));
  EXPECT_THAT(registry_.text(), HasSubstr("nftables_sync_failures_total{ip_family=\"IPv4\"} 1"));
}

TEST_F(DaemonTest, ReadsTheKernelAgainWhenOthersChangedIt) {
  start();
  ASSERT_TRUE(backend_.wait([](const auto&, int) { return true; }));
  const int before = backend_.calls();
  daemon_->table_changed();
  ASSERT_TRUE(backend_.wait([&](const auto&, int calls) { return calls > before; }));
  daemon_->stop();
  EXPECT_THAT(registry_.text(), HasSubstr("hawser_proxyd_repairs_total 1"));
}

// Exactly what the ClusterRole system:node-proxier grants.
TEST_F(DaemonTest, TheRightsOfNodeProxierAreEnough) {
  std::mutex mu;
  std::set<std::string> refused;
  api_.set_fault([&](const kube::FakeClient::Call& c) -> std::optional<Error> {
    const bool reads = c.verb == "list" || c.verb == "watch";
    if (reads && (c.resource == "services" || c.resource == "endpointslices" || c.resource == "nodes"))
      return std::nullopt;
    if (c.resource == "events" && (c.verb == "create" || c.verb == "patch")) return std::nullopt;
    std::lock_guard l(mu);
    // The test itself makes the objects.
    if (c.verb == "create") return std::nullopt;
    refused.insert(c.verb + " " + c.resource);
    return Error{403, "forbidden", "Forbidden"};
  });
  events_ = std::make_unique<kube::EventRecorder>(api_, "hawser-proxyd", "n1");
  start();
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("a")));
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 1; }));
  EXPECT_TRUE(events_->flush(std::chrono::seconds(20)));
  daemon_->stop();
  EXPECT_TRUE(refused.empty()) << *refused.begin();
}

TEST_F(DaemonTest, BadObjectsGetOneEventAndTheRestIsServed) {
  events_ = std::make_unique<kube::EventRecorder>(api_, "hawser-proxyd", "n1");
  auto bad = service("bad");
  bad["spec"].as_object()["ports"] = boost::json::parse(R"([{"name": "x", "port": -7}])");
  ASSERT_TRUE(api_.create(kube::kServices, "d", bad));
  ASSERT_TRUE(api_.create(kube::kServices, "d", service(std::string(1u << 20, 'x'))));
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("good")));
  start();
  EXPECT_TRUE(backend_.wait([](const auto& s, int) {
    return std::ranges::any_of(s.services, [](const auto& x) { return x->key == "d/good"; });
  }));
  ASSERT_TRUE(events_->flush(std::chrono::seconds(20)));
  auto events = api_.list(kube::kEvents, {});
  ASSERT_TRUE(events);
  ASSERT_EQ(events->items.size(), 1u);
  EXPECT_EQ(kube::str(*events->items[0], {"involvedObject", "name"}), "bad");
  EXPECT_EQ(kube::str(*events->items[0], {"reason"}), "ProxyCannotServe");
  EXPECT_THAT(std::string(kube::str(*events->items[0], {"message"})), HasSubstr("-7"));
  daemon_->stop();
}

TEST_F(DaemonTest, AnApiThatStaysAwayChangesNothing) {
  ASSERT_TRUE(api_.create(kube::kServices, "d", service("a")));
  start();
  ASSERT_TRUE(backend_.wait([](const auto& s, int) { return s.services.size() == 1; }));
  std::mutex mu;
  std::condition_variable cv;
  bool away = true;
  int asked = 0;
  api_.set_fault([&](const kube::FakeClient::Call& c) -> std::optional<Error> {
    std::lock_guard l(mu);
    if (!away || c.verb == "remove" || c.verb == "delete") return std::nullopt;
    ++asked;
    cv.notify_all();
    return Error{ECONNREFUSED, "connection refused", {}};
  });
  ASSERT_TRUE(api_.remove(kube::kServices, "d", "a"));
  api_.compact();
  api_.break_watches();
  {
    std::unique_lock l(mu);
    ASSERT_TRUE(cv.wait_for(l, std::chrono::seconds(20), [&] { return asked >= 6; }));
  }
  daemon_->table_changed();  // also then it is what is known that is written
  EXPECT_TRUE(daemon_->health().alive());
  {
    std::lock_guard l(mu);
    away = false;
  }
  EXPECT_TRUE(backend_.wait([](const auto& s, int) { return s.services.empty(); }));
  daemon_->stop();
}

TEST_F(DaemonTest, StatusNamesTheRevisionThatTheKernelServes) {
  start();
  auto made = api_.create(kube::kServices, "d", service("a"));
  ASSERT_TRUE(made);
  const std::string version(kube::resource_version(**made));
  const std::string want = "\"services\":\"" + version + "\"";
  EXPECT_TRUE(eventually([&] { return daemon_->health().status("n1", {.current = "fake"}).contains(want); }));
  daemon_->stop();
  EXPECT_THAT(registry_.text(), HasSubstr("hawser_proxyd_resource_version{kind=\"services\"} " + version));
}

TEST_F(DaemonTest, AHealthCheckIsServedOnItsPort) {
  http::Server holder({}, nullptr, [](const http::Request&, http::Responder& out) { out.send({}); });
  const auto port = holder.listen("127.0.0.1", 0).value();  // a number that is free
  holder.stop();
  auto lb = service("lb");
  auto& spec = lb["spec"].as_object();
  spec["type"] = "LoadBalancer";
  spec["externalTrafficPolicy"] = "Local";
  spec["healthCheckNodePort"] = port;
  ASSERT_TRUE(api_.create(kube::kServices, "d", lb));
  ASSERT_TRUE(api_.create(kube::kEndpointSlices, "d",
                          boost::json::parse(R"({"metadata": {"namespace": "d", "name": "lb-1",
    "labels": {"kubernetes.io/service-name": "lb"}}, "addressType": "IPv4", "ports": [{"port": 80}],
    "endpoints": [{"addresses": ["10.244.1.9"], "nodeName": "n1"}]})")
                              .as_object()));
  start();
  http::Client client({.host = "127.0.0.1", .port = port});
  // The port opens after the rules are written.
  std::string weight;
  EXPECT_TRUE(eventually([&] {
    if (auto r = client.send({.target = "/"})) weight = r->headers.get("X-Load-Balancing-Endpoint-Weight");
    return weight == "1";
  })) << weight;
  daemon_->stop();
}

TEST(CountNoLocal, APortOnceByPolicyAndFamily) {
  const IpAddr v4 = *IpAddr::parse("10.96.0.1"), v6 = *IpAddr::parse("fd00::1");
  const std::vector<Target> far{{*IpAddr::parse("10.244.2.2"), 8080}}, near{{*IpAddr::parse("10.244.1.2"), 8080}};
  const auto frontend = [](IpAddr addr, int family, std::uint16_t port, Reach reach) {
    return Frontend{.addr = addr, .family = family, .protocol = IPPROTO_TCP, .port = port, .reach = reach};
  };
  Frontend none_here = frontend(v4, AF_INET, 80, Reach::kInternal);
  none_here.when_empty = WhenEmpty::kDrop;
  Frontend none_at_all = frontend(v4, AF_INET, 81, Reach::kInternal);
  std::vector<Frontend> frontends{none_here, none_at_all};
  // Two addresses and the node port of one port; another port's node port alone; one with endpoints here.
  for (const auto& [addr, port] : {std::pair{"203.0.113.1", 90}, {"203.0.113.2", 90}}) {
    frontends.push_back(
        frontend(*IpAddr::parse(addr), AF_INET, static_cast<std::uint16_t>(port), Reach::kExternalLocal));
    frontends.back().targets = far;
  }
  frontends.push_back(frontend({}, AF_INET, 30090, Reach::kExternalLocal));
  frontends.back().targets = far;
  auto a = std::make_shared<ServiceState>();
  a->key = "d/a";
  a->frontends = frontends;
  auto b = std::make_shared<ServiceState>();
  b->key = "d/b";
  b->frontends = {frontend({}, AF_INET, 30091, Reach::kExternalLocal),
                  frontend({}, AF_INET, 30092, Reach::kExternalLocal)};
  for (Frontend& f : b->frontends) f.targets = far;
  b->frontends[1].targets = b->frontends[1].local = near;
  auto c = std::make_shared<ServiceState>();
  c->key = "d/c";
  none_here.addr = v6;
  none_here.family = AF_INET6;
  c->frontends = {none_here};
  DesiredState d;
  d.services = {a, b, c};
  EXPECT_EQ(count_no_local(d, AF_INET), (NoLocalEndpoints{.internal = 1, .external = 2}));
  EXPECT_EQ(count_no_local(d, AF_INET6), (NoLocalEndpoints{.internal = 1, .external = 0}));
}

TEST_F(DaemonTest, CountsServicesWithoutEndpointsHere) {
  auto local = service("a");
  local["spec"].as_object()["internalTrafficPolicy"] = "Local";
  ASSERT_TRUE(api_.create(kube::kServices, "d", local));
  ASSERT_TRUE(api_.create(kube::kEndpointSlices, "d",
                          boost::json::parse(R"({"metadata": {"namespace": "d", "name": "a-1",
      "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
      "endpoints": [{"addresses": ["10.244.2.2"], "nodeName": "n2"}]})")
                              .as_object()));
  start();
  EXPECT_TRUE(eventually([&] {
    return registry_.text().contains(
        R"(kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal",ip_family="IPv4"} 1)");
  })) << registry_.text();
  daemon_->stop();
}

}  // namespace
}  // namespace hawser::proxy
