// SPDX-License-Identifier: Apache-2.0
#include "proxyd/daemon.h"

#include <condition_variable>
#include <mutex>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/kube/fake_client.h"
#include "lib/netlink/rtnl_fake.h"

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
    return SyncReport{.full = full, .changes = full ? 1u : 0u, .frontends = state->services.size(), .udp = true};
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

class DaemonTest : public ::testing::Test {
 protected:
  void start() {
    daemon_ =
        std::make_unique<Daemon>(DaemonOptions{.node = "n1"}, api_, Kernel{backend_, conntrack_, rtnl_}, registry_);
    daemon_->start();
  }
  kube::FakeClient api_;
  FakeBackend backend_;
  FakeConntrack conntrack_;
  netlink::FakeRtnl rtnl_;
  metrics::Registry registry_;
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
  EXPECT_THAT(registry_.text(), HasSubstr("nftables_sync_failures_total 1"));
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

}  // namespace
}  // namespace hawser::proxy
