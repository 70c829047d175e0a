// SPDX-License-Identifier: Apache-2.0
#include <set>

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"
#include "controlplane/controllers/endpoint_slice_plan.h"
#include "controlplane/controllers/endpoints_plan.h"

namespace hawser::controllers {
namespace {

Object service(
    const std::string& spec =
        "'selector':{'app':'web'},'clusterIP':'10.96.0.5','ports':[{'name':'http','port':80,'targetPort':8080}]") {
  return json(
      "{'metadata':{'name':'web','namespace':'d','uid':'svc','labels':{'team':'x'},'creationTimestamp':'2026-01-01T00:"
      "00:00Z'},'spec':{" +
      spec + "}}");
}
ObjectPtr pod(int i, bool ready = true, const std::string& meta = "", const std::string& spec = "") {
  const std::string n = std::to_string(i);
  return shared("{'metadata':{'name':'p" + n + "','namespace':'d','uid':'u" + n + "','labels':{'app':'web'}" + meta +
                "},'spec':{'nodeName':'n1'" + spec + "},'status':{'phase':'Running','podIP':'10.244.0." + n +
                "','conditions':[{'type':'Ready','status':'" + (ready ? "True" : "False") +
                "','lastTransitionTime':'2026-01-01T00:00:" + (i < 10 ? "0" : "") + n + "Z'}]}}");
}
std::vector<ServiceEndpoint> endpoints(const Object& s, const std::vector<ObjectPtr>& pods) {
  return service_endpoints(s, pods, [](std::string_view) { return std::string("z1"); });
}

// Slices in memory, to which plans are applied.
struct Slices {
  std::vector<ObjectPtr> all;
  int made = 0;
  int writes = 0;

  void apply(const SlicePlan& p) {
    for (Object s : p.create) {
      kube::ensure(s, {"metadata"})["name"] = "web-" + std::to_string(made);
      kube::ensure(s, {"metadata"})["uid"] = "slice-" + std::to_string(made++);
      all.push_back(shared(std::move(s)));
      ++writes;
    }
    for (const Object& s : p.update)
      for (ObjectPtr& have : all)
        if (kube::uid(*have) == kube::uid(s)) {
          have = shared(s);
          ++writes;
        }
    for (const ObjectPtr& s : p.remove) {
      std::erase_if(all, [&](const ObjectPtr& o) { return kube::uid(*o) == kube::uid(*s); });
      ++writes;
    }
  }
  void sync(const Object& s, const std::vector<ObjectPtr>& pods) {
    const auto list = endpoints(s, pods);
    apply(plan_slices({.parent = s, .endpoints = list, .slices = all, .families_v6 = wants_v6(s)}));
  }
  std::multiset<std::string> addresses() const {
    std::multiset<std::string> out;
    for (const ObjectPtr& s : all)
      for (const Value& e : kube::arr(*s, {"endpoints"}))
        out.emplace(std::string_view(kube::arr(kube::as_obj(e), {"addresses"})[0].as_string()));
    return out;
  }
};

TEST(EndpointSlicePlan, OneSlice) {
  Slices slices;
  slices.sync(service(), {pod(1)});
  ASSERT_EQ(slices.all.size(), 1u);
  EXPECT_EQ(*slices.all[0], json("{'apiVersion':'discovery.k8s.io/"
                                 "v1','kind':'EndpointSlice','metadata':{'namespace':'d','generateName':'web-','name':'"
                                 "web-0','uid':'slice-0','labels':{'team':'x',"
                                 "'kubernetes.io/service-name':'web','endpointslice.kubernetes.io/"
                                 "managed-by':'endpointslice-controller.k8s.io'},'ownerReferences':[{'apiVersion':'v1',"
                                 "'kind':'Service','name':'web','uid':'svc','controller':true,'blockOwnerDeletion':"
                                 "true}]},'addressType':'IPv4','endpoints':[{'addresses':['10.244.0.1'],"
                                 "'conditions':{'ready':true,'serving':true,'terminating':false},'nodeName':'n1','zone'"
                                 ":'z1','targetRef':{'kind':'Pod','name':'p1','namespace':'d','uid':'u1'}}],"
                                 "'ports':[{'name':'http','port':8080,'protocol':'TCP'}]}"))
      << dump(*slices.all[0]);
  slices.writes = 0;
  slices.sync(service(), {pod(1)});
  EXPECT_EQ(slices.writes, 0) << "applied to its own result it plans nothing";
}

TEST(EndpointSlicePlan, ConditionsTable) {
  const std::string dying = ",'deletionTimestamp':'2026-01-01T00:00:00Z'";
  const std::string all = "'selector':{'app':'web'},'publishNotReadyAddresses':true,'ports':[{'port':80}]";
  struct {
    int line;
    bool pod_ready, pod_dying, publish_all;
    const char* want;
  } const cases[] = {
      {__LINE__, true, false, false, "{'ready':true,'serving':true,'terminating':false}"},
      {__LINE__, false, false, false, "{'ready':false,'serving':false,'terminating':false}"},
      {__LINE__, true, true, false, "{'ready':false,'serving':true,'terminating':true}"},
      {__LINE__, false, true, false, "{'ready':false,'serving':false,'terminating':true}"},
      {__LINE__, false, false, true, "{'ready':true,'serving':false,'terminating':false}"},
      {__LINE__, true, true, true, "{'ready':true,'serving':true,'terminating':true}"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    Slices slices;
    slices.sync(c.publish_all ? service(all) : service(), {pod(1, c.pod_ready, c.pod_dying ? dying : "")});
    EXPECT_EQ(kube::obj(kube::as_obj(kube::arr(*slices.all.at(0), {"endpoints"})[0]), {"conditions"}), json(c.want));
  }
}

TEST(EndpointSlicePlan, NoEndpointsKeepsOneEmptySliceWithoutAGap) {
  Slices slices;
  slices.sync(service(), {});
  ASSERT_EQ(slices.all.size(), 1u);
  slices.sync(service(), {pod(1)});
  ASSERT_EQ(slices.all.size(), 1u) << "the empty one became the real one";
  EXPECT_EQ(slices.made, 1);
  slices.sync(service(), {});
  ASSERT_EQ(slices.all.size(), 1u);
  EXPECT_TRUE(kube::arr(*slices.all[0], {"endpoints"}).empty());
  EXPECT_EQ(slices.made, 1);
  slices.writes = 0;
  slices.sync(service(), {});
  EXPECT_EQ(slices.writes, 0);
}

TEST(EndpointSlicePlan, LittleChurnAtAHundredASlice) {
  Slices slices;
  std::vector<ObjectPtr> pods;
  for (int i = 1; i <= 250; ++i) pods.push_back(pod(i));
  slices.sync(service(), pods);
  EXPECT_EQ(slices.all.size(), 3u);
  EXPECT_EQ(slices.addresses().size(), 250u);

  slices.writes = 0;
  pods[7] = pod(8, false);
  slices.sync(service(), pods);
  EXPECT_EQ(slices.writes, 1) << "one pod changed: one slice is written";

  slices.writes = 0;
  pods.erase(pods.begin() + 20);
  pods.push_back(pod(251));
  slices.sync(service(), pods);
  EXPECT_EQ(slices.writes, 1) << "the new one takes the place in the slice that is written anyway";
  EXPECT_EQ(slices.addresses().size(), 250u);

  slices.writes = 0;
  pods.push_back(pod(252));
  slices.sync(service(), pods);
  EXPECT_EQ(slices.writes, 1);
  EXPECT_EQ(slices.all.size(), 3u);

  pods.erase(pods.begin(), pods.begin() + 240);
  slices.sync(service(), pods);
  EXPECT_EQ(slices.addresses().size(), pods.size());
  const auto addresses = slices.addresses();
  EXPECT_EQ(std::set<std::string>(addresses.begin(), addresses.end()).size(), addresses.size()) << "nobody twice";
}

TEST(EndpointSlicePlan, NamedPortsDifferFromPodToPod) {
  const Object s = service("'selector':{'app':'web'},'ports':[{'name':'http','port':80,'targetPort':'web'}]");
  const std::string at8080 = ",'containers':[{'ports':[{'name':'web','containerPort':8080}]}]";
  const std::string at9090 = ",'containers':[{'ports':[{'name':'web','containerPort':9090,'protocol':'TCP'}]}]";
  const std::string udp = ",'containers':[{'ports':[{'name':'web','containerPort':53,'protocol':'UDP'}]}]";
  const auto list = endpoints(s, {pod(1, true, "", at8080), pod(2, true, "", at9090), pod(3, true, "", udp)});
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].ports.at(0).port, 8080);
  EXPECT_EQ(list[1].ports.at(0).port, 9090);
  EXPECT_TRUE(list[2].ports.empty());
  Slices slices;
  slices.sync(s, {pod(1, true, "", at8080), pod(2, true, "", at9090)});
  EXPECT_EQ(slices.all.size(), 2u);
}

TEST(EndpointSlicePlan, WhoIsAnEndpoint) {
  const Object s = service("'selector':{'app':'web'},'clusterIP':'None','ports':[{'port':80}]");
  const ObjectPtr finished = shared(
      "{'metadata':{'name':'f','namespace':'d','labels':{'app':'web'}},'status':{'phase':'Succeeded','podIP':'10.244.0."
      "9'}}");
  const ObjectPtr no_ip =
      shared("{'metadata':{'name':'i','namespace':'d','labels':{'app':'web'}},'status':{'phase':'Pending'}}");
  const ObjectPtr other = shared(
      "{'metadata':{'name':'o','namespace':'d','labels':{'app':'db'}},'status':{'phase':'Running','podIP':'10.244.0.8'}"
      "}");
  const ObjectPtr v6 = shared(
      "{'metadata':{'name':'v6','namespace':'d','labels':{'app':'web'}},'status':{'phase':'Running','podIP':'fd00::1'}"
      "}");
  const ObjectPtr named = pod(1, true, "", ",'hostname':'db-0','subdomain':'web'");
  const auto list = endpoints(s, {finished, no_ip, other, v6, named});
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].hostname, "db-0");
  Slices slices;
  slices.sync(s, {named});
  EXPECT_NE(kube::find(*slices.all.at(0), {"metadata", "labels", kHeadlessLabel}), nullptr);
}

TEST(EndpointsPlan, SubsetsAndNotReady) {
  const auto list =
      endpoints(service(), {pod(1), pod(2, false), pod(3, true, ",'deletionTimestamp':'2026-01-01T00:00:00Z'")});
  const auto got = plan_endpoints({.service = service(), .endpoints = list});
  ASSERT_TRUE(got);
  const Array& subsets = kube::arr(*got, {"subsets"});
  ASSERT_EQ(subsets.size(), 1u);
  const Object& s = kube::as_obj(subsets[0]);
  ASSERT_EQ(kube::arr(s, {"addresses"}).size(), 1u);
  EXPECT_EQ(
      kube::as_obj(kube::arr(s, {"addresses"})[0]),
      json("{'ip':'10.244.0.1','nodeName':'n1','targetRef':{'kind':'Pod','name':'p1','namespace':'d','uid':'u1'}}"));
  EXPECT_EQ(kube::arr(s, {"notReadyAddresses"}).size(), 1u);
  EXPECT_EQ(kube::as_obj(kube::arr(s, {"ports"})[0]), json("{'name':'http','port':8080,'protocol':'TCP'}"));
  EXPECT_FALSE(plan_endpoints({.service = service(), .endpoints = list, .stored = &*got}))
      << "the same again is not written";
}

TEST(EndpointsPlan, CutAtTheLimitReadyFirst) {
  std::vector<ObjectPtr> pods{pod(1, false), pod(2, false), pod(3), pod(4)};
  const auto list = endpoints(service(), pods);
  const auto got = plan_endpoints({.service = service(), .endpoints = list, .limit = 3});
  ASSERT_TRUE(got);
  EXPECT_EQ(annotation(*got, "endpoints.kubernetes.io/over-capacity"), "truncated");
  const Object& s = kube::as_obj(kube::arr(*got, {"subsets"})[0]);
  EXPECT_EQ(kube::arr(s, {"addresses"}).size(), 2u);
  EXPECT_EQ(kube::arr(s, {"notReadyAddresses"}).size(), 1u);
}

TEST(EndpointsPlan, MirroredIntoSlices) {
  const Object e = json(
      "{'metadata':{'name':'ext','namespace':'d','uid':'e'},'subsets':[{'addresses':[{'ip':'192.0.2.1'}],'"
      "notReadyAddresses':[{'ip':'192.0.2.2'}],"
      "'ports':[{'port':443}]}]}");
  const auto list = mirrored_endpoints(e);
  const SlicePlan p =
      plan_slices({.parent = e, .parent_kind = "Endpoints", .managed_by = kMirrorController, .endpoints = list});
  ASSERT_EQ(p.create.size(), 1u);
  EXPECT_EQ(label(p.create[0], kServiceNameLabel), "ext");
  EXPECT_EQ(kube::arr(p.create[0], {"endpoints"}).size(), 2u);
  EXPECT_EQ(kube::str(kube::controller_of(p.create[0]), {"kind"}), "Endpoints");
}

TEST(TriggerTimes, EarliestNewTime) {
  TriggerTimes t;
  EXPECT_EQ(t.next(service(), std::vector<ObjectPtr>{pod(5)}), at("2026-01-01T00:00:00Z"))
      << "a new Service: its creation";
  EXPECT_EQ(t.next(service(), std::vector<ObjectPtr>{pod(5), pod(9), pod(7)}), at("2026-01-01T00:00:07Z"));
  EXPECT_EQ(t.next(service(), std::vector<ObjectPtr>{pod(5), pod(9), pod(7)}), std::nullopt);
}

TEST(EndpointInput, WhatIsNews) {
  EXPECT_TRUE(same_endpoint_input(*pod(1), *pod(1, true, ",'resourceVersion':'9'")));
  EXPECT_FALSE(same_endpoint_input(*pod(1), *pod(1, false)));
  EXPECT_FALSE(same_endpoint_input(*pod(1), *pod(1, true, ",'deletionTimestamp':'2026-01-01T00:00:00Z'")));
}

}  // namespace
}  // namespace hawser::controllers
