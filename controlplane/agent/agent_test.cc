// SPDX-License-Identifier: Apache-2.0
// The whole agent with a fake runtime and a fake API: failures and orders of events that a real runtime does not show
// on demand.
#include "controlplane/agent/agent.h"

#include <algorithm>
#include <filesystem>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>
#include <unistd.h>

#include "controlplane/agent/fake_cri.h"
#include "controlplane/agent/node_api.h"
#include "lib/base/atomic_file.h"
#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"
#include "lib/testing/temp_dir.h"

namespace hawser::agent {
namespace {

using namespace std::chrono_literals;
using kube::Object;

bool eventually(const std::function<bool()>& fn, std::chrono::seconds timeout = 10s) {
  std::mutex m;
  std::condition_variable cv;
  std::unique_lock l(m);
  const auto end = system_clock().now() + timeout;
  while (!fn() && system_clock().now() < end)
    system_clock().wait_until(l, cv, system_clock().now() + 5ms, [] { return false; });
  return fn();
}

class AgentTest : public ::testing::Test {
 protected:
  AgentTest() {
    cri_.add_image("i:1");
    start();
  }
  void start() {
    NodeSettings n;
    n.node_name = "n1";
    n.node_ip = "192.0.2.1";
    n.root_dir = dir_.file("root");
    n.pod_log_dir = dir_.file("logs");
    agent_ = std::make_unique<Agent>(AgentParts{.client = api_,
                                                .runtime = cri_,
                                                .images = cri_,
                                                .exits = nullptr,
                                                .event = [this](const PodSpec&, const PodEvent& e) { on_event(e); },
                                                .clock = system_clock()},
                                     n);
    agent_->start();
  }
  void on_event(const PodEvent& e) {
    std::lock_guard l(mu_);
    events_.push_back(e.reason + " " + e.message);
  }
  bool has_event(const std::string& text) {
    std::lock_guard l(mu_);
    return std::ranges::any_of(events_, [&](const std::string& e) { return e.find(text) != std::string::npos; });
  }
  void create(const std::string& name,
              const std::string& spec = R"({"nodeName": "n1", "containers": [{"name": "a", "image": "i:1"}]})") {
    const auto text = fmt::format(
        R"({{"metadata": {{"name": "{}", "namespace": "default"}}, "spec": {}, "status": {{"phase": "Pending"}}}})",
        name, spec);
    ASSERT_TRUE(api_.create(kube::kPods, "default", boost::json::parse(text).as_object()));
  }
  Object container(const std::string& name) {
    auto p = api_.get(kube::kPods, "default", name);
    if (!p) return {};
    const auto& list = kube::arr(**p, {"status", "containerStatuses"});
    return list.empty() ? Object{} : kube::as_obj(list[0]);
  }
  bool ready(const std::string& name) { return kube::flag(container(name), {"ready"}); }
  int count(const std::string& prefix) {
    const auto calls = cri_.calls();
    return static_cast<int>(std::ranges::count_if(calls, [&](const std::string& c) { return c.starts_with(prefix); }));
  }

  hawser::testing::TempDir dir_;
  kube::FakeClient api_;
  FakeCri cri_{system_clock()};
  std::mutex mu_;
  std::vector<std::string> events_;  // guarded by mu_
  std::unique_ptr<Agent> agent_;
};

TEST_F(AgentTest, FewCallsForAPod) {
  create("p");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  EXPECT_EQ(count("run_sandbox"), 1);
  EXPECT_EQ(count("sandbox_status"), 1);
  EXPECT_EQ(count("image_status"), 1);
  EXPECT_EQ(count("create_container"), 1);
  EXPECT_EQ(count("start_container"), 1);
  EXPECT_EQ(count("container_status"), 1);
}

TEST_F(AgentTest, SandboxFailureIsToldAndTriedAgain) {
  cri_.fail_next("run_sandbox", "failed to setup network: no address left");
  create("p");
  EXPECT_TRUE(eventually([&] { return ready("p"); }));
  EXPECT_TRUE(
      has_event("FailedCreatePodSandBox Failed to create pod sandbox: failed to setup network: no address left"));
}

TEST_F(AgentTest, StartErrorGoesTheWayOfRestarts) {
  cri_.fail_next("start_container", "exec: \"nope\": not found");
  create("p");
  EXPECT_TRUE(eventually([&] { return ready("p"); }));
  EXPECT_EQ(kube::num(container("p"), {"restartCount"}), 1);
  EXPECT_EQ(kube::str(container("p"), {"lastState", "terminated", "reason"}), "StartError");
}

TEST_F(AgentTest, CreateErrorIsAReason) {
  cri_.fail_next("create_container", "no space left on device", 1000);
  create("p");
  ASSERT_TRUE(eventually([&] {
    return kube::str(container("p"), {"state", "waiting", "reason"}) == "CreateContainerError";
  }));
  EXPECT_EQ(kube::str(container("p"), {"state", "waiting", "message"}), "no space left on device");
  cri_.fail_next("create_container", "", 0);
  EXPECT_TRUE(eventually([&] { return ready("p"); }));
}

TEST_F(AgentTest, DeadSandboxIsReplaced) {
  create("p");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  const auto all = cri_.everything();
  const std::string before(kube::str(container("p"), {"containerID"}));
  cri_.kill_sandbox(all.sandboxes[0].id);
  EXPECT_TRUE(eventually([&] { return ready("p") && kube::num(container("p"), {"restartCount"}) == 1; }));
  EXPECT_NE(kube::str(container("p"), {"containerID"}), before);
}

TEST_F(AgentTest, FailedStopIsTriedAgainWithPauses) {
  create("p");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  cri_.fail_next("stop_container", "busy", 1);
  cri_.fail_next("stop_sandbox", "network plugin failed", 1);
  ASSERT_TRUE(api_.remove(kube::kPods, "default", "p", {.grace_period_seconds = 1}));
  EXPECT_TRUE(eventually([&] { return !api_.get(kube::kPods, "default", "p"); }, 15s));
  EXPECT_LE(count("stop_container"), 3);
  EXPECT_TRUE(has_event("FailedKillPod error killing pod: busy"));
}

TEST_F(AgentTest, ApiAwayDoesNotStopRestarts) {
  create("p");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  api_.set_fault([](const kube::FakeClient::Call&) {
    return std::optional(Error{ECONNREFUSED, "connection refused", {}});
  });
  cri_.exit_container(cri_.everything().containers[0].id, 1);
  ASSERT_TRUE(eventually([&] { return count("start_container") == 2; }));
  api_.set_fault(nullptr);
  EXPECT_TRUE(eventually([&] { return kube::num(container("p"), {"restartCount"}) == 1 && ready("p"); }, 15s));
}

// The control plane writes Ready False for the pods of a node it does not hear from.
TEST_F(AgentTest, ReadyComesBackAfterTheControlPlaneTookIt) {
  create("p");
  const auto says_ready = [&] {
    for (const auto& c : kube::arr(**api_.get(kube::kPods, "default", "p"), {"status", "conditions"}))
      if (kube::str(kube::as_obj(c), {"type"}) == "Ready") return kube::str(kube::as_obj(c), {"status"}) == "True";
    return false;
  };
  ASSERT_TRUE(eventually(says_ready));
  Object silent = **api_.get(kube::kPods, "default", "p");
  for (auto& c : kube::ensure(silent, {"status"})["conditions"].as_array())
    if (c.as_object()["type"] == "Ready") c.as_object()["status"] = "False";
  ASSERT_TRUE(api_.update(kube::kPods, silent, "status"));
  EXPECT_TRUE(eventually(says_ready));
}

TEST_F(AgentTest, SecretsLieInMemoryAndLeaveNothing) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: it mounts";
  ASSERT_TRUE(api_.create(kube::kSecrets, "default",
                          boost::json::parse(R"({"metadata": {"name": "s"}, "data": {"k": "dg=="}})").as_object()));
  create("p", R"({"nodeName": "n1", "volumes": [{"name": "s", "secret": {"secretName": "s"}}],
                  "containers": [{"name": "a", "image": "i:1", "volumeMounts": [{"name": "s", "mountPath": "/s"}]}]})");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  const std::string uid(kube::uid(**api_.get(kube::kPods, "default", "p")));
  const std::string volume = dir_.file("root/pods/" + uid + "/volumes/kubernetes.io~secret/s");
  const auto mounted = [&] {
    return read_file("/proc/self/mountinfo").value_or("").find(" " + volume + " ") != std::string::npos;
  };
  EXPECT_TRUE(mounted());
  EXPECT_EQ(read_file(volume + "/k").value_or(""), "v");
  // The pod goes while no agent is there: the next one finds folder and mount and removes them.
  agent_.reset();
  ASSERT_TRUE(api_.remove(kube::kPods, "default", "p", {.grace_period_seconds = 0}));
  EXPECT_TRUE(mounted());
  start();
  EXPECT_TRUE(eventually([&] { return !mounted() && !std::filesystem::exists(dir_.file("root/pods/" + uid)); }));
}

TEST_F(AgentTest, SameNameNewPod) {
  create("p");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  const auto old = cri_.everything().sandboxes[0].uid;
  ASSERT_TRUE(api_.remove(kube::kPods, "default", "p", {.grace_period_seconds = 0}));
  create("p");
  EXPECT_TRUE(eventually([&] {
    const auto all = cri_.everything();
    return all.sandboxes.size() == 1 && all.sandboxes[0].uid != old && ready("p");
  }));
}

TEST_F(AgentTest, FinishedPodStaysFinishedUnderANewAgent) {
  create("p", R"({"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "a", "image": "i:1"}]})");
  ASSERT_TRUE(eventually([&] { return ready("p"); }));
  cri_.exit_container(cri_.everything().containers[0].id, 0);
  ASSERT_TRUE(eventually([&] {
    return kube::str(**api_.get(kube::kPods, "default", "p"), {"status", "phase"}) == "Succeeded";
  }));
  EXPECT_FALSE(kube::str(**api_.get(kube::kPods, "default", "p"), {"status", "podIP"}).empty());
  agent_.reset();
  const int starts = count("start_container");
  start();
  ASSERT_TRUE(eventually(
      [&] { return agent_->pods().view("default", "p") && !agent_->pods().view("default", "p")->containers.empty(); }));
  EXPECT_EQ(count("start_container"), starts);
}

TEST(NodeApi, Authorization) {
  EXPECT_EQ(authorize({}), 401);
  EXPECT_EQ(authorize({.user = "eve", .groups = {"system:nodes"}}), 403);
  EXPECT_EQ(authorize({.user = "admin", .groups = {"system:masters"}}), 0);
  EXPECT_EQ(authorize({.user = "kube-apiserver-kubelet-client", .groups = {}}), 0);
}

class Answer final : public http::Responder {
 public:
  void send(http::Response r) override { response = std::move(r); }
  std::shared_ptr<http::Stream> stream(http::Response) override { return nullptr; }
  std::shared_ptr<http::Responder> detach() override { return nullptr; }
  http::Response response;
};

TEST(NodeApi, LogsOfAContainer) {
  hawser::testing::TempDir dir;
  NodeSettings node;
  node.pod_log_dir = dir.path();
  metrics::Registry registry;
  Executor slow(1);
  auto view = std::make_shared<PodView>();
  view->spec = parse_pod(
      std::make_shared<Object>(boost::json::parse(R"({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
    "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}})")
                                   .as_object()));
  view->containers.push_back({.id = "c1", .name = "a", .attempt = 1, .state = ContainerState::kRunning});
  view->status = boost::json::parse(
                     R"({"containerStatuses": [{"name": "b", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]})")
                     .as_object();
  NodeApi api({.node = node,
               .metrics = registry,
               .slow = slow,
               .clock = system_clock(),
               .view = [&](const std::string&, const std::string& name) { return name == "p" ? view : nullptr; },
               .views = [&] { return std::vector<std::shared_ptr<const PodView>>{view}; }});
  std::filesystem::create_directories(dir.file("ns_p_u/a"));
  ASSERT_TRUE(write_file(dir.file("ns_p_u/a/1.log"), "2026-01-01T00:00:00Z stdout F hi\n"));
  struct Case {
    const char* target;
    int status;
    const char* body;
  };
  for (const auto& c : std::vector<Case>{
           {"/containerLogs/ns/p/a", 200, "hi\n"},
           {"/containerLogs/ns/p/a?tailLines=x", 400,
            "tailLines: Invalid value: \"x\": must be a number, 0 or greater"},
           {"/containerLogs/ns/p/a?previous=true", 400, "previous terminated container \"a\" in pod \"p\" not found"},
           {"/containerLogs/ns/p/b", 400, "container \"b\" in pod \"p\" is waiting to start: image can't be pulled"},
           {"/containerLogs/ns/p/zz", 404, "container \"zz\" not found in pod \"p\""},
           {"/containerLogs/ns/q/a", 404, "pod \"q\" does not exist on this node"},
           {"/containerLogs/ns/p", 404, "404 page not found"},
           {"/healthz", 200, "ok"}}) {
    http::Request r;
    r.target = c.target;
    r.peer = {.user = "admin", .groups = {"system:masters"}};
    Answer a;
    api.handle(r, a);
    EXPECT_EQ(a.response.status, c.status) << c.target;
    EXPECT_EQ(a.response.body, c.body) << c.target;
  }
}

}  // namespace
}  // namespace hawser::agent
