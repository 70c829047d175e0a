// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/deployment_plan.h"

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"
#include "controlplane/controllers/deployment_sets.h"
#include "controlplane/controllers/template_hash.h"

namespace hawser::controllers {
namespace {

const WallTime kNow = at("2026-01-01T01:00:00Z");

struct Dep {
  int replicas = 10;
  std::string image = "v2";
  std::string strategy = "{'type':'RollingUpdate','rollingUpdate':{'maxSurge':'25%','maxUnavailable':'25%'}}";
  std::string spec;    // ",'paused':true"
  std::string status;  // "'replicas':10"
};
Object deployment(const Dep& d) {
  return json("{'metadata':{'name':'web','namespace':'d','uid':'dep','generation':2},'spec':{'replicas':" +
              std::to_string(d.replicas) + ",'strategy':" + d.strategy +
              ",'selector':{'matchLabels':{'app':'web'}},'progressDeadlineSeconds':600,'revisionHistoryLimit':10" +
              d.spec + ",'template':{'metadata':{'labels':{'app':'web'}},'spec':{'containers':[{'image':'" + d.image +
              "'}]}}},'status':{" + d.status + "}}");
}

struct Set {
  std::string image;
  int size = 0;
  int available = -1;  // < 0: all
  int revision = 1;
  int desired = 10;  // annotations of the last scaling
  int max = 13;
  std::string created = "2026-01-01T00:00:00Z";
};
ObjectPtr replica_set(const Set& s) {
  const int available = s.available < 0 ? s.size : s.available;
  const std::string n = std::to_string(available);
  return shared(
      "{'metadata':{'name':'web-" + s.image + "','namespace':'d','uid':'rs-" + s.image +
      "','generation':1,'creationTimestamp':'" + s.created + "','annotations':{'deployment.kubernetes.io/revision':'" +
      std::to_string(s.revision) + "','deployment.kubernetes.io/desired-replicas':'" + std::to_string(s.desired) +
      "','deployment.kubernetes.io/max-replicas':'" + std::to_string(s.max) +
      "'}},'spec':{'replicas':" + std::to_string(s.size) +
      ",'template':{'metadata':{'labels':{'app':'web','pod-template-hash':'x'}},'spec':{'containers':[{'image':'" +
      s.image + "'}]}}},'status':{'replicas':" + std::to_string(s.size) + ",'readyReplicas':" + n +
      ",'availableReplicas':" + n + ",'observedGeneration':1}}");
}

DeploymentPlan plan(const Object& d, const std::vector<ObjectPtr>& sets, bool old_pods_run = false) {
  return plan_deployment({d, sets, old_pods_run, kNow});
}

// "web-v1=8 web-v2=5" for what is created or resized.
std::string sizes(const DeploymentPlan& p, const std::vector<ObjectPtr>& sets) {
  std::string out;
  if (p.create) out += "new=" + std::to_string(kube::num(*p.create, {"spec", "replicas"}));
  for (const Object& u : p.update)
    for (const ObjectPtr& s : sets)
      if (kube::name(*s) == kube::name(u) && kube::num(*s, {"spec", "replicas"}) != kube::num(u, {"spec", "replicas"}))
        out += (out.empty() ? "" : " ") + std::string(kube::name(u)).substr(4) + "=" +
               std::to_string(kube::num(u, {"spec", "replicas"}));
  return out;
}

struct Case {
  int line;
  const char* name;
  Dep deployment;
  std::vector<Set> sets;
  const char* want;
  bool old_pods_run = false;
};

TEST(DeploymentPlan, Sizes) {
  const std::string recreate = "{'type':'Recreate'}";
  const std::string one_by_one = "{'type':'RollingUpdate','rollingUpdate':{'maxSurge':1,'maxUnavailable':0}}";
  const std::vector<Case> cases{
      {__LINE__, "first", {}, {}, "new=10"},
      {__LINE__, "nothing to do", {}, {{.image = "v2", .size = 10}}, ""},
      {__LINE__, "new template starts with the surge", {}, {{.image = "v1", .size = 10}}, "new=3"},
      {__LINE__,
       "old ones go as far as allowed",
       {},
       {{.image = "v1", .size = 10}, {.image = "v2", .size = 3, .available = 0, .revision = 2}},
       "v1=8"},
      {__LINE__,
       "new ones follow",
       {},
       {{.image = "v1", .size = 8}, {.image = "v2", .size = 3, .available = 0, .revision = 2}},
       "v2=5"},
      {__LINE__,
       "no step while nothing is available",
       {},
       {{.image = "v1", .size = 8}, {.image = "v2", .size = 5, .available = 0, .revision = 2}},
       ""},
      {__LINE__,
       "broken old pods go first",
       {},
       {{.image = "v1", .size = 10, .available = 7}, {.image = "v2", .size = 3, .available = 0, .revision = 2}},
       "v1=8"},
      {__LINE__,
       "finished: the rest of the old",
       {},
       {{.image = "v1", .size = 3}, {.image = "v2", .size = 10, .revision = 2}},
       "v1=0"},
      {__LINE__,
       "zero unavailable",
       {.replicas = 3, .strategy = one_by_one},
       {{.image = "v1", .size = 3, .desired = 3, .max = 4}},
       "new=1"},
      {__LINE__,
       "zero unavailable waits",
       {.replicas = 3, .strategy = one_by_one},
       {{.image = "v1", .size = 3, .desired = 3, .max = 4},
        {.image = "v2", .size = 1, .available = 0, .revision = 2, .desired = 3, .max = 4}},
       ""},
      {__LINE__,
       "zero unavailable goes on",
       {.replicas = 3, .strategy = one_by_one},
       {{.image = "v1", .size = 3, .desired = 3, .max = 4},
        {.image = "v2", .size = 1, .revision = 2, .desired = 3, .max = 4}},
       "v1=2"},
      {__LINE__, "scale up alone", {.replicas = 20}, {{.image = "v2", .size = 10}}, "v2=20"},
      {__LINE__, "scale down alone", {.replicas = 2}, {{.image = "v2", .size = 10}}, "v2=2"},
      {__LINE__, "scale to zero", {.replicas = 0}, {{.image = "v2", .size = 10}}, "v2=0"},
      {__LINE__,
       "scale in proportion during a rollout",
       {.replicas = 20},
       {{.image = "v1", .size = 8}, {.image = "v2", .size = 5, .available = 0, .revision = 2}},
       "v1=15 v2=10"},
      {__LINE__,
       "scale down in proportion",
       {.replicas = 5},
       {{.image = "v1", .size = 8}, {.image = "v2", .size = 5, .available = 0, .revision = 2}},
       "v1=4 v2=3"},
      {__LINE__, "paused: no rollout", {.spec = ",'paused':true"}, {{.image = "v1", .size = 10}}, ""},
      {__LINE__,
       "paused: scaling works",
       {.replicas = 4, .spec = ",'paused':true"},
       {{.image = "v1", .size = 10}},
       "v1=4"},
      {__LINE__, "recreate: first all old ones", {.strategy = recreate}, {{.image = "v1", .size = 10}}, "v1=0"},
      {__LINE__, "recreate: waits for their pods", {.strategy = recreate}, {{.image = "v1", .size = 0}}, "", true},
      {__LINE__, "recreate: then the new ones", {.strategy = recreate}, {{.image = "v1", .size = 0}}, "new=10"},
      {__LINE__, "recreate: scaling", {.replicas = 4, .strategy = recreate}, {{.image = "v2", .size = 10}}, "v2=4"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.line) + " " + c.name);
    std::vector<ObjectPtr> sets;
    for (const Set& s : c.sets) sets.push_back(replica_set(s));
    const Object d = deployment(c.deployment);
    EXPECT_EQ(sizes(plan(d, sets, c.old_pods_run), sets), c.want);
  }
}

TEST(DeploymentPlan, NewReplicaSet) {
  const Object d = deployment({});
  const DeploymentPlan p = plan(d, {});
  ASSERT_TRUE(p.create);
  const std::string hash(label(*p.create, kHashLabel));
  EXPECT_FALSE(hash.empty());
  EXPECT_EQ(kube::name(*p.create), "web-" + hash);
  EXPECT_EQ(kube::str(*p.create, {"spec", "selector", "matchLabels", kHashLabel}), hash);
  EXPECT_EQ(kube::str(*p.create, {"spec", "selector", "matchLabels", "app"}), "web");
  EXPECT_EQ(kube::str(*p.create, {"spec", "template", "metadata", "labels", kHashLabel}), hash);
  EXPECT_EQ(annotation(*p.create, kRevision), "1");
  EXPECT_EQ(annotation(*p.create, kDesiredReplicas), "10");
  EXPECT_EQ(annotation(*p.create, kMaxReplicas), "13");
  EXPECT_EQ(kube::str(kube::controller_of(*p.create), {"uid"}), "dep");
  ASSERT_TRUE(p.deployment);
  EXPECT_EQ(annotation(*p.deployment, kRevision), "1");
  ASSERT_EQ(p.events.size(), 1u);
  EXPECT_EQ(p.events[0].message, "Scaled up replica set web-" + hash + " from 0 to 10");
}

TEST(DeploymentPlan, RollBackTakesTheNextRevision) {
  const std::vector<ObjectPtr> sets{replica_set({.image = "v1", .size = 0, .revision = 1}),
                                    replica_set({.image = "v2", .size = 10, .revision = 2})};
  const Object d = deployment({.image = "v1"});
  const DeploymentPlan p = plan(d, sets);
  EXPECT_FALSE(p.create);
  ASSERT_EQ(p.update.size(), 1u);
  EXPECT_EQ(kube::name(p.update[0]), "web-v1");
  EXPECT_EQ(annotation(p.update[0], kRevision), "3");
  EXPECT_EQ(annotation(p.update[0], kRevisionHistory), "1");
  ASSERT_TRUE(p.deployment);
  EXPECT_EQ(annotation(*p.deployment, kRevision), "3");
}

TEST(DeploymentPlan, HistoryIsCutOldestFirst) {
  Object d = deployment({.image = "v9"});
  kube::ensure(d, {"spec"})["revisionHistoryLimit"] = 1;
  const std::vector<ObjectPtr> sets{
      replica_set({.image = "v1", .size = 0, .revision = 1}), replica_set({.image = "v2", .size = 0, .revision = 2}),
      replica_set({.image = "v3", .size = 0, .revision = 3}), replica_set({.image = "v9", .size = 10, .revision = 4})};
  const DeploymentPlan p = plan(d, sets);
  ASSERT_EQ(p.remove.size(), 2u);
  EXPECT_EQ(kube::name(*p.remove[0]), "web-v1");
  EXPECT_EQ(kube::name(*p.remove[1]), "web-v2");
}

std::string condition_of(const Object& status, std::string_view type) {
  Object o;
  o["status"] = status;
  const Object* c = condition(o, type);
  return c == nullptr ? "" : std::string(kube::str(*c, {"status"})) + " " + std::string(kube::str(*c, {"reason"}));
}

TEST(DeploymentPlan, ConditionsThroughARollout) {
  Object d = deployment({});
  DeploymentPlan p = plan(d, {});
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "True NewReplicaSetCreated");
  EXPECT_EQ(condition_of(*p.status, "Available"), "False MinimumReplicasUnavailable");
  EXPECT_EQ(p.recheck, std::chrono::seconds(600));

  d["status"] = *p.status;
  p = plan(d, {replica_set({.image = "v2", .size = 10, .available = 8})});
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "True ReplicaSetUpdated");
  EXPECT_EQ(condition_of(*p.status, "Available"), "True MinimumReplicasAvailable");
  EXPECT_EQ(kube::num(*p.status, {"unavailableReplicas"}), 2);

  d["status"] = *p.status;
  p = plan(d, {replica_set({.image = "v2", .size = 10})});
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "True NewReplicaSetAvailable");
  EXPECT_EQ(kube::num(*p.status, {"updatedReplicas"}), 10);
  EXPECT_EQ(kube::num(*p.status, {"observedGeneration"}), 2);
  EXPECT_EQ(p.recheck, std::nullopt);

  d["status"] = *p.status;
  kube::ensure(d, {"metadata", "annotations"})[kRevision] = "1";
  p = plan(d, {replica_set({.image = "v2", .size = 10})});
  EXPECT_FALSE(p.status) << "applied to its own result it plans nothing";
  EXPECT_FALSE(p.deployment);
  EXPECT_TRUE(p.update.empty());
}

TEST(DeploymentPlan, DeadlinePasses) {
  const Object d = deployment(
      {.status = "'replicas':10,'updatedReplicas':10,'unavailableReplicas':10,'observedGeneration':2,'conditions':["
                 "{'type':'Progressing','status':'True','reason':'ReplicaSetUpdated','lastUpdateTime':'2026-01-01T00:"
                 "49:00Z'}]"});
  const DeploymentPlan p = plan(d, {replica_set({.image = "v2", .size = 10, .available = 0})});
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "False ProgressDeadlineExceeded");
}

TEST(DeploymentPlan, PausedAndResumed) {
  Object d = deployment({.spec = ",'paused':true"});
  const std::vector<ObjectPtr> sets{replica_set({.image = "v2", .size = 10})};
  DeploymentPlan p = plan(d, sets);
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "Unknown DeploymentPaused");
  d["status"] = *p.status;
  kube::ensure(d, {"spec"})["paused"] = false;
  p = plan(d, sets);
  ASSERT_TRUE(p.status);
  EXPECT_EQ(condition_of(*p.status, "Progressing"), "True NewReplicaSetAvailable");
}

TEST(RollingLimits, PercentAndNumber) {
  struct {
    int line;
    int replicas;
    const char* surge;
    const char* unavailable;
    int want_surge, want_unavailable;
  } const cases[] = {
      {__LINE__, 10, "'25%'", "'25%'", 3, 2}, {__LINE__, 1, "'25%'", "'25%'", 1, 0},
      {__LINE__, 3, "0", "0", 0, 1},          {__LINE__, 3, "'0%'", "'10%'", 0, 1},
      {__LINE__, 3, "2", "5", 2, 3},          {__LINE__, 0, "'25%'", "'25%'", 0, 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    const RollingLimits got = rolling_limits(
        deployment({.replicas = c.replicas,
                    .strategy = "{'type':'RollingUpdate','rollingUpdate':{'maxSurge':" + std::string(c.surge) +
                                ",'maxUnavailable':" + c.unavailable + "}}"}));
    EXPECT_EQ(got.surge, c.want_surge);
    EXPECT_EQ(got.unavailable, c.want_unavailable);
  }
}

TEST(TemplateHash, StableAndSafe) {
  const Object a = json("{'metadata':{'labels':{'app':'web'}},'spec':{'containers':[{'name':'c','image':'i'}]}}");
  const Object b = json("{'spec':{'containers':[{'image':'i','name':'c'}]},'metadata':{'labels':{'app':'web'}}}");
  EXPECT_EQ(template_hash(a, 0), template_hash(b, 0)) << "order of fields";
  EXPECT_NE(template_hash(a, 0), template_hash(a, 1));
  EXPECT_EQ(template_hash(a, 0).find_first_not_of("bcdfghjklmnpqrstvwxz2456789"), std::string::npos);
  const Object c = json(
      "{'spec':{'containers':[{'image':'i','name':'c'}]},'metadata':{'labels':{'app':'web','pod-template-hash':'q'}}}");
  EXPECT_TRUE(same_template(a, c));
}

}  // namespace
}  // namespace hawser::controllers
