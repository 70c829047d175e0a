// SPDX-License-Identifier: Apache-2.0
// The scheduler against the in-memory API server.
#include "controlplane/scheduler/runner.h"

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "controlplane/scheduler/scheduler_testing.h"
#include "lib/kube/fake_client.h"

namespace hawser::scheduler {
namespace {

using namespace std::chrono_literals;

// Waits, without polling, until a predicate over all pods holds.
class PodWatch {
 public:
  explicit PodWatch(kube::FakeClient& client) : client_(client) {
    thread_ = std::jthread([this](const std::stop_token& stop) {
      static_cast<void>(client_.watch(
          kube::kPods, kube::WatchOptions{},
          [this](const kube::WatchEvent& e) {
            const std::lock_guard lock(mu_);
            if (e.type == kube::EventType::kDeleted)
              pods_.erase(std::string(kube::name(*e.object)));
            else if (e.type != kube::EventType::kBookmark)
              pods_[std::string(kube::name(*e.object))] = e.object;
            cv_.notify_all();
            return true;
          },
          stop));
    });
  }
  bool wait(const std::function<bool(const std::map<std::string, ObjectPtr>&)>& pred) {
    std::unique_lock lock(mu_);
    return cv_.wait_for(lock, 30s, [&] { return pred(pods_); });
  }

 private:
  kube::FakeClient& client_;
  std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, ObjectPtr> pods_;  // guarded by mu_
  std::jthread thread_;
};

std::string node_of(const ObjectPtr& p) {
  return std::string(kube::str(*p, {"spec", "nodeName"}));
}
auto all_bound(std::size_t n) {
  return [n](const std::map<std::string, ObjectPtr>& pods) {
    std::size_t bound = 0;
    for (const auto& [name, p] : pods) bound += node_of(p).empty() ? 0 : 1;
    return bound == n;
  };
}
std::string scheduled_message(const ObjectPtr& p) {
  for (const Value& c : kube::arr(*p, {"status", "conditions"}))
    if (kube::str(kube::as_obj(c), {"type"}) == "PodScheduled")
      return std::string(kube::str(kube::as_obj(c), {"message"}));
  return "";
}

void create_node(kube::FakeClient& client, const std::string& name, const std::string& spec = "") {
  const Object node = node_object(name, spec);
  ASSERT_TRUE(client.create(kube::kNodes, "", node));
  Object with_status = node;
  ASSERT_TRUE(client.update(kube::kNodes, with_status, "status"));
}

TEST(SchedulerRunner, BindsAndSpreads) {
  kube::FakeClient client;
  for (const char* n : {"a", "b", "c"}) create_node(client, n);
  PodWatch watch(client);
  Runner runner(client, {});
  runner.start();
  for (int i = 0; i < 30; ++i)
    ASSERT_TRUE(client.create(kube::kPods, "default",
                              pod_object("p" + std::to_string(i), R"("containers":[{"name":"c"}])",
                                         R"("ownerReferences":[{"uid":"rs","controller":true}])")));
  ASSERT_TRUE(client.create(kube::kPods, "default", pod_object("foreign", R"("schedulerName":"other")")));
  ASSERT_TRUE(watch.wait(all_bound(30)));
  std::map<std::string, int> per_node;
  ASSERT_TRUE(watch.wait([&](const auto& pods) {
    per_node.clear();
    for (const auto& [name, p] : pods) ++per_node[node_of(p)];
    return true;
  }));
  EXPECT_EQ(per_node["a"], 10);
  EXPECT_EQ(per_node["b"], 10);
  EXPECT_EQ(per_node["c"], 10);
  EXPECT_EQ(per_node[""], 1) << "another scheduler's pod stays";
}

TEST(SchedulerRunner, SaysWhyNotAndTriesAgainWhenANodeComes) {
  kube::FakeClient client;
  create_node(client, "a", R"("unschedulable":true)");
  PodWatch watch(client);
  Runner runner(client, {});
  runner.start();
  ASSERT_TRUE(client.create(kube::kPods, "default", pod_object("p")));
  ASSERT_TRUE(watch.wait([](const auto& pods) {
    const auto p = pods.find("p");
    return p != pods.end() && scheduled_message(p->second) == "0/1 nodes are available: 1 node(s) were unschedulable.";
  }));
  create_node(client, "b");
  ASSERT_TRUE(watch.wait([](const auto& pods) { return node_of(pods.at("p")) == "b"; }));
}

TEST(SchedulerRunner, TriesAgainWhenABindingFails) {
  kube::FakeClient client;
  create_node(client, "a");
  std::atomic<int> refused{0};
  client.set_fault([&](const kube::FakeClient::Call& c) -> std::optional<Error> {
    if (c.subresource == "binding" && refused++ == 0) return Error{503, "store is full", "ServiceUnavailable"};
    return std::nullopt;
  });
  PodWatch watch(client);
  Runner runner(client, {});
  runner.start();
  ASSERT_TRUE(client.create(kube::kPods, "default", pod_object("p")));
  ASSERT_TRUE(watch.wait(all_bound(1)));
  EXPECT_EQ(refused, 2);
}

TEST(SchedulerRunner, ANewRunnerGoesOn) {
  kube::FakeClient client;
  create_node(client, "a");
  PodWatch watch(client);
  for (int round = 1; round <= 3; ++round) {
    Runner runner(client, {});
    runner.start();
    for (int i = 0; i < 10; ++i)
      ASSERT_TRUE(
          client.create(kube::kPods, "default", pod_object("p" + std::to_string(round) + "-" + std::to_string(i))));
    if (round == 2) continue;  // dies in the middle
    ASSERT_TRUE(watch.wait(all_bound(static_cast<std::size_t>(10 * round))));
  }
}

}  // namespace
}  // namespace hawser::scheduler
