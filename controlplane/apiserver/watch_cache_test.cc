// SPDX-License-Identifier: Apache-2.0
#include <stop_token>
#include <thread>

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/registry_fixture.h"

namespace hawser::apiserver {
namespace {

// Writes down what it is told: "ADDED a@5", "BOOKMARK @7".
class Recorder final : public Watcher {
 public:
  bool deliver(Frame& f) override {
    lines.push_back(fmt::format("{} {}@{}", event_name(f.type()), kube::name(*f.entry()->object),
                                kube::resource_version(*f.entry()->object)));
    last_line = f.line();
    return !leave;
  }
  bool bookmark(Revision r, bool end) override {
    lines.push_back(fmt::format("BOOKMARK @{}{}", r, end ? " end" : ""));
    return true;
  }
  void expire() override { lines.emplace_back("EXPIRED"); }
  std::vector<std::string> lines;
  std::shared_ptr<const std::string> last_line;
  bool leave = false;
};
using Lines = std::vector<std::string>;

class WatchTest : public RegistryTest {
 protected:
  std::shared_ptr<Recorder> watch(const WatchRequest& r, std::string_view plural = "configmaps") {
    auto w = std::make_shared<Recorder>();
    auto ok = parts_.registry.watch(kind(plural), r, w);
    EXPECT_TRUE(ok) << ok.error().message;
    return w;
  }
  Revision make(std::string_view name, std::string_view labels = "{}") {
    create("configmaps", fmt::format(R"({{"metadata":{{"name":"{}","labels":{}}}}})", name, labels));
    return store_->revision();
  }
  // `want` with @N relative to `base`.
  static Lines at(Revision base, std::initializer_list<std::pair<std::string_view, int>> want) {
    Lines out;
    for (auto& [text, offset] : want) out.push_back(fmt::format("{}@{}", text, base + offset));
    return out;
  }
};

TEST_F(WatchTest, InitialStateThenChanges) {
  auto base = make("a");
  auto w = watch({.filter = {.ns = "default"}});
  make("b");
  ASSERT_TRUE(merge("configmaps", "a", R"({"data":{"x":"y"}})"));
  ASSERT_TRUE(remove("configmaps", "b"));
  EXPECT_EQ(w->lines, at(base, {{"ADDED a", 0}, {"ADDED b", 1}, {"MODIFIED a", 2}, {"DELETED b", 3}}));
}

TEST_F(WatchTest, ResumesAfterARevision) {
  auto base = make("a");
  make("b");
  make("c");
  auto w = watch({.resource_version = base});
  EXPECT_EQ(w->lines, at(base, {{"ADDED b", 1}, {"ADDED c", 2}}));
}

TEST_F(WatchTest, LeavingTheSelectorIsADeletionWithTheLastState) {
  auto base = make("a", R"({"x":"1"})");
  WatchRequest r{.resource_version = base};
  r.filter.labels = kube::LabelSelector::parse("x=1").value();
  auto w = watch(r);
  ASSERT_TRUE(merge("configmaps", "a", R"({"metadata":{"labels":{"x":"2"}}})"));
  EXPECT_TRUE(w->last_line->contains(R"("x":"1")")) << *w->last_line;
  ASSERT_TRUE(merge("configmaps", "a", R"({"metadata":{"labels":{"y":"2"}}})"));
  ASSERT_TRUE(merge("configmaps", "a", R"({"metadata":{"labels":{"x":"1"}}})"));
  EXPECT_EQ(w->lines, at(base, {{"DELETED a", 1}, {"ADDED a", 3}}));
}

TEST_F(WatchTest, FieldSelectorOfPods) {
  WatchRequest r;
  r.filter.fields = {{"spec.nodeName", true, "n1"}};
  auto w = watch(r, "pods");
  create("pods", R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}})");
  EXPECT_TRUE(w->lines.empty());
  ASSERT_TRUE(bind_pod(parts_.registry, {"default", "p"}, parse(R"({"target":{"name":"n1"}})"), {}));
  EXPECT_EQ(w->lines, (Lines{fmt::format("ADDED p@{}", store_->revision())}));
}

TEST_F(WatchTest, OtherNamespacesAreNotShown) {
  create("namespaces", R"({"metadata":{"name":"default2"}})", "");
  auto w = watch({.filter = {.ns = "default"}});
  create("configmaps", R"({"metadata":{"name":"x"}})", "default2");
  EXPECT_TRUE(w->lines.empty());
}

TEST_F(WatchTest, InitialEventsEndWithABookmark) {
  auto base = make("a");
  auto w = watch({.send_initial_events = true});
  EXPECT_EQ(w->lines, (Lines{fmt::format("ADDED a@{}", base), fmt::format("BOOKMARK @{} end", base)}));
}

TEST_F(WatchTest, BookmarkCarriesTheProgressOfAQuietKind) {
  auto w = watch({.from_now = true}, "secrets");
  auto base = make("a");
  parts_.cache.of(kind("secrets")).send_bookmark(*w, parts_.cache.progress());
  EXPECT_EQ(w->lines, (Lines{fmt::format("BOOKMARK @{}", base)}));
}

TEST_F(WatchTest, TooOldIsExpiredAndFutureIsATimeout) {
  for (int i = 0; i < 1200; ++i) {
    ASSERT_TRUE(i == 0 ? try_create("configmaps", R"({"metadata":{"name":"m"}})")
                       : merge("configmaps", "m", fmt::format(R"({{"data":{{"n":"{}"}}}})", i)));
  }
  auto w = std::make_shared<Recorder>();
  auto old = parts_.registry.watch(kind("configmaps"), {.resource_version = 3}, w);
  EXPECT_EQ(error_of(old).substr(0, 42), "410 Expired: too old resource version: 3 (");
  auto future = parts_.registry.watch(kind("configmaps"), {.resource_version = 1'000'000}, w);
  EXPECT_EQ(future.error().code, 504);
  EXPECT_EQ(future.error().cause, "ResourceVersionTooLarge");
}

TEST_F(WatchTest, WatcherThatLeftIsForgotten) {
  auto w = watch({.from_now = true});
  make("a");
  w->leave = true;
  make("b");
  make("c");
  EXPECT_EQ(w->lines.size(), 2u);
  EXPECT_EQ(parts_.cache.of(kind("configmaps")).watchers(), 0u);
}

TEST_F(WatchTest, OneFrameForAllWatchers) {
  auto a = watch({.from_now = true});
  auto b = watch({.from_now = true});
  make("a");
  EXPECT_EQ(a->last_line, b->last_line);
  EXPECT_TRUE(a->last_line->starts_with(
      R"({"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":")"));
  EXPECT_TRUE(a->last_line->ends_with("}\n"));
}

TEST_F(WatchTest, RestartLosesNoWatcher) {
  auto base = make("a");
  make("b");
  ASSERT_TRUE(remove("configmaps", "a"));
  RegistryParts next(*store_);
  auto w = std::make_shared<Recorder>();
  ASSERT_TRUE(next.registry.watch(kind("configmaps"), {.resource_version = base}, w));
  EXPECT_EQ(w->lines, at(base, {{"ADDED b", 1}, {"DELETED a", 2}}));
}

// A store whose watch can be lost.
class LossyStore final : public store::Store {
 public:
  explicit LossyStore(store::Store& inner) : inner_(inner) {}
  Result<store::TxnReply> txn(const store::Txn& t) override { return inner_.txn(t); }
  Result<store::RangeReply> range(const store::RangeRequest& r) override { return inner_.range(r); }
  Result<std::unique_ptr<store::Watch>> watch(const std::string& key, const std::string& end, Revision from,
                                              store::WatchFn fn) override {
    fn_ = fn;
    deaf_ = std::make_shared<std::atomic<bool>>(false);
    return inner_.watch(key, end, from, [deaf = deaf_, fn = std::move(fn)](const store::EventBatch& b) {
      if (!*deaf) fn(b);
    });
  }
  Result<> compact(Revision r) override { return inner_.compact(r); }
  Revision revision() override { return inner_.revision(); }
  Revision compacted() override { return inner_.compacted(); }
  Result<store::LeaseId> lease_grant(std::int64_t ttl) override { return inner_.lease_grant(ttl); }
  Result<> lease_keep_alive(store::LeaseId id) override { return inner_.lease_keep_alive(id); }
  Result<> lease_revoke(store::LeaseId id) override { return inner_.lease_revoke(id); }

  // From here on events are missed ...
  void miss() { *deaf_ = true; }
  // ... until this tells so. The lost watch stays deaf: what it has still to deliver must not come after the loss.
  void lose() {
    const auto fn = fn_;
    fn({.events = {}, .progress = 0, .lost = true});
  }

 private:
  store::Store& inner_;
  store::WatchFn fn_;
  std::shared_ptr<std::atomic<bool>> deaf_;
};

TEST_F(WatchTest, LostWatchOfTheStoreHealsItself) {
  LossyStore lossy(*store_);
  RegistryParts parts(lossy);
  auto& configmaps = kind("configmaps");
  auto w = std::make_shared<Recorder>();
  ASSERT_TRUE(parts.registry.watch(configmaps, {}, w));
  make("kept");
  make("gone");
  ASSERT_TRUE(parts.cache.wait_for(store_->revision(), std::chrono::seconds(10)));
  lossy.miss();
  // Through the other registry, which hears all.
  create("services", R"({"metadata":{"name":"s"},"spec":{"clusterIP":"10.96.0.77","ports":[{"port":80}]}})");
  make("missed");
  remove("configmaps", "gone");
  lossy.lose();
  ASSERT_TRUE(parts.cache.wait_for(store_->revision(), std::chrono::seconds(10)));
  auto names = [&] {
    std::string out;
    auto all = parts.registry.list(configmaps, {});
    for (auto& e : all->items) out += e->key + " ";
    return out;
  };
  EXPECT_EQ(names(), "default/kept default/missed ");
  ASSERT_EQ(w->lines.size(), 3u);
  EXPECT_EQ(w->lines[2], "EXPIRED");
  // A version from before the gap is gone; from now on all is told again.
  auto again = std::make_shared<Recorder>();
  EXPECT_EQ(parts.registry.watch(configmaps, {.resource_version = 2}, again).error().code, 410);
  ASSERT_TRUE(parts.registry.watch(configmaps, {.resource_version = store_->revision()}, again));
  auto after = parts.registry.create(configmaps, "default", parse(R"({"metadata":{"name":"after"}})"), {});
  ASSERT_TRUE(after) << after.error().message;
  ASSERT_EQ(again->lines.size(), 1u);
  while (!parts.cache.following()) std::this_thread::yield();  // the test's own time limit ends this
  // The allocator knows what was taken meanwhile.
  auto taken = parts.registry.create(
      kind("services"), "default",
      parse(R"({"metadata":{"name":"t"},"spec":{"clusterIP":"10.96.0.77","ports":[{"port":80,"protocol":"TCP"}]}})"),
      {});
  EXPECT_EQ(taken.error().code, 422);
}

TEST_F(WatchTest, BytesAndObjectAgree) {
  make("a", R"({"x":"1"})");
  auto e = *get("configmaps", "a");
  EXPECT_EQ(boost::json::parse(*e->json), boost::json::value(*e->object));
  auto list = *store_->range({.key = "/registry/core/configmaps/default/a"});
  EXPECT_FALSE(list.kvs[0].value.contains("resourceVersion"));
}

// Many writers, one watcher: every event once, in order.
TEST_F(WatchTest, OrderUnderConcurrentWriters) {
  auto w = watch({.from_now = true});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        EXPECT_TRUE(try_create("configmaps", fmt::format(R"({{"metadata":{{"name":"m{}-{}"}}}})", t, i)));
      }
    });
  }
  for (auto& t : threads) t.join();
  ASSERT_EQ(w->lines.size(), 100u);
  Revision last = 0;
  for (auto& line : w->lines) {
    Revision r = std::atoll(line.c_str() + line.find('@') + 1);
    EXPECT_GT(r, last);
    last = r;
  }
}

TEST_F(WatchTest, LocalClientWatch) {
  auto base = make("a");
  std::stop_source stop;
  Lines seen;
  std::jthread consumer([&] {
    kube::WatchOptions o;
    o.resource_version = std::to_string(base - 1);
    auto ok = parts_.client.watch(
        kube::kConfigMaps, o,
        [&](const kube::WatchEvent& e) {
          seen.emplace_back(kube::name(*e.object));
          return seen.size() < 2;
        },
        stop.get_token());
    EXPECT_TRUE(ok);
  });
  make("b");
  consumer.join();
  EXPECT_EQ(seen, (Lines{"a", "b"}));
  // A stop ends a watch that nothing happens on.
  std::jthread idle([&] {
    EXPECT_TRUE(parts_.client.watch(
        kube::kSecrets, {}, [](auto&) { return true; }, stop.get_token()));
  });
  stop.request_stop();
}

TEST_F(WatchTest, LocalClientErrorsAreTheApis) {
  auto e = parts_.client.get(kube::kPods, "default", "none");
  ASSERT_FALSE(e);
  EXPECT_TRUE(is_not_found(e.error()));
  EXPECT_EQ(e.error().text, "pods \"none\" not found");
  make("a");
  auto again = parts_.client.create(kube::kConfigMaps, "default", {{"metadata", Object{{"name", "a"}}}});
  EXPECT_TRUE(is_exists(again.error()));
}

}  // namespace
}  // namespace hawser::apiserver
