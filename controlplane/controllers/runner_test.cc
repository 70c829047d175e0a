// SPDX-License-Identifier: Apache-2.0
// All controllers together against the in-memory API server, with a small kubelet that marks pods ready. (The scheduler
// is not there: the kubelet takes every pod.)
#include "controlplane/controllers/runner.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "controlplane/controllers/controllers_testing.h"
#include "lib/kube/fake_client.h"
#include "lib/kube/object.h"

namespace hawser::controllers {
namespace {

using namespace std::chrono_literals;

using Table = std::map<std::string, ObjectPtr>;

// The object of that key, empty as long as it is not there.
const Object& in(const Table& t, const std::string& key) {
  const auto it = t.find(key);
  return it == t.end() ? kube::empty_object() : *it->second;
}

// The present objects of one kind, and a way to wait for a state of them without polling.
class View {
 public:
  using OnEvent = std::function<void(const kube::WatchEvent&)>;
  View(kube::FakeClient& client, const kube::Resource& r, OnEvent on_event = {}) : on_event_(std::move(on_event)) {
    thread_ = std::jthread([this, &client, r](const std::stop_token& stop) {
      static_cast<void>(client.watch(
          r, kube::WatchOptions{}, [this](const kube::WatchEvent& e) { return event(e); }, stop));
    });
  }
  bool wait(const std::function<bool(const Table&)>& pred, Nanos timeout = 30s) {
    std::unique_lock lock(mu_);
    return cv_.wait_for(lock, timeout, [&] { return pred(table_); });
  }
  Table now() {
    const std::lock_guard lock(mu_);
    return table_;
  }

 private:
  bool event(const kube::WatchEvent& e) {
    {
      const std::lock_guard lock(mu_);
      if (e.type == kube::EventType::kDeleted)
        table_.erase(kube::key(*e.object));
      else if (e.type != kube::EventType::kBookmark)
        table_[kube::key(*e.object)] = e.object;
    }
    if (on_event_) on_event_(e);
    cv_.notify_all();
    return true;
  }

  std::mutex mu_;
  std::condition_variable cv_;
  Table table_;  // guarded by mu_
  OnEvent on_event_;
  std::jthread thread_;
};

// Runs every pod at once: gives it a node, an address and, if `ready`, the Ready condition; ends it when it is deleted.
class Kubelet {
 public:
  explicit Kubelet(kube::FakeClient& client)
      : client_(client), view_(client, kube::kPods, [this](const kube::WatchEvent& e) { event(e); }) {}
  std::atomic<bool> ready{true};
  std::atomic<int> created{0};
  std::atomic<int> most{0};                // pods at one time, dying ones apart
  std::atomic<int> fewest_ready{1 << 20};  // once `watch_ready` is set
  std::atomic<bool> watch_ready{false};
  View& pods() { return view_; }

 private:
  void event(const kube::WatchEvent& e) {
    if (e.type == kube::EventType::kBookmark) return;
    const Object& pod = *e.object;
    if (e.type == kube::EventType::kAdded) ++created;
    if (e.type == kube::EventType::kDeleted)
      live_.erase(kube::key(pod)), ready_.erase(kube::key(pod));
    else if (kube::deleting(pod))
      live_.erase(kube::key(pod)), ready_.erase(kube::key(pod));
    else {
      live_.insert(kube::key(pod));
      if (is_ready(pod)) ready_.insert(kube::key(pod));
    }
    most = std::max<int>(most, static_cast<int>(live_.size()));
    if (watch_ready) fewest_ready = std::min<int>(fewest_ready, static_cast<int>(ready_.size()));
    if (e.type == kube::EventType::kDeleted) return;
    if (kube::deleting(pod)) {
      static_cast<void>(client_.remove(kube::kPods, kube::ns(pod), kube::name(pod), {.grace_period_seconds = 0}));
      return;
    }
    if (kube::str(pod, {"spec", "nodeName"}).empty()) {
      Object next = pod;
      kube::ensure(next, {"spec"})["nodeName"] = "n1";
      next.erase("status");
      auto bound = client_.update(kube::kPods, next);
      if (!bound || !ready) return;
      next = **bound;
      next["status"] =
          json("{'phase':'Running','podIP':'10.244.0." + std::to_string(++address_ % 250 + 1) +
               "','conditions':[{'type':'Ready','status':'True','lastTransitionTime':'2026-01-01T00:00:00Z'}]}");
      static_cast<void>(client_.update(kube::kPods, next, "status"));
    }
  }

  kube::FakeClient& client_;
  // the view's thread only
  std::set<std::string> live_, ready_;
  int address_ = 0;
  View view_;
};

Object deployment(
    int replicas, const std::string& image,
    const std::string& strategy = "{'type':'RollingUpdate','rollingUpdate':{'maxSurge':1,'maxUnavailable':1}}") {
  return json(
      "{'metadata':{'name':'web','namespace':'d'},'spec':{'replicas':" + std::to_string(replicas) +
      ",'selector':{'matchLabels':{'app':'web'}},'progressDeadlineSeconds':600,'revisionHistoryLimit':10,'strategy':" +
      strategy + ",'template':{'metadata':{'labels':{'app':'web'}},'spec':{'containers':[{'name':'c','image':'" +
      image + "','ports':[{'containerPort':8080}]}]}}}}");
}
Object service() {
  return json(
      "{'metadata':{'name':'web','namespace':'d'},'spec':{'clusterIP':'10.96.0.9','selector':{'app':'web'},'ports':[{'"
      "port':80,'targetPort':8080}]}}");
}

bool complete(const Table& deployments, int replicas) {
  const auto it = deployments.find("d/web");
  if (it == deployments.end()) return false;
  const Object& d = *it->second;
  const auto n = [&](std::string_view f) { return kube::num(d, {"status", f}); };
  return n("observedGeneration") >= kube::num(d, {"metadata", "generation"}) && n("replicas") == replicas &&
         n("updatedReplicas") == replicas && n("availableReplicas") == replicas;
}

class RunnerTest : public testing::Test {
 protected:
  RunnerTest() {
    static_cast<void>(
        client_.create(kube::kNodes, "",
                       json("{'metadata':{'name':'n1'},'status':{'conditions':[{'type':'Ready','status':'True'}]}}")));
  }
  void change(const std::function<void(Object&)>& edit) {
    for (;;) {
      auto d = client_.get(kube::kDeployments, "d", "web");
      ASSERT_TRUE(d);
      Object next = **d;
      edit(next);
      auto written = client_.update(kube::kDeployments, next);
      if (written) return;
      ASSERT_TRUE(is_conflict(written.error())) << written.error().text;
    }
  }
  static void set_image(Object& d, const std::string& image) {
    kube::ensure(d, {"spec", "template", "spec"})["containers"] =
        Array{json("{'name':'c','image':'" + image + "','ports':[{'containerPort':8080}]}")};
  }

  kube::FakeClient client_;
};

TEST_F(RunnerTest, DeploymentToEndpointsAndBack) {
  Kubelet kubelet(client_);
  View deployments(client_, kube::kDeployments), slices(client_, kube::kEndpointSlices),
      endpoints(client_, kube::kEndpoints);
  Runner runner(client_, {});
  runner.start();
  ASSERT_TRUE(client_.create(kube::kServices, "d", service()));
  ASSERT_TRUE(client_.create(kube::kDeployments, "d", deployment(30, "v1")));
  ASSERT_TRUE(deployments.wait([](const Table& t) { return complete(t, 30); }));
  EXPECT_EQ(kubelet.created, 30) << "none too many, none twice";
  const auto addresses_in = [](const Table& t) {
    std::size_t n = 0;
    for (const auto& [k, s] : t) n += kube::arr(*s, {"endpoints"}).size();
    return n;
  };
  EXPECT_TRUE(slices.wait([&](const Table& t) { return addresses_in(t) == 30; }));
  EXPECT_TRUE(endpoints.wait([](const Table& t) {
    const auto e = t.find("d/web");
    return e != t.end() && !kube::arr(*e->second, {"subsets"}).empty() &&
           kube::arr(kube::as_obj(kube::arr(*e->second, {"subsets"})[0]), {"addresses"}).size() == 30;
  }));
  EXPECT_EQ(slices.now().size(), 1u) << "the slice was reused, not made twice";

  // Scale, then delete: everything that was made goes.
  change([](Object& d) { kube::ensure(d, {"spec"})["replicas"] = 5; });
  ASSERT_TRUE(deployments.wait([](const Table& t) { return complete(t, 5); }));
  ASSERT_TRUE(client_.remove(kube::kDeployments, "d", "web"));
  EXPECT_TRUE(kubelet.pods().wait([](const Table& t) { return t.empty(); }))
      << "garbage collected through the ReplicaSet";
  EXPECT_TRUE(slices.wait([&](const Table& t) { return addresses_in(t) == 0 && t.size() == 1; }));
  ASSERT_TRUE(client_.remove(kube::kServices, "d", "web"));
  EXPECT_TRUE(slices.wait([](const Table& t) { return t.empty(); }));
  EXPECT_TRUE(endpoints.wait([](const Table& t) { return t.empty(); }));
}

TEST_F(RunnerTest, RollingUpdateStaysWithinItsLimits) {
  Kubelet kubelet(client_);
  View deployments(client_, kube::kDeployments);
  Runner runner(client_, {});
  runner.start();
  ASSERT_TRUE(client_.create(kube::kDeployments, "d", deployment(8, "v1")));
  ASSERT_TRUE(deployments.wait([](const Table& t) { return complete(t, 8); }));
  kubelet.most = 0;
  kubelet.watch_ready = true;
  change([](Object& d) { set_image(d, "v2"); });
  ASSERT_TRUE(deployments.wait([](const Table& t) {
    return complete(t, 8) && annotation(in(t, "d/web"), "deployment.kubernetes.io/revision") == "2";
  }));
  EXPECT_LE(kubelet.most, 9) << "8 + maxSurge";
  EXPECT_GE(kubelet.fewest_ready, 7) << "8 - maxUnavailable";
  EXPECT_EQ(kubelet.created, 16);

  // Back again: the first ReplicaSet is used again, as revision 3.
  change([](Object& d) { set_image(d, "v1"); });
  ASSERT_TRUE(deployments.wait([](const Table& t) {
    return complete(t, 8) && annotation(in(t, "d/web"), "deployment.kubernetes.io/revision") == "3";
  }));
  const auto sets = client_.list(kube::kReplicaSets, {});
  ASSERT_TRUE(sets);
  EXPECT_EQ(sets->items.size(), 2u);
}

TEST_F(RunnerTest, KilledInTheMiddleItConvergesWithoutDoubles) {
  Kubelet kubelet(client_);
  View deployments(client_, kube::kDeployments);
  ASSERT_TRUE(client_.create(kube::kDeployments, "d", deployment(40, "v1")));
  // Each Runner dies after some more pods; what it was doing is left as it is.
  for (const int until : {1, 7, 20, 33}) {
    Runner runner(client_, {});
    runner.start();
    ASSERT_TRUE(kubelet.pods().wait([&](const Table& t) { return static_cast<int>(t.size()) >= until; }));
  }
  Runner runner(client_, {});
  runner.start();
  ASSERT_TRUE(deployments.wait([](const Table& t) { return complete(t, 40); }));
  EXPECT_EQ(kubelet.created, 40);
}

TEST_F(RunnerTest, AFailingApiIsTriedAgainAndSaid) {
  Kubelet kubelet(client_);
  View deployments(client_, kube::kDeployments), sets(client_, kube::kReplicaSets);
  std::atomic<bool> full{true};
  client_.set_fault([&](const kube::FakeClient::Call& c) -> std::optional<Error> {
    if (full && c.verb == "create" && c.resource == "pods") return Error{403, "exceeded quota", "Forbidden"};
    return std::nullopt;
  });
  Runner runner(client_, {});
  runner.start();
  ASSERT_TRUE(client_.create(kube::kDeployments, "d", deployment(20, "v1")));
  ASSERT_TRUE(sets.wait(
      [](const Table& t) { return !t.empty() && condition(*t.begin()->second, "ReplicaFailure") != nullptr; }));
  ASSERT_TRUE(deployments.wait([](const Table& t) { return condition(in(t, "d/web"), "ReplicaFailure") != nullptr; }));
  full = false;
  ASSERT_TRUE(deployments.wait(
      [](const Table& t) { return complete(t, 20) && condition(in(t, "d/web"), "ReplicaFailure") == nullptr; }));
  EXPECT_EQ(kubelet.created, 20);
}

TEST_F(RunnerTest, NodesGetTheirCidrsAndKeepThem) {
  View nodes(client_, kube::kNodes), events(client_, kube::kEvents);
  Options options;
  options.cluster_cidrs = {*Cidr::parse("10.244.0.0/22")};
  const auto cidrs = [](const Table& t) {
    std::map<std::string, std::string> out;
    for (const auto& [k, n] : t)
      if (const auto c = kube::str(*n, {"spec", "podCIDR"}); !c.empty()) out[k] = c;
    return out;
  };
  ASSERT_TRUE(client_.create(
      kube::kNodes, "",
      json("{'metadata':{'name':'old'},'spec':{'podCIDR':'10.244.0.0/24','podCIDRs':['10.244.0.0/24']}}")));
  std::map<std::string, std::string> before;
  {
    Runner runner(client_, options);
    runner.start();
    ASSERT_TRUE(client_.create(kube::kNodes, "", json("{'metadata':{'name':'n2'}}")));
    ASSERT_TRUE(nodes.wait([&](const Table& t) { return cidrs(t).size() == 3; }));
    before = cidrs(nodes.now());
  }
  Runner runner(client_, options);
  runner.start();
  ASSERT_TRUE(client_.create(kube::kNodes, "", json("{'metadata':{'name':'n3'}}")));
  ASSERT_TRUE(nodes.wait([&](const Table& t) { return cidrs(t).size() == 4; }));
  auto after = cidrs(nodes.now());
  std::set<std::string> distinct;
  for (const auto& [n, c] : after) distinct.insert(c);
  EXPECT_EQ(distinct.size(), 4u);
  for (const auto& [n, c] : before) EXPECT_EQ(after[n], c);
  // The range is full: the fifth node waits, and gets the block of one that goes.
  ASSERT_TRUE(client_.create(kube::kNodes, "", json("{'metadata':{'name':'n4'}}")));
  ASSERT_TRUE(events.wait([](const Table& t) {
    return std::ranges::any_of(t, [](const auto& e) { return kube::str(*e.second, {"reason"}) == "CIDRNotAvailable"; });
  }));
  ASSERT_TRUE(client_.remove(kube::kNodes, "", "n2"));
  ASSERT_TRUE(nodes.wait([&](const Table& t) { return cidrs(t).contains("n4"); }));
  EXPECT_EQ(cidrs(nodes.now())["n4"], before["n2"]);
}

TEST_F(RunnerTest, NamespacesAreFurnishedAndEmptied) {
  View accounts(client_, kube::kServiceAccounts), maps(client_, kube::kConfigMaps),
      namespaces(client_, kube::kNamespaces);
  Kubelet kubelet(client_);
  Options options;
  options.ca_pem = "PEM";
  Runner runner(client_, options);
  runner.start();
  // The finalizer in metadata makes the in-memory server keep the namespace, as spec.finalizers do with the real one.
  ASSERT_TRUE(
      client_.create(kube::kNamespaces, "",
                     json("{'metadata':{'name':'d','finalizers':['test']},'spec':{'finalizers':['kubernetes']}}")));
  ASSERT_TRUE(accounts.wait([](const Table& t) { return t.contains("d/default"); }));
  ASSERT_TRUE(maps.wait([](const Table& t) {
    return t.contains("d/kube-root-ca.crt") && kube::str(in(t, "d/kube-root-ca.crt"), {"data", "ca.crt"}) == "PEM";
  }));
  const std::string first(kube::uid(*maps.now().at("d/kube-root-ca.crt")));
  ASSERT_TRUE(client_.remove(kube::kConfigMaps, "d", "kube-root-ca.crt"));
  ASSERT_TRUE(maps.wait([&](const Table& t) {
    return t.contains("d/kube-root-ca.crt") && kube::uid(in(t, "d/kube-root-ca.crt")) != first;
  })) << "comes back";
  ASSERT_TRUE(client_.create(kube::kDeployments, "d", deployment(3, "v1")));
  ASSERT_TRUE(kubelet.pods().wait([](const Table& t) { return t.size() == 3; }));
  ASSERT_TRUE(client_.remove(kube::kNamespaces, "", "d"));
  ASSERT_TRUE(namespaces.wait([](const Table& t) {
    return t.contains("d") && kube::arr(in(t, "d"), {"spec", "finalizers"}).empty();
  }));
  EXPECT_TRUE(kubelet.pods().wait([](const Table& t) { return t.empty(); }));
  EXPECT_TRUE(accounts.wait([](const Table& t) { return t.empty(); }));
}

TEST_F(RunnerTest, SilentNodeIsTaintedAndItsPodsGo) {
  FakeClock clock;
  kube::FakeClient client(clock);
  View nodes(client, kube::kNodes), pods(client, kube::kPods);
  for (const char* n : {"n1", "n2", "n3"}) {
    ASSERT_TRUE(client.create(kube::kNodes, "",
                              json(std::string("{'metadata':{'name':'") + n +
                                   "'},'status':{'conditions':[{'type':'Ready','status':'True'}]}}")));
    ASSERT_TRUE(client.create(
        kube::kLeases, "kube-node-lease",
        json(std::string("{'metadata':{'name':'") + n + "','namespace':'kube-node-lease'},'spec':{'renewTime':'0'}}")));
  }
  ASSERT_TRUE(client.create(kube::kPods, "d",
                            json("{'metadata':{'name':'p','namespace':'d'},'spec':{'nodeName':'n1'},'status':{'phase':'"
                                 "Running','conditions':[{'type':'Ready','status':'True'}]}}")));
  Options options;
  options.clock = &clock;
  Runner runner(client, options);
  runner.start();
  const auto tainted = [](const Table& t, const std::string& n) {
    return std::ranges::any_of(kube::arr(in(t, n), {"spec", "taints"}), [](const Value& v) {
      return kube::str(kube::as_obj(v), {"key"}) == "node.kubernetes.io/unreachable" &&
             kube::str(kube::as_obj(v), {"effect"}) == "NoExecute";
    });
  };
  int beat = 0;
  const auto heartbeat = [&](const char* n) {
    auto lease = client.get(kube::kLeases, "kube-node-lease", n);
    ASSERT_TRUE(lease);
    Object next = **lease;
    kube::ensure(next, {"spec"})["renewTime"] = std::to_string(++beat);
    ASSERT_TRUE(client.update(kube::kLeases, next));
  };
  // Time moves only by hand; the others go on renewing until the first is given up.
  for (int i = 0; i < 200 && !nodes.wait([&](const Table& t) { return tainted(t, "n1"); }, 50ms); ++i) {
    clock.advance(5s);
    heartbeat("n2");
    heartbeat("n3");
  }
  ASSERT_TRUE(tainted(nodes.now(), "n1"));
  EXPECT_FALSE(tainted(nodes.now(), "n2"));
  ASSERT_TRUE(pods.wait([](const Table& t) { return t.contains("d/p") && !is_ready(in(t, "d/p")); }))
      << "its pods leave their Services";
  EXPECT_FALSE(kube::deleting(*pods.now().at("d/p"))) << "but stay for 300 s";
  for (int i = 0; i < 200 && !pods.wait([](const Table& t) { return kube::deleting(in(t, "d/p")); }, 20ms); ++i) {
    clock.advance(10s);
    heartbeat("n2");
    heartbeat("n3");
  }
  ASSERT_TRUE(kube::deleting(*pods.now().at("d/p")));
  // The agent is back: it renews and says Ready.
  auto n1 = client.get(kube::kNodes, "", "n1");
  ASSERT_TRUE(n1);
  Object next = **n1;
  next["status"] = json("{'conditions':[{'type':'Ready','status':'True'}]}");
  heartbeat("n1");
  ASSERT_TRUE(client.update(kube::kNodes, next, "status"));
  EXPECT_TRUE(nodes.wait([&](const Table& t) { return kube::arr(in(t, "n1"), {"spec", "taints"}).empty(); }));
}

TEST_F(RunnerTest, ForegroundAndOrphan) {
  View sets(client_, kube::kReplicaSets), pods(client_, kube::kPods);
  const auto set = [](const std::string& name, const std::string& finalizer) {
    return json("{'metadata':{'name':'" + name + "','namespace':'d','finalizers':['" + finalizer +
                "']},'spec':{'replicas':0,'selector':{'matchLabels':{'none':'none'}},'template':{'metadata':{'labels':{"
                "'none':'none'}}}}}");
  };
  const auto pod = [](const std::string& name, const Object& owner) {
    return json("{'metadata':{'name':'" + name +
                "','namespace':'d','ownerReferences':[{'apiVersion':'apps/v1','kind':'ReplicaSet','name':'" +
                std::string(kube::name(owner)) + "','uid':'" + std::string(kube::uid(owner)) +
                "','blockOwnerDeletion':true}]},'spec':{}}");
  };
  const auto first = client_.create(kube::kReplicaSets, "d", set("fg", "foregroundDeletion"));
  const auto second = client_.create(kube::kReplicaSets, "d", set("or", "orphan"));
  ASSERT_TRUE(first && second);
  ASSERT_TRUE(client_.create(kube::kPods, "d", pod("of-fg", **first)));
  ASSERT_TRUE(client_.create(kube::kPods, "d", pod("of-or", **second)));
  ASSERT_TRUE(client_.create(kube::kPods, "d",
                             json("{'metadata':{'name':'wrong-uid','namespace':'d','ownerReferences':[{'apiVersion':'"
                                  "apps/v1','kind':'ReplicaSet','name':'or','uid':'x'}]}}")));
  ASSERT_TRUE(client_.create(kube::kPods, "d",
                             json("{'metadata':{'name':'of-unknown','namespace':'d','ownerReferences':[{'apiVersion':'"
                                  "example.com/v1','kind':'Thing','name':'t','uid':'y'}]}}")));
  ASSERT_TRUE(sets.wait([](const Table& t) { return t.size() == 2; }));
  ASSERT_TRUE(pods.wait([](const Table& t) { return t.size() == 4; }));
  Runner runner(client_, {});
  runner.start();
  ASSERT_TRUE(pods.wait([](const Table& t) { return !t.contains("d/wrong-uid"); })) << "no owner with that uid";
  ASSERT_TRUE(client_.remove(kube::kReplicaSets, "d", "fg"));
  ASSERT_TRUE(sets.wait([](const Table& t) { return !t.contains("d/fg"); }));
  const auto left = client_.get(kube::kPods, "d", "of-fg");
  EXPECT_FALSE(left) << "the dependent went first";
  ASSERT_TRUE(client_.remove(kube::kReplicaSets, "d", "or"));
  ASSERT_TRUE(sets.wait([](const Table& t) { return !t.contains("d/or"); }));
  EXPECT_TRUE(pods.wait([](const Table& t) {
    return t.contains("d/of-or") && kube::arr(in(t, "d/of-or"), {"metadata", "ownerReferences"}).empty();
  }));
  EXPECT_TRUE(pods.now().contains("d/of-unknown")) << "an owner of a kind we do not serve is not ours to judge";
}

}  // namespace
}  // namespace hawser::controllers
