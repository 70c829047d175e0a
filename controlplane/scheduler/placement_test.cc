// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/placement.h"

#include <map>

#include <gtest/gtest.h>

#include "controlplane/scheduler/scheduler_testing.h"

namespace hawser::scheduler {
namespace {

struct Case {
  int line;
  const char* name;
  std::vector<Object> nodes;
  std::vector<std::pair<std::string, PodPtr>> placed;  // node, pod
  PodPtr pod;
  const char* node;  // "" for none, "*" for any
  const char* reason;
};

const std::string kRequest = R"("containers":[{"name":"c","resources":{"requests":{"cpu":"1500m","memory":"1Gi"}}}])";
const std::string kPort = R"("containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":8080}]}])";

std::string with_affinity(const std::string& affinity) {
  return R"("containers":[{"name":"c"}],"affinity":{)" + affinity + "}";
}

std::vector<Case> filter_cases() {
  const std::string web = R"("labels":{"app":"web"})";
  const std::string near =
      R"("requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchLabels":{"app":"web"}},"topologyKey":"kubernetes.io/hostname"}])";
  return {
      {__LINE__, "fits", {node_object("a")}, {}, pod_spec("p"), "a", ""},
      {__LINE__, "no nodes", {}, {}, pod_spec("p"), "", "no nodes available to schedule pods"},
      {__LINE__,
       "cpu and unschedulable",
       {node_object("a", "", "", R"("cpu":"1","memory":"8Gi","pods":"110")"),
        node_object("b", R"("unschedulable":true)"), node_object("c", R"("unschedulable":true)")},
       {},
       pod_spec("p", kRequest),
       "",
       "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."},
      {__LINE__,
       "cpu used up",
       {node_object("a", "", "", R"("cpu":"2","memory":"8Gi","pods":"110")")},
       {{"a", pod_spec("q", kRequest)}},
       pod_spec("p", kRequest),
       "",
       "0/1 nodes are available: 1 Insufficient cpu."},
      {__LINE__,
       "cpu and memory and pods",
       {node_object("a", "", "", R"("cpu":"1","memory":"1Mi","pods":"0")")},
       {},
       pod_spec("p", kRequest),
       "",
       "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods."},
      {__LINE__,
       "extended resource",
       {node_object("a")},
       {},
       pod_spec("p", R"("containers":[{"resources":{"requests":{"example.com/gpu":"1"}}}])"),
       "",
       "0/1 nodes are available: 1 Insufficient example.com/gpu."},
      {__LINE__,
       "init container counts by its maximum",
       {node_object("a", "", "", R"("cpu":"2","memory":"8Gi","pods":"110")")},
       {},
       pod_spec(
           "p",
           R"("initContainers":[{"resources":{"requests":{"cpu":"3"}}}],"containers":[{"resources":{"requests":{"cpu":"1"}}}])"),
       "",
       "0/1 nodes are available: 1 Insufficient cpu."},
      {__LINE__,
       "taint",
       {node_object("a", R"("taints":[{"key":"k","value":"v","effect":"NoSchedule"}])")},
       {},
       pod_spec("p"),
       "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."},
      {__LINE__,
       "not ready node",
       {node_object("a", R"("taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}])")},
       {},
       pod_spec("p"),
       "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."},
      {__LINE__,
       "taint tolerated",
       {node_object("a", R"("taints":[{"key":"k","value":"v","effect":"NoSchedule"}])")},
       {},
       pod_spec("p", R"("containers":[],"tolerations":[{"key":"k","operator":"Exists"}])"),
       "a",
       ""},
      {__LINE__,
       "toleration of another value",
       {node_object("a", R"("taints":[{"key":"k","value":"v","effect":"NoSchedule"}])")},
       {},
       pod_spec("p", R"("containers":[],"tolerations":[{"key":"k","value":"w"}])"),
       "",
       "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."},
      {__LINE__,
       "node selector",
       {node_object("a"), node_object("b", "", R"("disk":"ssd")")},
       {},
       pod_spec("p", R"("containers":[],"nodeSelector":{"disk":"ssd"})"),
       "b",
       ""},
      {__LINE__,
       "node selector of nobody",
       {node_object("a")},
       {},
       pod_spec("p", R"("containers":[],"nodeSelector":{"disk":"ssd"})"),
       "",
       "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
      {__LINE__,
       "required affinity",
       {node_object("a", "", R"("n":"3")"), node_object("b", "", R"("n":"7")")},
       {},
       pod_spec(
           "p",
           with_affinity(
               R"("nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"n","operator":"Gt","values":["5"]}]}]}})")),
       "b",
       ""},
      {__LINE__,
       "required affinity by name",
       {node_object("a"), node_object("b")},
       {},
       pod_spec(
           "p",
           with_affinity(
               R"("nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["b"]}]}]}})")),
       "b",
       ""},
      {__LINE__,
       "preferred affinity",
       {node_object("a"), node_object("b", "", R"("z":"1")")},
       {},
       pod_spec(
           "p",
           with_affinity(
               R"("nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":10,"preference":{"matchExpressions":[{"key":"z","operator":"Exists"}]}}]})")),
       "b",
       ""},
      {__LINE__,
       "host port taken",
       {node_object("a")},
       {{"a", pod_spec("q", kPort)}},
       pod_spec("p", kPort),
       "",
       "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
      {__LINE__,
       "host port free elsewhere",
       {node_object("a"), node_object("b")},
       {{"a", pod_spec("q", kPort)}},
       pod_spec("p", kPort),
       "b",
       ""},
      {__LINE__,
       "prefer no schedule",
       {node_object("a", R"("taints":[{"key":"k","effect":"PreferNoSchedule"}])"), node_object("b")},
       {},
       pod_spec("p"),
       "b",
       ""},
      {__LINE__,
       "anti-affinity",
       {node_object("a"), node_object("b")},
       {{"a", pod_spec("q", R"("containers":[])", web)}},
       pod_spec("p", with_affinity(R"("podAntiAffinity":{)" + near + "}"), web),
       "b",
       ""},
      {__LINE__,
       "anti-affinity of the placed pod",
       {node_object("a")},
       {{"a", pod_spec("q", with_affinity(R"("podAntiAffinity":{)" + near + "}"), web)}},
       pod_spec("p", R"("containers":[])", web),
       "",
       "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."},
      {__LINE__,
       "affinity",
       {node_object("a"), node_object("b")},
       {{"b", pod_spec("q", R"("containers":[])", web)}},
       pod_spec("p", with_affinity(R"("podAffinity":{)" + near + "}")),
       "b",
       ""},
      {__LINE__,
       "affinity with nobody",
       {node_object("a")},
       {},
       pod_spec("p", with_affinity(R"("podAffinity":{)" + near + "}")),
       "",
       "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
      {__LINE__,
       "affinity with itself",
       {node_object("a")},
       {},
       pod_spec("p", with_affinity(R"("podAffinity":{)" + near + "}"), web),
       "a",
       ""},
      {__LINE__,
       "hard spread",
       {node_object("a"), node_object("b", R"("unschedulable":true)")},
       {{"a", pod_spec("q", R"("containers":[])", web)}},
       pod_spec(
           "p",
           R"("containers":[],"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"app":"web"}}}])",
           web),
       "",
       "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were "
       "unschedulable."},
  };
}

TEST(Placement, Filters) {
  for (const Case& c : filter_cases()) {
    SCOPED_TRACE(std::to_string(c.line) + " " + c.name);
    ClusterState state;
    for (const Object& n : c.nodes) state.put_node(NodeSpec::from(n));
    for (const auto& [node, pod] : c.placed) state.assume(pod, node);
    const Placement got = place_pod(*c.pod, state, 0);
    EXPECT_EQ(got.node, c.node);
    EXPECT_EQ(got.reason, c.reason);
  }
}

TEST(Placement, SpreadsPodsOfOneOwnerEvenly) {
  ClusterState state;
  for (const char* n : {"a", "b", "c"}) state.put_node(NodeSpec::from(node_object(n)));
  // Somebody else's pods, unevenly.
  for (int i = 0; i < 4; ++i) state.assume(pod_spec("other-" + std::to_string(i)), "a");
  const std::string owner = R"("ownerReferences":[{"uid":"rs","controller":true}])";
  std::map<std::string, int> per_node;
  for (int i = 0; i < 30; ++i) {
    const PodPtr p = pod_spec("p" + std::to_string(i), R"("containers":[{"name":"c"}])", owner);
    const Placement where = place_pod(*p, state, static_cast<std::size_t>(i));
    ASSERT_FALSE(where.node.empty());
    state.assume(p, where.node);
    ++per_node[where.node];
  }
  EXPECT_EQ(per_node["a"], 10);
  EXPECT_EQ(per_node["b"], 10);
  EXPECT_EQ(per_node["c"], 10);
}

TEST(Placement, ThousandPodsOnTenNodesInWellUnderASecond) {
  ClusterState state;
  for (int i = 0; i < 10; ++i) state.put_node(NodeSpec::from(node_object("n" + std::to_string(i))));
  const std::clock_t begin = std::clock();
  for (int i = 0; i < 1000; ++i) {
    const PodPtr p = pod_spec("p" + std::to_string(i), R"("containers":[{"name":"c"}])",
                              R"("ownerReferences":[{"uid":"rs","controller":true}])");
    const Placement where = place_pod(*p, state, static_cast<std::size_t>(i));
    ASSERT_FALSE(where.node.empty()) << where.reason;
    state.assume(p, where.node);
  }
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  RecordProperty("cpu_ms", static_cast<int>(seconds * 1000));
  EXPECT_LT(seconds, 10) << "generous: sanitizer builds run this too";
  EXPECT_EQ(state.node("n3")->pods.size(), 100u);
}

TEST(ClusterState, CountsComeAndGo) {
  ClusterState state;
  state.put_node(NodeSpec::from(node_object("a")));
  const PodPtr p = pod_spec("p", kRequest);
  state.assume(p, "a");
  EXPECT_TRUE(state.is_assumed("default/p", "uid-p"));
  EXPECT_EQ(state.node("a")->requested.at("cpu"), 1500);
  EXPECT_EQ(state.node("a")->requested.at("memory"), 1LL << 30);
  state.forget("default/p");
  EXPECT_TRUE(state.node("a")->requested.empty());
  const PodPtr bound = pod_spec("p", kRequest + R"(,"nodeName":"a")");
  state.assume(p, "a");
  state.put_pod(bound);
  EXPECT_FALSE(state.is_assumed("default/p", "uid-p"));
  state.forget("default/p");
  EXPECT_EQ(state.node("a")->pods.size(), 1u) << "a confirmed pod is not forgotten";
  state.remove_node("a");
  EXPECT_TRUE(state.nodes().empty());
  state.put_node(NodeSpec::from(node_object("a")));
  EXPECT_EQ(state.node("a")->pods.size(), 1u) << "a node that comes back still has its pods";
  state.remove_pod("default/p");
  EXPECT_TRUE(state.node("a")->requested.empty());
}

}  // namespace
}  // namespace hawser::scheduler
