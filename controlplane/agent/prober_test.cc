// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/prober.h"

#include <atomic>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace hawser::agent {
namespace {

using namespace std::chrono_literals;

class FakeChecks final : public CheckRunner {
 public:
  Result<> run(const Check&, const CheckTarget&, std::chrono::seconds) override {
    ++runs;
    return ok ? Result<>{} : fail(0, "no");
  }
  std::atomic<bool> ok{false};
  std::atomic<int> runs{0};
};

class ProberTest : public ::testing::Test {
 protected:
  ProbeSubject subject(const char* container) {
    auto o = std::make_shared<kube::Object>(
        boost::json::parse(
            fmt::format(R"({{"metadata": {{"name": "p", "uid": "u"}}, "spec": {{"containers": [{}]}}}})", container))
            .as_object());
    pod_ = parse_pod(o);
    return {.pod = pod_, .container = "a", .target = {.container_id = "c", .ip = "10.0.0.1"}};
  }
  // Moves time on in small steps until fn() or `limit` has passed.
  bool within(Nanos limit, const std::function<bool()>& fn) {
    for (Nanos t{0}; t <= limit; t += 10ms) {
      std::mutex m;
      std::condition_variable cv;
      std::unique_lock l(m);
      for (int i = 0; i < 5 && !fn(); ++i)
        system_clock().wait_until(l, cv, system_clock().now() + 1ms, [] { return false; });
      if (fn()) return true;
      clock_.advance(10ms);
    }
    return fn();
  }
  FakeClock clock_;
  FakeChecks checks_;
  Executor executor_{4};
  std::atomic<int> changes_{0}, failures_{0};
  PodSpecPtr pod_;
  Prober prober_{checks_, executor_, [this](const std::string&) { ++changes_; },
                 [this](const ProbeSubject&, const std::string&) { ++failures_; }, clock_};
};

TEST_F(ProberTest, ReadyAsSoonAsItAnswers) {
  const auto s =
      subject(R"({"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 10}})");
  prober_.watch(s, pod_->main[0], false);
  ASSERT_TRUE(within(1s, [&] { return checks_.runs >= 3; })) << "tried in between";
  EXPECT_FALSE(prober_.verdict("c")->ready);
  EXPECT_EQ(failures_, 1) << "only the regular try counts";
  checks_.ok = true;
  EXPECT_TRUE(within(2s, [&] { return prober_.verdict("c")->ready; }));
  EXPECT_GE(changes_, 1);
}

TEST_F(ProberTest, LivenessKillsAtItsThreshold) {
  const auto s = subject(
      R"({"name": "a", "image": "i", "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3}})");
  prober_.watch(s, pod_->main[0], false);
  ASSERT_TRUE(within(10s, [&] { return !prober_.verdict("c")->kill.empty(); }));
  EXPECT_GE(failures_, 3);
  EXPECT_EQ(prober_.verdict("c")->kill, "Container a failed liveness probe, will be restarted");
}

TEST_F(ProberTest, OthersWaitForTheStart) {
  const auto s = subject(
      R"({"name": "a", "image": "i", "startupProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 30},
     "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1}})");
  prober_.watch(s, pod_->main[0], false);
  ASSERT_TRUE(within(5s, [&] { return failures_ >= 2; }));
  EXPECT_TRUE(prober_.verdict("c")->kill.empty());
  EXPECT_FALSE(prober_.verdict("c")->started);
  checks_.ok = true;
  EXPECT_TRUE(within(3s, [&] { return prober_.verdict("c")->started; }));
}

TEST_F(ProberTest, AdoptedContainerStaysReady) {
  const auto s = subject(
      R"({"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2}})");
  prober_.watch(s, pod_->main[0], true);
  EXPECT_TRUE(prober_.verdict("c")->ready);
  ASSERT_TRUE(within(10s, [&] { return !prober_.verdict("c")->ready; })) << "until its probe fails often enough";
  prober_.forget("c");
  EXPECT_FALSE(prober_.verdict("c"));
}

}  // namespace
}  // namespace hawser::agent
