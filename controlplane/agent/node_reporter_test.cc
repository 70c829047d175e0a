// SPDX-License-Identifier: Apache-2.0
// What the API may do to the Node behind the agent's back, and the cache of ConfigMaps and Secrets.
#include "controlplane/agent/node_reporter.h"

#include <gtest/gtest.h>

#include "controlplane/agent/fake_cri.h"
#include "controlplane/agent/object_cache.h"
#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"
#include "lib/testing/temp_dir.h"

namespace hawser::agent {
namespace {

using namespace std::chrono_literals;
using kube::Object;

class NodeReporterTest : public ::testing::Test {
 protected:
  NodeReporterTest() {
    node_.node_name = "n1";
    node_.node_ip = "192.0.2.1";
    node_.root_dir = dir_.path();
    reporter_ = std::make_unique<NodeReporter>(api_, cri_, cri_, node_, clock_);
    reporter_->round();
  }
  std::string ready() {
    auto n = api_.get(kube::kNodes, "", "n1");
    if (!n) return "";
    for (const auto& c : kube::arr(**n, {"status", "conditions"}))
      if (kube::str(kube::as_obj(c), {"type"}) == "Ready") return std::string(kube::str(kube::as_obj(c), {"status"}));
    return "";
  }
  int count(const std::string& verb, const std::string& resource) {
    const auto calls = api_.calls();
    return static_cast<int>(
        std::ranges::count_if(calls, [&](const auto& c) { return c.verb == verb && c.resource == resource; }));
  }

  hawser::testing::TempDir dir_;
  FakeClock clock_;
  kube::FakeClient api_{clock_};
  FakeCri cri_{clock_};
  NodeSettings node_;
  std::unique_ptr<NodeReporter> reporter_;
};

TEST_F(NodeReporterTest, TakesUnknownBack) {
  ASSERT_EQ(ready(), "True");
  Object silent = **api_.get(kube::kNodes, "", "n1");
  for (auto& c : kube::ensure(silent, {"status"})["conditions"].as_array()) c.as_object()["status"] = "Unknown";
  ASSERT_TRUE(api_.update(kube::kNodes, silent, "status"));
  ASSERT_EQ(ready(), "Unknown");
  clock_.advance(11s);
  reporter_->round();
  EXPECT_EQ(ready(), "True");
}

TEST_F(NodeReporterTest, RegistersAgainAfterTheNodeWasDeleted) {
  ASSERT_TRUE(api_.remove(kube::kNodes, "", "n1"));
  clock_.advance(11s);
  reporter_->round();
  reporter_->round();
  EXPECT_EQ(ready(), "True");
}

TEST_F(NodeReporterTest, WritesNothingWhileAllIsWell) {
  reporter_->round();  // the first may still have had to make something
  api_.clear_calls();
  for (int i = 0; i < 6; ++i) {
    clock_.advance(10s);
    reporter_->round();
  }
  EXPECT_EQ(count("patch", "nodes"), 0);
  EXPECT_LE(count("get", "nodes"), 6);
  EXPECT_LE(count("update", "leases"), 6);
}

TEST(ObjectCache, PodsShareAReadAndErrorsReadAsTheKubelets) {
  FakeClock clock;
  kube::FakeClient api(clock);
  ObjectCache cache(api, clock);
  auto missing = cache.get(kube::kConfigMaps, "default", "later", 0s);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().text, "configmap \"later\" not found");
  EXPECT_TRUE(is_not_found(missing.error()));
  EXPECT_EQ(cache.get(kube::kSecrets, "default", "s", 0s).error().text, "secret \"s\" not found");
  ASSERT_TRUE(api.create(kube::kConfigMaps, "default", Object{{"metadata", Object{{"name", "later"}}}}));
  EXPECT_FALSE(cache.get(kube::kConfigMaps, "default", "later", 2s)) << "the answer is young enough";
  EXPECT_TRUE(cache.get(kube::kConfigMaps, "default", "later", 0s));
  api.clear_calls();
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(cache.get(kube::kConfigMaps, "default", "later", 2s));
  EXPECT_TRUE(api.calls().empty());
  clock.advance(2s);
  EXPECT_TRUE(cache.get(kube::kConfigMaps, "default", "later", 2s));
  EXPECT_EQ(api.calls().size(), 1u);
  api.set_fault([](const auto&) { return std::optional(Error{ECONNREFUSED, "refused", {}}); });
  EXPECT_FALSE(cache.get(kube::kConfigMaps, "default", "later", 0s));
  EXPECT_TRUE(cache.get(kube::kConfigMaps, "default", "later", 2s)) << "a failure does not take what was read before";
  cache.drop_unused(0s);
  EXPECT_FALSE(cache.get(kube::kConfigMaps, "default", "later", 2s));
}

}  // namespace
}  // namespace hawser::agent
