// SPDX-License-Identifier: Apache-2.0
// The agent against a real containerd: whole lives of pods, with an API server in memory. Skips, saying why, without
// root or containerd.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/agent/agent.h"
#include "controlplane/agent/containerd_fixture.h"
#include "controlplane/agent/cri_client.h"
#include "controlplane/agent/cri_log.h"
#include "controlplane/agent/pod_cgroup.h"
#include "lib/base/atomic_file.h"
#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"
#include "lib/testing/temp_dir.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
using kube::Object;
using testing::Containerd;
using testing::eventually;
using namespace std::chrono_literals;

std::string g_cgroup_parent;
Containerd* g_containerd = nullptr;

class CriTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!g_containerd) GTEST_SKIP() << testing::why_no_containerd();
    cri_ = std::make_unique<CriClient>(g_containerd->endpoint());
    start_agent();
  }
  void TearDown() override {
    if (!g_containerd) return;
    // Whatever the test left: every pod is deleted by force, and the agent clears the node.
    const auto left = api_.list(kube::kPods, {});
    for (const auto& p : left->items)
      (void)api_.remove(kube::kPods, kube::ns(*p), kube::name(*p), {.grace_period_seconds = 0});
    EXPECT_TRUE(eventually([&] { return cri_->list("")->sandboxes.empty(); }, 20s)) << "sandboxes left";
    agent_.reset();
  }

  void start_agent() {
    NodeSettings node;
    node.node_name = "node-1";
    node.node_ip = "192.0.2.11";
    node.root_dir = g_containerd->folder() + "/agent";
    node.pod_log_dir = g_containerd->folder() + "/logs";
    node.cgroup_parent = g_cgroup_parent;
    node.capacity_milli_cpu = 2000;
    node.capacity_memory_bytes = std::int64_t{8} << 30;
    agent_ = std::make_unique<Agent>(
        AgentParts{.client = api_,
                   .runtime = *cri_,
                   .images = *cri_,
                   .exits = [this](const auto& fn, std::stop_token stop) { return cri_->watch_exits(fn, stop); },
                   .event = [this](const PodSpec& p, const PodEvent& e) { on_event(p, e); },
                   .clock = system_clock()},
        node);
    agent_->start();
  }
  void on_event(const PodSpec& p, const PodEvent& e) {
    std::lock_guard l(mu_);
    events_.push_back(fmt::format("{} {} {}", p.name, e.reason, e.message));
  }
  bool has_event(const std::string& text) {
    std::lock_guard l(mu_);
    for (const auto& e : events_)
      if (e.find(text) != std::string::npos) return true;
    return false;
  }

  // `container`: JSON fields beside name and image; `spec`: fields of the pod's spec.
  void create(const std::string& name, const std::string& container, const std::string& spec = "") {
    const auto text =
        fmt::format(R"({{"metadata": {{"name": "{0}", "namespace": "default", "labels": {{"app": "{0}"}}}},
      "spec": {{"nodeName": "node-1", "containers": [{{"name": "main", "image": "localhost/hawser-test:1" {1}}}] {2}}},
      "status": {{"phase": "Pending"}}}})",
                    name, container.empty() ? "" : "," + container, spec.empty() ? "" : "," + spec);
    auto r = api_.create(kube::kPods, "default", boost::json::parse(text).as_object());
    ASSERT_TRUE(r) << r.error().text;
  }
  void remove(const std::string& name, int grace = 2) {
    (void)api_.remove(kube::kPods, "default", name, {.grace_period_seconds = grace});
  }
  Object pod(const std::string& name) {
    auto r = api_.get(kube::kPods, "default", name);
    return r ? **r : Object{};
  }
  std::string phase(const std::string& name) { return std::string(kube::str(pod(name), {"status", "phase"})); }
  Object container(const std::string& name) {
    const auto p = pod(name);
    const auto& list = kube::arr(p, {"status", "containerStatuses"});
    return list.empty() ? Object{} : kube::as_obj(list[0]);
  }
  bool ready(const std::string& name) { return kube::flag(container(name), {"ready"}); }
  std::string waiting(const std::string& name) {
    return std::string(kube::str(container(name), {"state", "waiting", "reason"}));
  }
  std::string log(const std::string& name, int attempt = 0) {
    const auto p = pod(name);
    return log_tail(
        fmt::format("{}/logs/default_{}_{}/main/{}.log", g_containerd->folder(), name, kube::uid(p), attempt), 10000,
        1 << 20);
  }

  kube::FakeClient api_;
  std::unique_ptr<CriClient> cri_;
  std::unique_ptr<Agent> agent_;
  std::mutex mu_;
  std::vector<std::string> events_;  // guarded by mu_
};

TEST_F(CriTest, NodeRegistersAndBecomesReady) {
  ASSERT_TRUE(eventually(
      [&] {
        auto n = api_.get(kube::kNodes, "", "node-1");
        if (!n) return false;
        for (const auto& c : kube::arr(**n, {"status", "conditions"}))
          if (kube::str(kube::as_obj(c), {"type"}) == "Ready" && kube::str(kube::as_obj(c), {"status"}) == "True")
            return true;
        return false;
      },
      10s));
  const auto n = *api_.get(kube::kNodes, "", "node-1");
  EXPECT_EQ(kube::str(*n, {"status", "nodeInfo", "containerRuntimeVersion"}).substr(0, 13), "containerd://");
  EXPECT_TRUE(eventually([&] { return api_.get(kube::kLeases, "kube-node-lease", "node-1").has_value(); }, 5s));
}

TEST_F(CriTest, PodRunsAndIsDeleted) {
  create("web", R"("args": ["lines", "3"])");
  ASSERT_TRUE(eventually([&] { return ready("web"); }, 20s)) << boost::json::serialize(pod("web"));
  EXPECT_EQ(phase("web"), "Running");
  EXPECT_TRUE(kube::str(pod("web"), {"status", "podIP"}).starts_with("10.99.0.")) << boost::json::serialize(pod("web"));
  EXPECT_TRUE(eventually([&] { return log("web") == "line 0\nline 1\nline 2\n"; }, 5s)) << log("web");
  EXPECT_TRUE(has_event("web Started Started container main"));
  remove("web", 5);
  EXPECT_TRUE(eventually([&] { return pod("web").empty(); }, 10s));
  EXPECT_TRUE(has_event("web Killing Stopping container main"));
  EXPECT_TRUE(cri_->list("")->sandboxes.empty());
  EXPECT_TRUE(fs::is_empty(g_containerd->folder() + "/agent/pods"));
  EXPECT_TRUE(fs::is_empty(g_containerd->folder() + "/logs"));
}

TEST_F(CriTest, StubbornContainerIsKilledAfterItsGrace) {
  create("mule", R"("args": ["stubborn"])");
  ASSERT_TRUE(eventually([&] { return ready("mule"); }, 20s));
  remove("mule", 1);
  EXPECT_TRUE(eventually([&] { return pod("mule").empty(); }, 10s));
}

TEST_F(CriTest, RestartPolicies) {
  create("once", R"("args": ["message", "the end", "3"])", R"("restartPolicy": "Never")");
  create("done", R"("args": ["exit", "0"])", R"("restartPolicy": "OnFailure")");
  create("crash", R"("args": ["exit", "7"])");
  ASSERT_TRUE(eventually([&] { return phase("once") == "Failed" && phase("done") == "Succeeded"; }, 20s));
  EXPECT_EQ(kube::num(container("once"), {"state", "terminated", "exitCode"}), 3);
  EXPECT_EQ(kube::str(container("once"), {"state", "terminated", "message"}), "the end");
  // The first restart is immediate, the second waits.
  ASSERT_TRUE(eventually([&] { return waiting("crash") == "CrashLoopBackOff"; }, 20s))
      << boost::json::serialize(pod("crash"));
  EXPECT_EQ(kube::num(container("crash"), {"restartCount"}), 1);
  EXPECT_EQ(kube::num(container("crash"), {"lastState", "terminated", "exitCode"}), 7);
  EXPECT_EQ(phase("crash"), "Running");
}

TEST_F(CriTest, InitContainersRunFirst) {
  create(
      "ini", R"("args": ["cat", "/shared/x"])",
      R"("restartPolicy": "Never", "initContainers": [{"name": "first", "image": "localhost/hawser-test:1", "args": ["exit", "0"]},
            {"name": "second", "image": "localhost/hawser-test:1", "args": ["exit", "1"]}])");
  ASSERT_TRUE(eventually([&] { return phase("ini") == "Failed"; }, 20s)) << boost::json::serialize(pod("ini"));
  EXPECT_EQ(waiting("ini"), "PodInitializing");
}

TEST_F(CriTest, EnvironmentAndVolumes) {
  ASSERT_TRUE(api_.create(
      kube::kConfigMaps, "default",
      boost::json::parse(
          R"({"metadata": {"name": "cm", "namespace": "default"}, "data": {"greeting": "hello", "line": "hello\n"}})")
          .as_object()));
  create("env", R"J("args": ["env"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(POD)"},
       {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
       {"name": "G", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "greeting"}}}])J");
  create(
      "vol",
      R"("args": ["catwait", "/etc/cm/line"], "volumeMounts": [{"name": "c", "mountPath": "/etc/cm"}, {"name": "e", "mountPath": "/data"}])",
      R"("volumes": [{"name": "c", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {"medium": "Memory"}}])");
  ASSERT_TRUE(eventually([&] { return ready("env") && ready("vol"); }, 20s)) << boost::json::serialize(pod("vol"));
  ASSERT_TRUE(eventually([&] { return log("env").find("G=hello\n") != std::string::npos; }, 5s)) << log("env");
  EXPECT_NE(log("env").find("B=1-$(POD)\n"), std::string::npos) << log("env");
  EXPECT_NE(log("env").find("IP=10.99.0."), std::string::npos);
  EXPECT_TRUE(eventually([&] { return log("vol") == "hello\n"; }, 5s)) << log("vol");

  // A changed ConfigMap reaches the running container.
  auto cm = **api_.get(kube::kConfigMaps, "default", "cm");
  kube::ensure(cm, {"data"})["greeting"] = "bye";
  ASSERT_TRUE(api_.update(kube::kConfigMaps, cm));
  const auto file = fmt::format("{}/agent/pods/{}/volumes/kubernetes.io~configmap/c/greeting", g_containerd->folder(),
                                kube::uid(pod("vol")));
  EXPECT_TRUE(eventually([&] { return read_file(file).value_or("") == "bye"; }, 30s));
}

TEST_F(CriTest, EachFaultHasItsReason) {
  create("noimage", R"("imagePullPolicy": "Never")");
  auto p = boost::json::parse(R"({"metadata": {"name": "absent", "namespace": "default"}, "spec": {"nodeName": "node-1",
    "containers": [{"name": "main", "image": "localhost/not-here:1"}]}, "status": {"phase": "Pending"}})")
               .as_object();
  ASSERT_TRUE(api_.create(kube::kPods, "default", p));
  p["metadata"].as_object()["name"] = "badname";
  p["spec"].as_object()["containers"].as_array()[0].as_object()["image"] = "Not//Valid:";
  ASSERT_TRUE(api_.create(kube::kPods, "default", p));
  create("nosecret", R"("env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}])");
  create("nomap", "", R"("volumes": [{"name": "c", "configMap": {"name": "gone"}}])");
  ASSERT_TRUE(eventually([&] { return waiting("badname") == "InvalidImageName"; }, 20s))
      << boost::json::serialize(pod("badname"));
  ASSERT_TRUE(eventually([&] { return waiting("nosecret") == "CreateContainerConfigError"; }, 20s));
  EXPECT_NE(kube::str(container("nosecret"), {"state", "waiting", "message"}).find("gone"), std::string_view::npos);
  ASSERT_TRUE(eventually([&] { return waiting("absent") == "ErrImagePull"; }, 20s))
      << boost::json::serialize(pod("absent"));
  ASSERT_TRUE(eventually([&] { return waiting("absent") == "ImagePullBackOff"; }, 10s));
  EXPECT_TRUE(has_event("absent Failed Failed to pull image \"localhost/not-here:1\""));
  EXPECT_TRUE(
      eventually([&] { return has_event("nomap FailedMount MountVolume.SetUp failed for volume \"c\" "); }, 10s));
  // What was missing comes, and the pod with it.
  ASSERT_TRUE(
      api_.create(kube::kSecrets, "default",
                  boost::json::parse(R"({"metadata": {"name": "gone", "namespace": "default"}, "data": {"k": "eA=="}})")
                      .as_object()));
  EXPECT_TRUE(eventually([&] { return ready("nosecret"); }, 20s)) << boost::json::serialize(pod("nosecret"));
}

TEST_F(CriTest, ProbesDecide) {
  create(
      "gate",
      R"("args": ["serve", "8080", "/tmp/open"], "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1})");
  create("fast", R"("args": ["serve", "8080"], "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 10})");
  create("exec",
         R"("args": ["pause"], "readinessProbe": {"exec": {"command": ["/bin/test-pod", "test", "/bin/test-pod"]}},
     "livenessProbe": {"exec": {"command": ["/bin/test-pod", "test", "/nope"]}, "periodSeconds": 1, "failureThreshold": 2})");
  ASSERT_TRUE(eventually([&] { return ready("fast"); }, 9s)) << "within the first period";
  ASSERT_TRUE(eventually([&] { return kube::num(container("exec"), {"restartCount"}) >= 1; }, 20s));
  EXPECT_TRUE(has_event("exec Killing Container main failed liveness probe, will be restarted"));
  EXPECT_TRUE(eventually(
      [&] { return has_event("gate Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 503"); }, 10s));
  EXPECT_FALSE(ready("gate"));
  const auto id = std::string(kube::str(container("gate"), {"containerID"})).substr(13);
  ASSERT_TRUE(cri_->exec(id, {"/bin/test-pod", "touch", "/tmp/open"}, 5s));
  EXPECT_TRUE(eventually([&] { return ready("gate"); }, 5s));
}

TEST_F(CriTest, AgentRestartAdoptsWhatRuns) {
  create("stay", R"("args": ["pause"])");
  create("crash", R"("args": ["exit", "7"])");
  ASSERT_TRUE(eventually([&] { return ready("stay") && waiting("crash") == "CrashLoopBackOff"; }, 20s));
  const auto before = container("stay");
  agent_.reset();
  start_agent();
  // The one that waited goes on waiting, with its count; nothing that ran is touched.
  ASSERT_TRUE(eventually(
      [&] {
        return agent_->pods().view("default", "stay") && !agent_->pods().view("default", "stay")->containers.empty();
      },
      5s));
  ASSERT_TRUE(eventually([&] { return kube::num(container("crash"), {"restartCount"}) == 2; }, 20s));
  EXPECT_EQ(container("stay"), before);
  // Deleted while no agent runs.
  agent_.reset();
  (void)api_.remove(kube::kPods, "default", "stay", {.grace_period_seconds = 0});
  fs::create_directories(g_containerd->folder() + "/agent/pods/left-over/volumes");
  start_agent();
  EXPECT_TRUE(eventually(
      [&] {
        const auto all = cri_->list("");
        return all && std::ranges::none_of(all->sandboxes, [](const Sandbox& s) { return s.name == "stay"; });
      },
      15s));
  EXPECT_TRUE(eventually([&] { return !fs::exists(g_containerd->folder() + "/agent/pods/left-over"); }, 40s));
}

TEST_F(CriTest, RuntimeRestartChangesNothing) {
  create("stay", R"("args": ["pause"])");
  ASSERT_TRUE(eventually([&] { return ready("stay"); }, 20s));
  const auto before = container("stay");
  g_containerd->kill();
  create("later", R"("args": ["pause"])");
  g_containerd->start();
  EXPECT_TRUE(eventually([&] { return ready("later"); }, 30s)) << boost::json::serialize(pod("later"));
  EXPECT_EQ(container("stay"), before);
}

TEST_F(CriTest, NetworkFailureIsToldAndRetried) {
  ASSERT_TRUE(eventually([&] { return agent_->ready(); }, 10s));
  g_containerd->set_network(false);
  create("nonet", R"("args": ["pause"])");
  EXPECT_TRUE(
      eventually([&] { return has_event("nonet FailedCreatePodSandBox Failed to create pod sandbox: "); }, 20s));
  g_containerd->set_network(true);
  EXPECT_TRUE(eventually([&] { return ready("nonet"); }, 40s)) << boost::json::serialize(pod("nonet"));
}

TEST_F(CriTest, ContainerThatDiesIsSeenAtOnce) {
  create("die", R"("args": ["pause"])");
  ASSERT_TRUE(eventually([&] { return ready("die"); }, 20s));
  const auto id = std::string(kube::str(container("die"), {"containerID"})).substr(13);
  const auto begin = system_clock().now();
  ASSERT_TRUE(cri_->stop_container(id, 0s));
  EXPECT_TRUE(eventually([&] { return kube::num(container("die"), {"restartCount"}) == 1 && ready("die"); }, 10s));
  RecordProperty(
      "restart_ms",
      static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(system_clock().now() - begin).count()));
}

TEST_F(CriTest, ManyPodsComeAndGo) {
  constexpr int kPods = 15;
  const auto begin = system_clock().now();
  for (int i = 0; i < kPods; ++i) create(fmt::format("many-{}", i), R"("args": ["serve", "8080"])");
  ASSERT_TRUE(eventually(
      [&] {
        for (int i = 0; i < kPods; ++i)
          if (!ready(fmt::format("many-{}", i))) return false;
        return true;
      },
      60s));
  const auto up = system_clock().now();
  for (int i = 0; i < kPods; ++i) remove(fmt::format("many-{}", i), 30);
  ASSERT_TRUE(eventually([&] { return api_.list(kube::kPods, {})->items.empty(); }, 30s));
  const auto down = system_clock().now();
  std::printf("%d pods: up in %.2f s, down in %.2f s\n", kPods, std::chrono::duration<double>(up - begin).count(),
              std::chrono::duration<double>(down - up).count());
}

// What containerd leaves when it is killed between starting a container's first process and recording it.
TEST_F(CriTest, ProcessNobodyKnowsEndsWithItsPodsCgroup) {
  const NodeSettings node{.cgroup_parent = g_cgroup_parent + "/orphans"};  // where the agent does not look
  std::string procs;
  for (const char* hierarchy : {"", "/pids", "/unified"}) {
    const auto dir = node.cgroup_root + hierarchy + pod_cgroup(node, "nobodys", "BestEffort") + "/c1";
    std::error_code ec;
    if (fs::exists(node.cgroup_root + hierarchy + "/cgroup.procs") && fs::create_directories(dir, ec))
      procs = dir + "/cgroup.procs";
  }
  ASSERT_FALSE(procs.empty());
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  ASSERT_GT(child, 0);
  ASSERT_TRUE(std::ofstream(procs) << child << std::flush);
  EXPECT_TRUE(pods_with_cgroups(node).contains("nobodys"));
  remove_pod_cgroups(node, "nobodys");
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  remove_pod_cgroups(node, "nobodys");
  EXPECT_FALSE(pods_with_cgroups(node).contains("nobodys"));
}

int run_tests() {
  hawser::testing::TempDir folder;
  Containerd containerd(folder.path(), HAWSER_PAUSE_IMAGE, HAWSER_TEST_IMAGE);
  g_containerd = &containerd;
  const int rc = RUN_ALL_TESTS();
  g_containerd = nullptr;
  return rc;
}

}  // namespace
}  // namespace hawser::agent

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!hawser::agent::testing::why_no_containerd().empty()) return RUN_ALL_TESTS();
  hawser::agent::g_cgroup_parent = fmt::format("/hawser-test-{}", ::getpid());
  return hawser::agent::testing::in_new_namespaces(hawser::agent::g_cgroup_parent, hawser::agent::run_tests);
}
