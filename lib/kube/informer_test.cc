// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/informer.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

Object pod(std::string_view name, std::string_view node = "") {
  Object o;
  ensure(o, {"metadata"})["name"] = name;
  if (!node.empty()) ensure(o, {"spec"})["nodeName"] = node;
  return o;
}

// An informer on pods whose changes are written down as "+a", "~a", "-a"; "synced" when it is.
class InformerTest : public ::testing::Test {
 protected:
  ~InformerTest() override { informer.stop(); }
  void start() {
    informer.start(
        {.on_change =
             [this](const ObjectPtr& old, const ObjectPtr& current) {
               note((old && current ? "~" : current ? "+" : "-") + std::string(name(current ? *current : *old)));
             },
         .on_synced = [this] { note("synced"); }});
  }
  void note(std::string s) {
    std::lock_guard l(mu);
    log.push_back(std::move(s));
    cv.notify_all();
  }
  // Waits until exactly these have been noted since the last call, moving the clock so that back-offs pass.
  void expect(std::vector<std::string> want) {
    for (int i = 0; i < 4000; i++) {
      std::unique_lock l(mu);
      if (cv.wait_for(l, 5ms, [&] { return log.size() >= want.size(); })) break;
      l.unlock();
      clock.advance(1s);
    }
    std::lock_guard l(mu);
    EXPECT_EQ(log, want);
    log.clear();
  }
  // Waits until the watch runs.
  void watched() {
    for (int i = 0; i < 4000 && client.watching() == 0; i++) {
      clock.advance(1s);
      std::unique_lock l(mu);
      cv.wait_for(l, 1ms);
    }
    ASSERT_EQ(client.watching(), 1);
  }
  int count(std::string_view verb) {
    int n = 0;
    for (const auto& c : client.calls()) n += c.verb == verb;
    return n;
  }
  Result<ObjectPtr> create(std::string_view name) { return client.create(kPods, "default", pod(name)); }

  FakeClock clock;
  FakeClient client{clock};
  std::mutex mu;
  std::condition_variable cv;
  std::vector<std::string> log;  // guarded by mu
  Informer informer{client, kPods, {}, clock};
};

TEST_F(InformerTest, ListsThenFollows) {
  create("a");
  create("b");
  start();
  expect({"+a", "+b", "synced"});
  EXPECT_TRUE(informer.synced());
  watched();
  create("c");
  Object a = *client.get(kPods, "default", "a").value();
  ensure(a, {"metadata", "labels"})["x"] = "y";
  ASSERT_TRUE(client.update(kPods, a));
  ASSERT_TRUE(client.remove(kPods, "default", "b"));
  expect({"+c", "~a", "-b"});
  EXPECT_EQ(informer.list().size(), 2u);
  EXPECT_EQ(str(*informer.get("default/a"), {"metadata", "labels", "x"}), "y");
  EXPECT_EQ(informer.get("default/b"), nullptr);
  EXPECT_EQ(informer.failures(), 0);
}

TEST_F(InformerTest, ResumesABrokenWatchWithoutListing) {
  create("a");
  start();
  expect({"+a", "synced"});
  watched();
  client.break_watches();
  create("b");
  expect({"+b"});
  client.break_watches(std::nullopt);
  create("c");
  expect({"+c"});
  EXPECT_EQ(count("list"), 1);
}

TEST_F(InformerTest, ListsAgainWhenTheVersionIsGone) {
  create("keep");
  create("change");
  create("remove");
  create("remake");
  start();
  expect({"+change", "+keep", "+remake", "+remove", "synced"});
  watched();
  client.set_fault([](const FakeClient::Call& c) -> std::optional<Error> {
    if (c.verb == "watch") return Error{ECONNREFUSED, "away", {}};
    return std::nullopt;
  });
  client.break_watches();
  Object changed = *client.get(kPods, "default", "change").value();
  ensure(changed, {"metadata", "labels"})["x"] = "y";
  client.update(kPods, changed);
  client.remove(kPods, "default", "remove");
  client.remove(kPods, "default", "remake");
  create("remake");
  create("fresh");
  client.compact();
  client.set_fault(nullptr);
  // Only what differs: "keep" is not told again, and the pod that was made anew is another pod.
  expect({"-remove", "~change", "+fresh", "-remake", "+remake"});
  EXPECT_EQ(informer.list().size(), 4u);
  watched();
  EXPECT_EQ(informer.failures(), 0);
}

TEST_F(InformerTest, BookmarksMoveTheVersionOn) {
  create("a");
  start();
  expect({"+a", "synced"});
  watched();
  client.create(kNodes, "", pod("node"));
  client.bookmark();
  client.compact();  // everything up to the bookmark
  create("b");
  expect({"+b"});
  client.break_watches();
  create("c");
  expect({"+c"});
  EXPECT_EQ(count("list"), 1);
}

TEST_F(InformerTest, KeepsItsStateWhileTheApiIsAway) {
  create("a");
  start();
  expect({"+a", "synced"});
  watched();
  std::atomic<int> refused = 0;
  client.set_fault([&](const FakeClient::Call&) -> std::optional<Error> {
    refused++;
    cv.notify_all();
    return Error{ECONNREFUSED, "away", {}};
  });
  client.break_watches();
  for (int i = 0; i < 10000 && refused < 5; i++) {
    clock.advance(1s);
    std::unique_lock l(mu);
    cv.wait_for(l, 1ms);
  }
  EXPECT_GE(refused, 5);
  EXPECT_GE(informer.failures(), 4);
  EXPECT_NE(informer.get("default/a"), nullptr);
  client.set_fault(nullptr);
  create("b");
  expect({"+b"});
  watched();
  EXPECT_EQ(informer.failures(), 0);
}

TEST_F(InformerTest, BacksOffLongerEachTimeUpToTenSeconds) {
  std::atomic<int> tries = 0;
  client.set_fault([&](const FakeClient::Call&) -> std::optional<Error> {
    tries++;
    cv.notify_all();
    return Error{503, "unavailable", {}};
  });
  auto begin = clock.now();
  start();
  // 0.1 + 0.2 + ... + 6.4 + 10 + 10 = 32.7 s at least before try 10, and with the most jitter half as much again.
  while (tries < 10 && clock.now() - begin < 120s) {
    clock.advance(100ms);
    std::unique_lock l(mu);
    cv.wait_for(l, 2ms);
  }
  EXPECT_EQ(tries, 10);
  EXPECT_GE(clock.now() - begin, 32s);
  EXPECT_LE(clock.now() - begin, 70s);
}

TEST_F(InformerTest, AWatchThatEndsAtOnceDoesNotSpin) {
  start();
  expect({"synced"});
  watched();
  client.set_fault([&](const FakeClient::Call& c) -> std::optional<Error> {
    if (c.verb == "watch") client.break_watches(std::nullopt);
    return std::nullopt;
  });
  client.break_watches(std::nullopt);
  create("a");
  expect({"+a"});
  EXPECT_LT(count("watch"), 50);
}

TEST_F(InformerTest, StopIsPromptInEveryState) {
  informer.stop();  // before start
  start();
  informer.wait_synced(1h);
  informer.stop();  // while watching
  FakeClient broken(clock);
  broken.set_fault([](const FakeClient::Call&) { return Error{503, "", {}}; });
  Informer second(broken, kPods, {}, clock);
  second.start({});
  second.stop();  // while backing off
  EXPECT_FALSE(second.synced());
}

TEST(InformerSelectorTest, SeesOnlyWhatItSelects) {
  FakeClock clock;
  FakeClient client(clock);
  std::mutex mu;
  std::condition_variable cv;
  std::vector<std::string> log;
  Informer informer(client, kPods, {.field_selector = "spec.nodeName=node-1"}, clock);
  client.create(kPods, "default", pod("mine", "node-1"));
  client.create(kPods, "default", pod("other", "node-2"));
  client.create(kPods, "default", pod("free"));
  informer.start({.on_change = [&](const ObjectPtr& old, const ObjectPtr& current) {
    std::lock_guard l(mu);
    log.push_back((old && current ? "~" : current ? "+" : "-") + std::string(name(current ? *current : *old)));
    cv.notify_all();
  }});
  Object target;
  ensure(target, {"target"})["name"] = "node-1";
  ASSERT_TRUE(client.create_sub(kPods, "default", "free", "binding", target));
  EXPECT_EQ(client.create_sub(kPods, "default", "free", "binding", target).error().code, 409);
  ASSERT_TRUE(client.remove(kPods, "default", "mine", {.grace_period_seconds = 0}));
  std::unique_lock l(mu);
  cv.wait_for(l, 20s, [&] { return informer.list().size() == 1 && informer.get("default/free"); });
  l.unlock();
  EXPECT_EQ(informer.list().size(), 1u);
  EXPECT_NE(informer.get("default/free"), nullptr);
}

}  // namespace
}  // namespace hawser::kube
