// SPDX-License-Identifier: Apache-2.0
// The fake keeps the contract that the tests of others rely on. Also the event recorder, which is tested with it.
#include "lib/kube/fake_client.h"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "lib/kube/event_recorder.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

Object named(std::string_view text) {
  return boost::json::parse(text).as_object();
}

TEST(FakeClientTest, CreatesUpdatesAndConflicts) {
  FakeClock clock;
  FakeClient c(clock);
  auto made = c.create(kConfigMaps, "ns", named(R"({"metadata":{"generateName":"x-"}})")).value();
  EXPECT_EQ(name(*made).size(), 7u);
  EXPECT_EQ(str(*made, {"kind"}), "ConfigMap");
  EXPECT_FALSE(uid(*made).empty());
  EXPECT_EQ(str(*made, {"metadata", "creationTimestamp"}), "2026-01-01T00:00:00Z");
  EXPECT_TRUE(is_exists(c.create(kConfigMaps, "ns", *made).error()));
  Object next = *made;
  next["data"] = named(R"({"k":"v"})");
  auto updated = c.update(kConfigMaps, next).value();
  EXPECT_NE(resource_version(*updated), resource_version(*made));
  EXPECT_TRUE(is_conflict(c.update(kConfigMaps, next).error())) << "the version in it is old now";
  EXPECT_EQ(c.update(kConfigMaps, *updated).value(), updated) << "no change, no new version";
  EXPECT_TRUE(is_not_found(c.get(kConfigMaps, "other", name(*made)).error()));
  EXPECT_EQ(c.get(kConfigMaps, "ns", "zz").error().text, "configmaps \"zz\" not found");
}

TEST(FakeClientTest, StatusIsASubresource) {
  FakeClient c;
  auto d = c.create(kDeployments, "ns", named(R"({"metadata":{"name":"d"},"spec":{"replicas":1}})")).value();
  EXPECT_EQ(str(*d, {"apiVersion"}), "apps/v1");
  Object o = *d;
  ensure(o, {"spec"})["replicas"] = 2;
  ensure(o, {"status"})["replicas"] = 1;
  auto s = c.update(kDeployments, o, "status").value();
  EXPECT_EQ(num(*s, {"spec", "replicas"}), 1);
  EXPECT_EQ(num(*s, {"status", "replicas"}), 1);
  EXPECT_EQ(num(*s, {"metadata", "generation"}), 1);
  o["metadata"] = s->at("metadata");
  ensure(o, {"status"})["replicas"] = 9;
  auto u = c.update(kDeployments, o).value();
  EXPECT_EQ(num(*u, {"spec", "replicas"}), 2);
  EXPECT_EQ(num(*u, {"status", "replicas"}), 1);
  EXPECT_EQ(num(*u, {"metadata", "generation"}), 2);
}

TEST(FakeClientTest, DeletesGracefullyAndWithFinalizers) {
  FakeClient c;
  c.create(kPods, "ns", named(R"({"metadata":{"name":"p"},"spec":{"nodeName":"n"}})"));
  ASSERT_TRUE(c.remove(kPods, "ns", "p"));
  EXPECT_TRUE(deleting(*c.get(kPods, "ns", "p").value()));
  ASSERT_TRUE(c.remove(kPods, "ns", "p", {.grace_period_seconds = 0}));
  EXPECT_FALSE(c.get(kPods, "ns", "p"));
  auto f = c.create(kConfigMaps, "ns", named(R"({"metadata":{"name":"f","finalizers":["a"]}})")).value();
  EXPECT_TRUE(is_conflict(c.remove(kConfigMaps, "ns", "f", {.uid = "other"}).error()));
  ASSERT_TRUE(c.remove(kConfigMaps, "ns", "f"));
  ASSERT_TRUE(c.patch(kConfigMaps, "ns", "f", PatchType::kMerge, named(R"({"metadata":{"finalizers":null}})")));
  EXPECT_FALSE(c.get(kConfigMaps, "ns", "f"));
}

TEST(FakeClientTest, PatchesThreeWays) {
  FakeClient c;
  c.create(
      kNodes, "",
      named(
          R"({"metadata":{"name":"n"},"status":{"conditions":[{"type":"A","status":"1"},{"type":"B","status":"1"}]}})"));
  auto strategic = c.patch(kNodes, "", "n", PatchType::kStrategic,
                           named(R"({"status":{"conditions":[{"type":"B","status":"2"}]}})"), "status")
                       .value();
  EXPECT_EQ(arr(*strategic, {"status", "conditions"}).size(), 2u);
  auto merged =
      c.patch(kNodes, "", "n", PatchType::kMerge, named(R"({"metadata":{"annotations":{"a/b":"1","c":"2"}}})")).value();
  EXPECT_EQ(str(*merged, {"metadata", "annotations", "c"}), "2");
  auto json = c.patch(kNodes, "", "n", PatchType::kJson, boost::json::parse(R"([
    {"op":"test","path":"/metadata/annotations/c","value":"2"},{"op":"remove","path":"/metadata/annotations/c"},
    {"op":"replace","path":"/metadata/annotations/a~1b","value":"3"}])"))
                  .value();
  EXPECT_EQ(str(*json, {"metadata", "annotations", "a/b"}), "3");
  EXPECT_EQ(find(*json, {"metadata", "annotations", "c"}), nullptr);
  EXPECT_FALSE(c.patch(kNodes, "", "n", PatchType::kJson, boost::json::parse(R"([{"op":"remove","path":"/nope/x"}])")));
}

TEST(FakeClientTest, WatchTellsSelectorChangesAsAddsAndDeletes) {
  FakeClient c;
  auto o = *c.create(kPods, "ns", named(R"({"metadata":{"name":"p","labels":{"app":"x"}}})")).value();
  ensure(o, {"metadata", "labels"})["app"] = "web";
  o = *c.update(kPods, o).value();
  ensure(o, {"metadata", "labels"})["more"] = "1";
  o = *c.update(kPods, o).value();
  ensure(o, {"metadata", "labels"})["app"] = "x";
  o = *c.update(kPods, o).value();
  std::vector<EventType> got;
  WatchOptions w;
  w.label_selector = "app=web";
  w.resource_version = "1";
  EXPECT_TRUE(c.watch(kPods, w,
                      [&](const WatchEvent& e) {
                        got.push_back(e.type);
                        return got.size() < 3;
                      },
                      {}));
  EXPECT_EQ(got, (std::vector{EventType::kAdded, EventType::kModified, EventType::kDeleted}));
  c.compact();
  EXPECT_TRUE(is_gone(c.watch(kPods, w, [](const WatchEvent&) { return true; }, {}).error()));
  std::stop_source stopped;
  stopped.request_stop();
  w.resource_version = resource_version(o);
  EXPECT_TRUE(c.watch(
      kPods, w, [](const WatchEvent&) { return true; }, stopped.get_token()));
}

TEST(EventRecorderTest, CountsRepeatsAndTellsWhere) {
  FakeClock clock;
  FakeClient c(clock);
  auto pod = c.create(kPods, "ns", named(R"({"metadata":{"name":"p"}})")).value();
  EventRecorder r(c, "hawser-agent", "node-1", clock);
  for (int i = 0; i < 3; i++)
    r.record(kPods, *pod,
             {.warning = true, .reason = "BackOff", .message = "again", .field_path = "spec.containers{c}"});
  r.record(kPods, *pod, {.reason = "Pulled", .message = "image"});
  r.record(kNodes, *c.create(kNodes, "", named(R"({"metadata":{"name":"n"}})")).value(),
           {.reason = "Ready", .message = std::string(2000, 'x')});
  ASSERT_TRUE(r.flush(1h));
  auto events = c.list(kEvents, {.ns = "ns"})->items;
  ASSERT_EQ(events.size(), 2u);
  const Object& e = *events[0];
  EXPECT_EQ(num(e, {"count"}), 3);
  EXPECT_EQ(str(e, {"type"}), "Warning");
  EXPECT_EQ(str(e, {"involvedObject", "kind"}), "Pod");
  EXPECT_EQ(str(e, {"involvedObject", "uid"}), uid(*pod));
  EXPECT_EQ(str(e, {"involvedObject", "fieldPath"}), "spec.containers{c}");
  EXPECT_EQ(str(e, {"source", "host"}), "node-1");
  EXPECT_TRUE(name(e).starts_with("p."));
  auto node_events = c.list(kEvents, {.ns = "default"})->items;
  ASSERT_EQ(node_events.size(), 1u);
  EXPECT_EQ(str(*node_events[0], {"message"}).size(), 1024u);
  // Expired on the server: the next one starts over.
  ASSERT_TRUE(c.remove(kEvents, "ns", name(e)));
  r.record(kPods, *pod, {.warning = true, .reason = "BackOff", .message = "again", .field_path = "spec.containers{c}"});
  ASSERT_TRUE(r.flush(1h));
  EXPECT_EQ(c.list(kEvents, {.ns = "ns"})->items.size(), 2u);
  EXPECT_EQ(r.dropped(), 0);
}

TEST(EventRecorderTest, NeverBlocksAndDropsWhatCannotGo) {
  FakeClock clock;
  FakeClient c(clock);
  auto pod = c.create(kPods, "ns", named(R"({"metadata":{"name":"p"}})")).value();
  c.set_fault([](const FakeClient::Call&) { return Error{ECONNREFUSED, "away", {}}; });
  EventRecorder r(c, "x", "", clock);
  for (int i = 0; i < 1100; i++) r.record(kPods, *pod, {.reason = "R", .message = std::to_string(i)});
  EXPECT_GE(r.dropped(), 90);
}

}  // namespace
}  // namespace hawser::kube
