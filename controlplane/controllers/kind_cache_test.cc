// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/kind_cache.h"

#include <atomic>

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"
#include "controlplane/controllers/parallel.h"
#include "lib/kube/fake_client.h"

namespace hawser::controllers {
namespace {

ObjectPtr object(const std::string& name, int version, const std::string& uid = "u1", const std::string& owner = "") {
  return shared("{'metadata':{'namespace':'d','name':'" + name + "','uid':'" + uid + "','resourceVersion':'" +
                std::to_string(version) + "'" +
                (owner.empty() ? "" : ",'ownerReferences':[{'uid':'" + owner + "','controller':true}]") + "}}");
}

class KindCacheTest : public testing::Test {
 protected:
  FakeClock clock_;
  kube::FakeClient client_;
  KindCache cache_{client_, kube::kPods, {}, clock_};
};

TEST_F(KindCacheTest, OwnWritesAreSeenAtOnceAndOldNewsIsIgnored) {
  cache_.wrote(object("a", 5));
  ASSERT_NE(cache_.get("d/a"), nullptr);
  cache_.apply(nullptr, object("a", 3));
  EXPECT_EQ(kube::resource_version(*cache_.get("d/a")), "5");
  cache_.apply(object("a", 3), object("a", 7));
  EXPECT_EQ(kube::resource_version(*cache_.get("d/a")), "7");
  cache_.wrote(object("a", 6));
  EXPECT_EQ(kube::resource_version(*cache_.get("d/a")), "7");
}

TEST_F(KindCacheTest, GoneStaysGone) {
  cache_.apply(nullptr, object("a", 3));
  cache_.removed(*object("a", 3));
  EXPECT_EQ(cache_.get("d/a"), nullptr);
  cache_.apply(object("a", 3), object("a", 4));
  EXPECT_EQ(cache_.get("d/a"), nullptr) << "a late event of the removed object";
  cache_.apply(nullptr, object("a", 9, "u2"));
  EXPECT_NE(cache_.get("d/a"), nullptr) << "another object of that name";
  cache_.apply(object("a", 4), nullptr);
  EXPECT_NE(cache_.get("d/a"), nullptr) << "the end of the first one";
  // Made and deleted before the create call came back.
  cache_.apply(object("b", 10, "u3"), nullptr);
  cache_.wrote(object("b", 8, "u3"));
  EXPECT_EQ(cache_.get("d/b"), nullptr);
}

TEST_F(KindCacheTest, UnconfirmedWritesEnd) {
  cache_.wrote(object("a", 5));
  cache_.wrote(object("b", 6, "u2"));
  cache_.apply(nullptr, object("b", 6, "u2"));
  clock_.advance(std::chrono::minutes(6));
  cache_.wrote(object("c", 7, "u3"));
  EXPECT_EQ(cache_.get("d/a"), nullptr);
  EXPECT_NE(cache_.get("d/b"), nullptr);
}

TEST_F(KindCacheTest, Indexes) {
  cache_.apply(nullptr, object("a", 1, "u1", "o1"));
  cache_.apply(nullptr, object("b", 2, "u2", "o1"));
  cache_.apply(nullptr, object("c", 3, "u3", "o2"));
  EXPECT_EQ(cache_.owned_by("o1").size(), 2u);
  cache_.apply(object("a", 1), object("a", 4, "u1", "o2"));
  EXPECT_EQ(cache_.owned_by("o1").size(), 1u);
  EXPECT_EQ(cache_.owned_by("o2").size(), 2u);
  cache_.apply(object("c", 3, "u3"), nullptr);
  EXPECT_EQ(cache_.owned_by("o2").size(), 1u);
  EXPECT_EQ(cache_.in_namespace("d").size(), 2u);
  EXPECT_TRUE(cache_.in_namespace("dd").empty());
}

TEST(Parallel, EachOnceAlsoFromSeveralThreads) {
  Parallel p(4);
  std::vector<std::atomic<int>> counts(300);
  {
    std::vector<std::jthread> callers;
    for (int c = 0; c < 3; ++c)
      callers.emplace_back(
          [&, c] { p.for_each(100, [&](std::size_t i) { ++counts[static_cast<std::size_t>(c) * 100 + i]; }); });
  }
  for (const auto& n : counts) EXPECT_EQ(n, 1);
  p.for_each(0, [](std::size_t) { FAIL(); });
}

}  // namespace
}  // namespace hawser::controllers
