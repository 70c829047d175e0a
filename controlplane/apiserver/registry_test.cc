// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "controlplane/apiserver/continue_token.h"
#include "controlplane/apiserver/registry_fixture.h"

namespace hawser::apiserver {
namespace {

constexpr std::string_view kPod = R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}})";
constexpr std::string_view kMap = R"({"metadata":{"name":"m"},"data":{"a":"1"}})";

TEST_F(RegistryTest, CreateFillsWhatTheSystemOwns) {
  auto o = create("pods", kPod);
  EXPECT_EQ(kube::uid(o).size(), 36u);
  EXPECT_EQ(kube::str(o, {"metadata", "creationTimestamp"}).size(), 20u);
  EXPECT_EQ(kube::ns(o), "default");
  EXPECT_EQ(kube::str(o, {"status", "phase"}), "Pending");
  EXPECT_EQ(kube::str(o, {"status", "qosClass"}), "BestEffort");
  EXPECT_EQ(kube::str(o, {"spec", "serviceAccountName"}), "default");
  EXPECT_EQ(kube::arr(o, {"spec", "tolerations"}).size(), 2u);
  EXPECT_EQ(kube::resource_version(o), std::to_string(store_->revision()));
}

TEST_F(RegistryTest, GenerationCountsSpecChanges) {
  create("deployments", R"({"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}})",
         "default", "apps");
  auto generation = [&](std::string_view patch, std::string_view sub) {
    auto e = merge("deployments", "d", patch, sub, "apps");
    EXPECT_TRUE(e) << e.error().message;
    return e ? kube::num(*(*e)->object, {"metadata", "generation"}) : -1;
  };
  EXPECT_EQ(generation(R"({"metadata":{"labels":{"x":"y"}}})", ""), 1);
  EXPECT_EQ(generation(R"({"spec":{"replicas":4}})", ""), 2);
  EXPECT_EQ(generation(R"({"status":{"replicas":4}})", "status"), 2);
  EXPECT_EQ(generation(R"({"status":{"replicas":9}})", ""), 2);
  auto e = get("deployments", "d", "default", "apps");
  EXPECT_EQ(kube::num(*(*e)->object, {"status", "replicas"}), 4);
}

TEST_F(RegistryTest, ErrorTexts) {
  create("configmaps", kMap);
  struct Case {
    int line;
    std::string have, want;
  };
  auto update = [&](std::string_view plural, std::string_view name, std::string_view text) {
    return error_of(parts_.registry.update(kind(plural), {"default", name}, parse(text), "", {}));
  };
  const std::vector<Case> cases = {
      {__LINE__, error_of(get("configmaps", "x")), "404 NotFound: configmaps \"x\" not found"},
      {__LINE__, error_of(get("deployments", "x", "default", "apps")),
       "404 NotFound: deployments.apps \"x\" not found"},
      {__LINE__, error_of(try_create("configmaps", kMap)), "409 AlreadyExists: configmaps \"m\" already exists"},
      {__LINE__, error_of(try_create("configmaps", kMap, "gone")), "404 NotFound: namespaces \"gone\" not found"},
      {__LINE__, error_of(try_create("configmaps", R"({"metadata":{"name":"m","namespace":"other"}})")),
       "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request"},
      {__LINE__, error_of(try_create("configmaps", R"({"metadata":{"name":"n","resourceVersion":"7"}})")),
       "400 BadRequest: resourceVersion should not be set on objects to be created"},
      {__LINE__, update("configmaps", "m", R"({"metadata":{"name":"m","resourceVersion":"1"}})"),
       "409 Conflict: Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply "
       "your "
       "changes to the latest version and try again"},
      {__LINE__, update("configmaps", "m", R"({"metadata":{"name":"q"}})"),
       "400 BadRequest: the name of the object (q) does not match the name on the URL (m)"},
      {__LINE__, update("configmaps", "none", R"({"metadata":{"name":"none"}})"),
       "404 NotFound: configmaps \"none\" not found"},
      {__LINE__, error_of(remove("namespaces", "default")),
       "403 Forbidden: namespaces \"default\" is forbidden: this namespace may not be deleted"},
  };
  for (auto& c : cases) EXPECT_EQ(c.have, c.want) << "case at line " << c.line;
}

TEST_F(RegistryTest, PreconditionsOfUpdateAndDelete) {
  create("configmaps", kMap);
  auto done = parts_.registry.update(kind("configmaps"), {"default", "m"},
                                     parse(R"({"metadata":{"name":"m","uid":"other"}})"), "", {});
  EXPECT_TRUE(error_of(done).starts_with("409 Conflict: ")) << error_of(done);
  EXPECT_TRUE(error_of(done).contains("Precondition failed: UID in precondition: other, UID in object meta: "));
  EXPECT_TRUE(error_of(remove("configmaps", "m", {.uid = "other"}))
                  .contains("the UID in the precondition (other) does not match"));
  EXPECT_TRUE(error_of(remove("configmaps", "m", {.resource_version = "1"}))
                  .contains("the ResourceVersion in the precondition (1)"));
  auto uid = std::string(kube::uid(*(*get("configmaps", "m"))->object));
  EXPECT_TRUE(remove("configmaps", "m", {.uid = uid}));
}

TEST_F(RegistryTest, UpdateThatChangesNothingWritesNothing) {
  create("configmaps", kMap);
  auto before = store_->revision();
  auto done = parts_.registry.update(kind("configmaps"), {"default", "m"}, parse(kMap), "", {});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(store_->revision(), before);
  EXPECT_EQ(done->entry->revision, before);
}

TEST_F(RegistryTest, PutCreatesOnlyWhatMayBeCreatedSo) {
  auto& leases = kind("leases", "coordination.k8s.io");
  auto o = parse(R"({"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"l"},"spec":{}})");
  auto made = parts_.registry.update(leases, {"default", "l"}, o, "", {});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_TRUE(made->created);
  EXPECT_EQ(
      error_of(parts_.registry.update(leases, {"default", "l"}, o, "", {})),
      "422 Invalid: Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be "
      "specified for an update");
}

TEST_F(RegistryTest, GenerateNameTriesAgain) {
  std::set<std::string> names;
  for (int i = 0; i < 20; ++i) {
    auto o = create("configmaps", R"({"metadata":{"generateName":"web-"}})");
    std::string name(kube::name(o));
    EXPECT_TRUE(name.starts_with("web-") && name.size() == 9) << name;
    EXPECT_TRUE(names.insert(name).second);
  }
}

TEST_F(RegistryTest, DryRunWritesNothing) {
  auto before = store_->revision();
  WriteOptions dry{.dry_run = true};
  auto e = try_create("configmaps", kMap, "default", "", dry);
  ASSERT_TRUE(e) << e.error().message;
  EXPECT_FALSE(kube::uid(*(*e)->object).empty());
  create("configmaps", kMap);
  auto patched = parts_.registry.patch(kind("configmaps"), {"default", "m"}, kube::PatchType::kMerge,
                                       boost::json::parse(R"({"data":{"a":"2"}})"), "", dry);
  ASSERT_TRUE(patched);
  EXPECT_EQ(kube::str(*(*patched)->object, {"data", "a"}), "2");
  EXPECT_TRUE(remove("configmaps", "m", {.dry_run = true}));
  EXPECT_EQ(kube::str(*(*get("configmaps", "m"))->object, {"data", "a"}), "1");
  EXPECT_EQ(store_->revision(), before + 1);
}

TEST_F(RegistryTest, ConcurrentPatchesAllLand) {
  create("configmaps", kMap);
  constexpr int kThreads = 8;
  constexpr int kEach = 20;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        auto done = merge("configmaps", "m", fmt::format(R"({{"data":{{"k{}-{}":"v"}}}})", t, i));
        EXPECT_TRUE(done) << done.error().message;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(kube::obj(*(*get("configmaps", "m"))->object, {"data"}).size(), kThreads * kEach + 1u);
}

TEST_F(RegistryTest, ConditionalUpdatesLoseNoWrite) {
  create("configmaps", kMap);
  std::atomic<int> won = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 30; ++i) {
        auto e = get("configmaps", "m");
        Object o = *(*e)->object;
        auto& data = o["data"].as_object();
        data["n"] = std::to_string(std::atoi(std::string(kube::str(o, {"data", "n"})).c_str()) + 1);
        auto done = parts_.registry.update(kind("configmaps"), {"default", "m"}, o, "", {});
        if (done) {
          ++won;
        } else {
          EXPECT_EQ(done.error().reason, "Conflict");
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(kube::str(*(*get("configmaps", "m"))->object, {"data", "n"}), std::to_string(won));
}

// ---- deletion

TEST_F(RegistryTest, UnscheduledPodGoesAtOnceScheduledOneWaitsForItsAgent) {
  create("pods", kPod);
  auto gone = remove("pods", "p");
  ASSERT_TRUE(gone);
  EXPECT_TRUE(gone->gone);

  create("pods", R"({"metadata":{"name":"q"},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]}})");
  auto marked = remove("pods", "q");
  ASSERT_TRUE(marked);
  EXPECT_FALSE(marked->gone);
  EXPECT_EQ(kube::num(*marked->entry->object, {"metadata", "deletionGracePeriodSeconds"}), 30);
  EXPECT_TRUE(kube::deleting(*marked->entry->object));
  // Again with a longer wait changes nothing, with a shorter one shortens it.
  auto before = marked->entry->revision;
  EXPECT_EQ(remove("pods", "q", {.grace_seconds = 60})->entry->revision, before);
  EXPECT_EQ(remove("pods", "q")->entry->revision, before);
  EXPECT_EQ(
      kube::num(*remove("pods", "q", {.grace_seconds = 5})->entry->object, {"metadata", "deletionGracePeriodSeconds"}),
      5);
  EXPECT_TRUE(remove("pods", "q", {.grace_seconds = 0})->gone);
  EXPECT_FALSE(get("pods", "q"));
}

TEST_F(RegistryTest, FinalizerHoldsAnObjectUntilItIsRemoved) {
  create("configmaps", R"({"metadata":{"name":"m","finalizers":["a/b"]}})");
  auto marked = remove("configmaps", "m");
  ASSERT_TRUE(marked && !marked->gone);
  ASSERT_TRUE(kube::deleting(*(*get("configmaps", "m"))->object));
  ASSERT_TRUE(merge("configmaps", "m", R"({"metadata":{"finalizers":null}})"));
  EXPECT_FALSE(get("configmaps", "m"));
}

TEST_F(RegistryTest, NothingDelaysADeletionThatRuns) {
  create("configmaps", R"({"metadata":{"name":"c","finalizers":["example.com/a"]}})");
  ASSERT_TRUE(remove("configmaps", "c"));
  EXPECT_EQ(
      error_of(merge("configmaps", "c", R"({"metadata":{"finalizers":["example.com/a","example.com/b"]}})")),
      "422 Invalid: ConfigMap \"c\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if "
      "the object is being deleted, found new finalizers []string{\"example.com/b\"}");
  auto last = merge("configmaps", "c", R"({"metadata":{"finalizers":null}})");
  ASSERT_TRUE(last);
  EXPECT_FALSE(kube::obj(*(*last)->object, {"metadata"}).contains("finalizers"));
  EXPECT_EQ(get("configmaps", "c").error().code, 404);
}

TEST_F(RegistryTest, PropagationPolicyBecomesAFinalizer) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  create("configmaps", R"({"metadata":{"name":"b"}})");
  create("configmaps", R"({"metadata":{"name":"c"}})");
  auto orphan = remove("configmaps", "a", {.propagation = "Orphan"});
  EXPECT_EQ(boost::json::serialize(kube::arr(*orphan->entry->object, {"metadata", "finalizers"})), R"(["orphan"])");
  auto foreground = remove("configmaps", "b", {.propagation = "Foreground"});
  EXPECT_EQ(boost::json::serialize(kube::arr(*foreground->entry->object, {"metadata", "finalizers"})),
            R"(["foregroundDeletion"])");
  EXPECT_TRUE(remove("configmaps", "c", {.propagation = "Background"})->gone);
}

TEST_F(RegistryTest, NamespaceEndsThroughFinalize) {
  create("namespaces", R"({"metadata":{"name":"n"}})", "");
  create("configmaps", kMap, "n");
  auto marked = remove("namespaces", "n");
  ASSERT_TRUE(marked && !marked->gone);
  EXPECT_EQ(kube::str(*marked->entry->object, {"status", "phase"}), "Terminating");
  auto refused = try_create("configmaps", R"({"metadata":{"name":"late"}})", "n");
  EXPECT_EQ(error_of(refused),
            "403 Forbidden: configmaps \"late\" is forbidden: unable to create new content in namespace n because it "
            "is being "
            "terminated");
  EXPECT_EQ(refused.error().cause, "NamespaceTerminating");
  // An ordinary update cannot drop the finalizer.
  Object o = *(*get("namespaces", "n"))->object;
  o["spec"] = Object{{"finalizers", kube::Array()}};
  ASSERT_TRUE(parts_.registry.update(kind("namespaces"), {"", "n"}, o, "", {}));
  ASSERT_TRUE(get("namespaces", "n"));
  o["metadata"].as_object().erase("resourceVersion");
  auto ended = parts_.registry.update(kind("namespaces"), {"", "n"}, o, "finalize", {});
  ASSERT_TRUE(ended) << ended.error().message;
  EXPECT_FALSE(get("namespaces", "n"));
}

TEST_F(RegistryTest, DeleteCollectionTakesWhatIsSelected) {
  create("configmaps", R"({"metadata":{"name":"a","labels":{"x":"1"}}})");
  create("configmaps", R"({"metadata":{"name":"b","labels":{"x":"1"}}})");
  create("configmaps", R"({"metadata":{"name":"c"}})");
  ListRequest l;
  l.filter = {.ns = "default", .labels = kube::LabelSelector::parse("x=1").value()};
  auto done = parts_.registry.remove_collection(kind("configmaps"), l, {});
  ASSERT_TRUE(done);
  EXPECT_EQ(done->items.size(), 2u);
  EXPECT_TRUE(get("configmaps", "c"));
  EXPECT_FALSE(get("configmaps", "a"));
}

// ---- lists

TEST_F(RegistryTest, PagesShowOneRevision) {
  for (int i = 0; i < 5; ++i) create("configmaps", fmt::format(R"({{"metadata":{{"name":"m{}"}}}})", i));
  ListRequest r{.filter = {.ns = "default"}, .limit = 2};
  auto first = parts_.registry.list(kind("configmaps"), r);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->items.size(), 2u);
  EXPECT_EQ(first->remaining, 3);
  // What happens between pages is not seen by them.
  EXPECT_TRUE(remove("configmaps", "m3"));
  create("configmaps", R"({"metadata":{"name":"m2a"}})");
  std::vector<std::string> names;
  r.continue_token = first->continue_token;
  while (!r.continue_token.empty()) {
    auto page = parts_.registry.list(kind("configmaps"), r);
    ASSERT_TRUE(page) << page.error().message;
    EXPECT_EQ(page->revision, first->revision);
    for (auto& e : page->items) names.emplace_back(kube::name(*e->object));
    r.continue_token = page->continue_token;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"m2", "m3", "m4"}));
}

TEST_F(RegistryTest, ExpiredPageOffersAnInconsistentRest) {
  for (int i = 0; i < 3; ++i) create("configmaps", fmt::format(R"({{"metadata":{{"name":"m{}"}}}})", i));
  ListRequest r{.filter = {.ns = "default"}, .limit = 1};
  auto first = parts_.registry.list(kind("configmaps"), r);
  create("configmaps", R"({"metadata":{"name":"m9"}})");
  ASSERT_TRUE(store_->compact(store_->revision()));
  r.continue_token = first->continue_token;
  auto second = parts_.registry.list(kind("configmaps"), r);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, 410);
  EXPECT_EQ(second.error().reason, "Expired");
  r.continue_token = second.error().continue_token;
  r.limit = 0;
  auto rest = parts_.registry.list(kind("configmaps"), r);
  ASSERT_TRUE(rest) << rest.error().message;
  EXPECT_EQ(rest->items.size(), 3u);
}

TEST_F(RegistryTest, ListVersions) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  auto then = store_->revision();
  create("configmaps", R"({"metadata":{"name":"b"}})");
  auto count = [&](std::optional<Revision> version, VersionMatch match) -> std::int64_t {
    auto l = parts_.registry.list(kind("configmaps"), {.resource_version = version, .match = match});
    return l ? static_cast<std::int64_t>(l->items.size()) : -l.error().code;
  };
  EXPECT_EQ(count(std::nullopt, VersionMatch::kUnset), 2);
  EXPECT_EQ(count(0, VersionMatch::kUnset), 2);
  EXPECT_EQ(count(then, VersionMatch::kUnset), 2);
  EXPECT_EQ(count(then, VersionMatch::kNotOlderThan), 2);
  EXPECT_EQ(count(then, VersionMatch::kExact), 1);
  EXPECT_EQ(count(then + 1000, VersionMatch::kUnset), -504);
}

TEST_F(RegistryTest, UnknownFieldSelectorIsNamed) {
  ListRequest r;
  r.filter.fields = {{"spec.color", true, "red"}};
  EXPECT_EQ(error_of(parts_.registry.list(kind("pods"), r)), "400 BadRequest: field label not supported: spec.color");
}

TEST_F(RegistryTest, EventsAreLeased) {
  create("events",
         R"({"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","namespace":"default","name":"p"},"reason":"r"})");
  auto got = store_->range({.key = "/registry/core/events/default/e"});
  ASSERT_TRUE(got && got->kvs.size() == 1);
  EXPECT_NE(got->kvs[0].lease, 0);
}

// ---- subresources

TEST_F(RegistryTest, BindingAssignsOnce) {
  create("pods", kPod);
  auto binding = parse(R"({"target":{"kind":"Node","name":"n1"}})");
  ASSERT_TRUE(bind_pod(parts_.registry, {"default", "p"}, binding, {}));
  auto e = get("pods", "p");
  EXPECT_EQ(kube::str(*(*e)->object, {"spec", "nodeName"}), "n1");
  auto& condition = kube::as_obj(kube::arr(*(*e)->object, {"status", "conditions"}).at(0));
  EXPECT_EQ(kube::str(condition, {"type"}), "PodScheduled");
  EXPECT_EQ(
      error_of(bind_pod(parts_.registry, {"default", "p"}, binding, {})),
      "409 Conflict: Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"");
  EXPECT_EQ(error_of(bind_pod(parts_.registry, {"default", "p"}, parse("{}"), {})),
            "422 Invalid: Binding \"p\" is invalid: target.name: Required value");
}

TEST_F(RegistryTest, ScaleReadsAndWritesReplicas) {
  create("deployments", R"({"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}})",
         "default", "apps");
  auto& k = kind("deployments", "apps");
  ObjectName at{"default", "d"};
  auto scale = get_scale(parts_.registry, k, at);
  ASSERT_TRUE(scale);
  EXPECT_EQ(kube::num(*scale, {"spec", "replicas"}), 2);
  EXPECT_EQ(kube::str(*scale, {"status", "selector"}), "a=b");
  auto patched = patch_scale(parts_.registry, k, at, kube::PatchType::kMerge,
                             boost::json::parse(R"({"spec":{"replicas":7}})"), {});
  ASSERT_TRUE(patched) << patched.error().message;
  EXPECT_EQ(kube::num(*(*get("deployments", "d", "default", "apps"))->object, {"spec", "replicas"}), 7);
  (*scale)["spec"].as_object()["replicas"] = 1;  // carries the old resourceVersion
  EXPECT_EQ(update_scale(parts_.registry, k, at, *scale, {}).error().reason, "Conflict");
  patched->at("spec").as_object()["replicas"] = -1;
  EXPECT_EQ(update_scale(parts_.registry, k, at, *patched, {}).error().code, 422);
}

TEST(ContinueToken, RoundTripAndRefusal) {
  ContinueToken t{42, "default/a"};
  auto back = ContinueToken::decode(t.encode());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->revision, 42);
  EXPECT_EQ(back->start, "default/a");
  for (auto bad : {"", "x", "!!!!", "e30", "bnVsbA"}) EXPECT_FALSE(ContinueToken::decode(bad)) << bad;
  EXPECT_EQ(base64("hello", false), "aGVsbG8=");
}

}  // namespace
}  // namespace hawser::apiserver
