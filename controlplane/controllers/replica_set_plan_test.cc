// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/replica_set_plan.h"

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"
#include "controlplane/controllers/ownership.h"

namespace hawser::controllers {
namespace {

const WallTime kNow = at("2026-01-01T01:00:00Z");

Object replica_set(int replicas, const std::string& extra = "") {
  return json("{'metadata':{'name':'web','namespace':'d','uid':'rs','generation':3},'spec':{'replicas':" +
              std::to_string(replicas) + extra +
              ",'template':{'metadata':{'labels':{'app':'web'}},'spec':{'containers':[{'name':'c'}]}}}}");
}

struct PodText {
  std::string name;
  std::string node = "n1";
  std::string phase = "Running";
  std::string ready_since = "2026-01-01T00:00:00Z";  // empty: not ready
  std::string created = "2026-01-01T00:00:00Z";
  std::string meta;
  int restarts = 0;
};
ObjectPtr pod(const PodText& p) {
  return shared("{'metadata':{'name':'" + p.name + "','creationTimestamp':'" + p.created + "','labels':{'app':'web'}" +
                p.meta + "},'spec':{'nodeName':'" + p.node + "'},'status':{'phase':'" + p.phase +
                "','conditions':[{'type':'Ready','status':'" + (p.ready_since.empty() ? "False" : "True") +
                "','lastTransitionTime':'" + p.ready_since +
                "'}],'containerStatuses':[{'restartCount':" + std::to_string(p.restarts) + "}]}}");
}

struct RemoveCase {
  int line;
  const char* name;
  std::vector<PodText> pods;
  int replicas;
  std::vector<std::string> want;
};

TEST(ReplicaSetPlan, WhoGoesFirst) {
  const std::vector<RemoveCase> cases{
      {__LINE__, "nobody", {{.name = "a"}}, 1, {}},
      {__LINE__,
       "unassigned",
       {{.name = "a"}, {.name = "b", .node = "", .phase = "Pending", .ready_since = ""}},
       1,
       {"b"}},
      {__LINE__,
       "pending",
       {{.name = "a", .ready_since = ""}, {.name = "b", .phase = "Pending", .ready_since = ""}},
       1,
       {"b"}},
      {__LINE__, "not ready", {{.name = "a"}, {.name = "b", .ready_since = ""}}, 1, {"b"}},
      {__LINE__,
       "deletion cost",
       {{.name = "a", .meta = ",'annotations':{'controller.kubernetes.io/pod-deletion-cost':'5'}"}, {.name = "b"}},
       1,
       {"b"}},
      {__LINE__,
       "negative cost",
       {{.name = "a", .meta = ",'annotations':{'controller.kubernetes.io/pod-deletion-cost':'-5'}"}, {.name = "b"}},
       1,
       {"a"}},
      {__LINE__, "crowded node", {{.name = "a", .node = "n2"}, {.name = "b"}, {.name = "c"}}, 2, {"b"}},
      {__LINE__,
       "ready for less time",
       {{.name = "a", .ready_since = "2026-01-01T00:30:00Z"}, {.name = "b"}},
       1,
       {"a"}},
      {__LINE__, "restarts", {{.name = "a", .restarts = 3}, {.name = "b"}}, 1, {"a"}},
      {__LINE__, "younger", {{.name = "a"}, {.name = "b", .created = "2026-01-01T00:10:00Z"}}, 1, {"b"}},
      {__LINE__, "all", {{.name = "a"}, {.name = "b"}}, 0, {"a", "b"}},
      {__LINE__,
       "dying and dead ones do not count",
       {{.name = "a", .meta = ",'deletionTimestamp':'2026-01-01T00:00:00Z'"},
        {.name = "b", .phase = "Failed"},
        {.name = "c"}},
       1,
       {}},
  };
  for (const RemoveCase& c : cases) {
    SCOPED_TRACE(std::to_string(c.line) + " " + c.name);
    const Object rs = replica_set(c.replicas);
    std::vector<ObjectPtr> pods;
    for (const PodText& p : c.pods) pods.push_back(pod(p));
    const ReplicaSetPlan plan = plan_replicas({rs, pods, pods, kNow});
    EXPECT_EQ(plan.create, 0);
    std::vector<std::string> got;
    for (const ObjectPtr& p : plan.remove) got.emplace_back(kube::name(*p));
    EXPECT_EQ(got, c.want);
  }
}

TEST(ReplicaSetPlan, CreatesWhatIsMissing) {
  const Object rs = replica_set(5);
  const std::vector<ObjectPtr> pods{pod({.name = "a"}), pod({.name = "b", .phase = "Failed"}),
                                    pod({.name = "c", .meta = ",'deletionTimestamp':'2026-01-01T00:00:00Z'"})};
  EXPECT_EQ(plan_replicas({rs, pods, pods, kNow}).create, 4);
  const Object gone = json("{'metadata':{'deletionTimestamp':'2026-01-01T00:00:00Z'},'spec':{'replicas':5}}");
  EXPECT_EQ(plan_replicas({gone, {}, {}, kNow}).create, 0);
}

TEST(ReplicaSetPlan, StatusCounts) {
  const Object rs = replica_set(4, ",'minReadySeconds':60");
  const std::vector<ObjectPtr> pods{pod({.name = "a"}), pod({.name = "b", .ready_since = "2026-01-01T00:59:30Z"}),
                                    pod({.name = "c", .ready_since = ""}), pod({.name = "d", .phase = "Succeeded"})};
  const ReplicaSetStatus got = plan_status({rs, pods, {}, kNow}, std::nullopt);
  ASSERT_TRUE(got.status);
  EXPECT_EQ(
      *got.status,
      json("{'replicas':3,'fullyLabeledReplicas':3,'readyReplicas':2,'availableReplicas':1,'observedGeneration':3}"))
      << dump(*got.status);
  EXPECT_EQ(got.recheck, std::chrono::seconds(30));

  Object settled = rs;
  settled["status"] = *got.status;
  EXPECT_FALSE(plan_status({settled, pods, {}, kNow}, std::nullopt).status) << "the same again is not written";
}

TEST(ReplicaSetPlan, FailureConditionComesAndGoes) {
  Object rs = replica_set(1);
  const auto failed = plan_status({rs, {}, {}, kNow}, ReplicaFailure{"FailedCreate", "quota"});
  ASSERT_TRUE(failed.status);
  EXPECT_EQ(kube::str(*failed.status, {"conditions"}), "");
  EXPECT_EQ(kube::str(kube::as_obj(kube::arr(*failed.status, {"conditions"})[0]), {"reason"}), "FailedCreate");
  rs["status"] = *failed.status;
  const auto cleared = plan_status({rs, {}, {}, kNow}, std::nullopt);
  ASSERT_TRUE(cleared.status);
  EXPECT_TRUE(kube::arr(*cleared.status, {"conditions"}).empty());
}

TEST(ReplicaSetPlan, PodFromTemplate) {
  const Object made = pod_from_template(replica_set(1));
  EXPECT_EQ(dump(made),
            dump(json("{'apiVersion':'v1','kind':'Pod','metadata':{'labels':{'app':'web'},'generateName':'web-','"
                      "namespace':'d','ownerReferences':"
                      "[{'apiVersion':'apps/"
                      "v1','kind':'ReplicaSet','name':'web','uid':'rs','controller':true,'blockOwnerDeletion':true}]},"
                      "'spec':{'containers':[{'name':'c'}]}}")));
}

TEST(Ownership, ClaimAdoptsAndReleases) {
  const Object owner = json("{'metadata':{'uid':'o'}}");
  const auto selector = kube::LabelSelector::parse("app=web");
  ASSERT_TRUE(selector);
  const std::vector<ObjectPtr> objects{
      shared("{'metadata':{'name':'mine','labels':{'app':'web'},'ownerReferences':[{'uid':'o','controller':true}]}}"),
      shared("{'metadata':{'name':'changed','labels':{'app':'db'},'ownerReferences':[{'uid':'o','controller':true}]}}"),
      shared("{'metadata':{'name':'orphan','labels':{'app':'web'}}}"),
      shared("{'metadata':{'name':'dying','labels':{'app':'web'},'deletionTimestamp':'x'}}"),
      shared("{'metadata':{'name':'theirs','labels':{'app':'web'},'ownerReferences':[{'uid':'p','controller':true}]}}"),
      shared("{'metadata':{'name':'other','labels':{'app':'db'}}}"),
  };
  const Claim c = claim(owner, *selector, objects);
  ASSERT_EQ(c.owned.size(), 1u);
  ASSERT_EQ(c.adopt.size(), 1u);
  ASSERT_EQ(c.release.size(), 1u);
  EXPECT_EQ(kube::name(*c.adopt[0]), "orphan");
  EXPECT_EQ(kube::name(*c.release[0]), "changed");
  EXPECT_TRUE(kube::controller_of(without_owner(*c.release[0], "o")).empty());
  EXPECT_EQ(
      kube::str(kube::controller_of(with_owner(*c.adopt[0], controller_reference("apps/v1", "ReplicaSet", owner))),
                {"uid"}),
      "o");
}

}  // namespace
}  // namespace hawser::controllers
