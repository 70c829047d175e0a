// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/owner_graph.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"

namespace hawser::controllers {
namespace {

using Action = CollectPlan::Action;

ObjectPtr object(const std::string& uid, const std::string& owners = "", const std::string& meta = "") {
  return shared("{'metadata':{'name':'" + uid + "','uid':'" + uid + "','ownerReferences':[" + owners + "]" + meta +
                "}}");
}
std::string owner(const std::string& uid, bool block = false) {
  return "{'uid':'" + uid + "'" + (block ? ",'blockOwnerDeletion':true" : "") + "}";
}

TEST(OwnerGraph, WhatIsDueAfterAChange) {
  OwnerGraph g;
  EXPECT_TRUE(g.put(0, object("dep")).empty());
  EXPECT_EQ(g.put(1, object("rs", owner("dep"))), std::vector<std::string>{"rs"});
  g.put(2, object("p1", owner("rs")));
  g.put(2, object("p2", owner("rs")));
  EXPECT_EQ(g.dependents("rs").size(), 2u);
  auto due = g.erase("rs");
  std::ranges::sort(due);
  EXPECT_EQ(due, (std::vector<std::string>{"dep", "p1", "p2"}));
  EXPECT_EQ(g.dependents("rs").size(), 2u) << "of an owner that is gone";
  due = g.put(2, object("p1"));
  EXPECT_EQ(due, std::vector<std::string>{"rs"}) << "the reference was taken off";
  EXPECT_EQ(g.dependents("rs").size(), 1u);
}

struct Case {
  int line;
  const char* name;
  ObjectPtr object;
  std::vector<ObjectPtr> dependents;
  Action want;
  const char* propagation;
  std::vector<std::string> gone;
};

TEST(OwnerGraph, Plan) {
  const std::string dying = ",'deletionTimestamp':'2026-01-01T00:00:00Z'";
  const std::vector<Case> cases{
      {__LINE__, "no owner", object("x"), {}, Action::kNothing, "", {}},
      {__LINE__, "owner there", object("x", owner("here")), {}, Action::kNothing, "", {}},
      {__LINE__, "owner gone", object("x", owner("gone")), {}, Action::kDelete, "Background", {}},
      {__LINE__,
       "one of two gone",
       object("x", owner("here") + "," + owner("gone")),
       {},
       Action::kDropReferences,
       "",
       {"gone"}},
      {__LINE__, "all gone", object("x", owner("gone") + "," + owner("lost")), {}, Action::kDelete, "Background", {}},
      {__LINE__, "cannot tell", object("x", owner("maybe")), {}, Action::kRetry, "", {}},
      {__LINE__,
       "cannot tell but another is there",
       object("x", owner("maybe") + "," + owner("here")),
       {},
       Action::kRetry,
       "",
       {}},
      {__LINE__,
       "owner waits",
       object("x", owner("waiting")),
       {object("y", owner("x", true))},
       Action::kDelete,
       "Foreground",
       {}},
      {__LINE__, "owner waits, leaf", object("x", owner("waiting")), {}, Action::kDelete, "Background", {}},
      {__LINE__,
       "gone, with orphan finalizer",
       object("x", owner("gone"), ",'finalizers':['orphan']"),
       {},
       Action::kDelete,
       "Orphan",
       {}},
      {__LINE__, "dying", object("x", owner("gone"), dying), {}, Action::kNothing, "", {}},
      {__LINE__,
       "dying in the foreground",
       object("x", "", dying + ",'finalizers':['foregroundDeletion']"),
       {object("y", owner("x", true))},
       Action::kDeleteDependents,
       "",
       {}},
      {__LINE__,
       "foreground, nobody blocks",
       object("x", "", dying + ",'finalizers':['foregroundDeletion']"),
       {object("y", owner("x"))},
       Action::kRemoveForeground,
       "",
       {}},
      {__LINE__,
       "orphaning",
       object("x", "", dying + ",'finalizers':['orphan']"),
       {object("y", owner("x"))},
       Action::kOrphanDependents,
       "",
       {}},
  };
  const auto state_of = [](const Object& ref, std::string_view) {
    const std::string_view uid = kube::str(ref, {"uid"});
    if (uid == "here") return OwnerState::kPresent;
    if (uid == "maybe") return OwnerState::kUnknown;
    if (uid == "waiting") return OwnerState::kDeletingDependents;
    return OwnerState::kAbsent;
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.line) + " " + c.name);
    std::vector<GraphNode> dependents;
    for (const ObjectPtr& d : c.dependents) dependents.push_back({0, d});
    const CollectPlan got = plan_collect(*c.object, dependents, state_of);
    EXPECT_EQ(got.action, c.want);
    EXPECT_EQ(got.propagation, c.propagation);
    EXPECT_EQ(got.gone, c.gone);
  }
}

}  // namespace
}  // namespace hawser::controllers
