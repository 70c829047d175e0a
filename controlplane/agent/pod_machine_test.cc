// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_machine.h"

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

#include "controlplane/agent/pod_status.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using namespace std::chrono_literals;
constexpr WallTime kNow{std::chrono::seconds(1'800'000'000)};
std::int64_t ago(std::chrono::seconds s) {
  return (kNow - s).time_since_epoch().count();
}

PodSpecPtr pod(const std::string& spec, const std::string& more = "") {
  const auto text = fmt::format(R"({{"metadata": {{"name": "p", "namespace": "default", "uid": "u" {}}}, "spec": {}}})",
                                more.empty() ? "" : "," + more, spec);
  return parse_pod(std::make_shared<kube::Object>(boost::json::parse(text).as_object()));
}
const char* const kOne = R"({"containers": [{"name": "a", "image": "i:1"}]})";
const char* const kInit =
    R"({"initContainers": [{"name": "i", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}],
  "containers": [{"name": "a", "image": "i:1"}]})";

Container running(const std::string& name, std::uint32_t attempt = 0) {
  return {.id = fmt::format("{}{}", name, attempt),
          .sandbox_id = "sb",
          .name = name,
          .attempt = attempt,
          .image = "i:1",
          .image_ref = "sha256:1",
          .state = ContainerState::kRunning,
          .created_at_ns = ago(20s),
          .started_at_ns = ago(20s)};
}
Container exited(const std::string& name, int code, std::uint32_t attempt = 0, int delay = 0,
                 std::chrono::seconds ended = 1s) {
  Container c = running(name, attempt);
  c.state = ContainerState::kExited;
  c.exit_code = code;
  c.finished_at_ns = ago(ended);
  c.annotations[kRestartDelayAnnotation] = std::to_string(delay);
  return c;
}
PodState state(std::vector<Container> containers, bool sandbox = true) {
  PodState s;
  s.prepared = true;
  s.now = kNow;
  if (sandbox) s.sandboxes.push_back({.id = "sb", .name = "p", .attempt = 0, .ready = true, .ips = {"10.0.0.5"}});
  s.containers = std::move(containers);
  return s;
}

// "StartContainer a#1+10" ...
std::string text(const Plan& plan) {
  using Kind = Action::Kind;
  std::string out;
  for (const auto& a : plan.actions) {
    if (!out.empty()) out += "; ";
    switch (a.kind) {
      case Kind::kPrepare:
        out += "prepare";
        break;
      case Kind::kRunSandbox:
        out += fmt::format("sandbox#{}", a.attempt);
        break;
      case Kind::kStartContainer:
        out += fmt::format("start {}#{}+{}", a.container->name, a.attempt, a.restart_delay.count());
        break;
      case Kind::kStopContainer:
        out += fmt::format("stop {} {}", a.id, a.grace.count());
        break;
      case Kind::kRemoveContainer:
        out += "rm " + a.id;
        break;
      case Kind::kStopSandbox:
        out += "stop-sandbox " + a.id;
        break;
      case Kind::kRemoveSandbox:
        out += "rm-sandbox " + a.id;
        break;
      case Kind::kCleanUp:
        out += "clean";
        break;
      case Kind::kFinish:
        out += "finish";
        break;
    }
  }
  return out;
}

struct Case {
  std::string name;
  PodSpecPtr spec;
  PodState st;
  std::string actions;
  std::string waiting_a;  // reason of container "a"
  int wake_s = -1;        // seconds from now
};

void check(const std::vector<Case>& cases) {
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const Plan plan = step(*c.spec, c.st);
    EXPECT_EQ(text(plan), c.actions);
    const auto w = plan.waiting.find("a");
    EXPECT_EQ(w == plan.waiting.end() ? "" : w->second.reason, c.waiting_a);
    const int wake =
        plan.wake ? static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(*plan.wake - kNow).count()) : -1;
    EXPECT_EQ(wake, c.wake_s);
  }
}

TEST(PodMachine, Starting) {
  const auto one = pod(kOne);
  PodState raw;
  raw.now = kNow;
  PodState held = state({}, false);
  held.holds[""] = {.reason = "", .message = "", .failures = 1, .until = kNow + 5s};
  PodState dead = state({running("a")});
  dead.sandboxes[0].ready = false;
  PodState dead_done = state({exited("a", 137)});
  dead_done.sandboxes[0].ready = false;
  PodState pulling = state({});
  pulling.pulling = {"a"};
  PodState no_image = state({});
  no_image.holds["a"] = {.reason = "ErrImagePull", .message = "no", .failures = 1, .until = kNow + 10s};
  Container made = running("a");
  made.state = ContainerState::kCreated;
  check({{"new", one, raw, "prepare", "ContainerCreating"},
         {"prepared", one, state({}, false), "sandbox#0", "ContainerCreating"},
         {"sandbox failed", one, held, "", "ContainerCreating", 5},
         {"sandbox up", one, state({}), "start a#0+0", "ContainerCreating"},
         {"running", one, state({running("a")}), "", ""},
         {"sandbox died, container runs", one, dead, "stop a0 30", ""},
         {"sandbox died, container ended", one, dead_done, "stop-sandbox sb; sandbox#1", ""},
         {"pulling", one, pulling, "", "ContainerCreating"},
         {"pull failed", one, no_image, "", "ErrImagePull", 10},
         {"made, never started", one, state({made}), "rm a0", "ContainerCreating", 0}});
}

TEST(PodMachine, Restarting) {
  const auto always = pod(kOne);
  const auto failure = pod(R"({"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "i:1"}]})");
  const auto never = pod(R"({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i:1"}]})");
  Container long_run = exited("a", 1, 5, 300);
  long_run.started_at_ns = ago(700s);
  check({{"first restart is immediate", always, state({exited("a", 1)}), "start a#1+10", "ContainerCreating"},
         {"second waits", always, state({exited("a", 1, 1, 10)}), "", "CrashLoopBackOff", 9},
         {"... and doubles", always, state({exited("a", 1, 1, 10, 11s)}), "start a#2+20", "ContainerCreating"},
         {"to a limit", always, state({exited("a", 1, 9, 300, 301s)}), "start a#10+300", "ContainerCreating"},
         {"a good run clears the record", always, state({long_run}), "start a#6+10", "ContainerCreating"},
         {"success under OnFailure", failure, state({exited("a", 0)}), "stop-sandbox sb", ""},
         {"failure under OnFailure", failure, state({exited("a", 2)}), "start a#1+10", "ContainerCreating"},
         {"failure under Never", never, state({exited("a", 2)}), "stop-sandbox sb", ""},
         {"old instances go", always, state({running("a", 3), exited("a", 1, 2), exited("a", 1, 1), exited("a", 1, 0)}),
          "rm a1; rm a0", ""}});
}

TEST(PodMachine, AClockSetBackHoldsNothingUp) {
  const auto one = pod(kOne);
  PodState crashed = state({exited("a", 1, 1, 300)});
  crashed.now = kNow - 1h;
  PodState no_image = state({});
  no_image.holds["a"] = {.reason = "ErrImagePull", .message = "no", .failures = 1, .until = kNow + 10s, .since = kNow};
  no_image.now = kNow - 1h;
  check({{"back-off", one, crashed, "start a#2+300", "ContainerCreating"},
         {"pull", one, no_image, "start a#0+0", "ErrImagePull"}});
}

TEST(PodMachine, InitContainersAndSidecars) {
  const auto spec = pod(kInit);
  PodState unstarted = state({exited("i", 0), running("s")});
  unstarted.probes["s0"] = {.started = false};
  check({{"first", spec, state({}), "start i#0+0", "PodInitializing"},
         {"runs", spec, state({running("i")}), "", "PodInitializing"},
         {"done, sidecar next", spec, state({exited("i", 0)}), "start s#0+0", "PodInitializing"},
         {"sidecar not started", spec, unstarted, "", "PodInitializing"},
         {"sidecar runs", spec, state({exited("i", 0), running("s")}), "start a#0+0", "ContainerCreating"},
         {"init failed", spec, state({exited("i", 1)}), "start i#1+10", "PodInitializing"},
         {"sidecar ended while main runs", spec, state({exited("i", 0), exited("s", 0), running("a")}), "start s#1+10",
          ""}});
}

TEST(PodMachine, Ending) {
  const auto gone = pod(kOne, R"("deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7)");
  PodState stopping = state({running("a")});
  stopping.stopping["a0"] = kNow + 7s;
  PodState slow = state({running("a")});
  slow.stopping["a0"] = kNow + 30s;
  PodState empty = state({}, false);
  PodState clean = empty;
  clean.cleaned = true;
  PodState failed = state({running("a")});
  failed.holds["a0"] = {.reason = "x", .message = "", .failures = 1, .until = kNow + 3s};
  PodState orphan = state({running("a")});
  orphan.removed = true;
  check({{"stops", gone, state({running("a")}), "stop a0 7", ""},
         {"waits", gone, stopping, "", ""},
         {"a shorter grace is passed on", gone, slow, "stop a0 7", ""},
         {"a failed stop waits", gone, failed, "", "", 3},
         {"sandbox goes", gone, state({exited("a", 0)}), "stop-sandbox sb; rm-sandbox sb", ""},
         {"volumes go", gone, empty, "clean", "ContainerCreating"},
         {"object goes", gone, clean, "finish", "ContainerCreating"},
         {"the API does not know it", pod(kOne), orphan, "stop a0 30", ""}});
}

TEST(PodMachine, ProbesAndImageChange) {
  PodState sick = state({running("a")});
  sick.probes["a0"] = {.kill = "Container a failed liveness probe, will be restarted", .grace = 3s};
  PodState changed = state({running("a")});
  changed.containers[0].annotations[kImageAnnotation] = "i:0";
  check({{"liveness", pod(kOne), sick, "stop a0 3", ""}, {"image", pod(kOne), changed, "stop a0 30", ""}});
}

TEST(PodStatus, PhasesAndConditions) {
  struct StatusCase {
    const char* name;
    PodSpecPtr spec;
    PodState st;
    const char* phase;
    const char* ready;
    const char* state_a;
  };
  PodState unready = state({running("a")});
  unready.probes["a0"] = {.ready = false};
  const auto never = pod(R"({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i:1"}]})");
  for (const auto& c :
       std::vector<StatusCase>{{"starting", pod(kOne), state({}), "Pending", "False", "waiting"},
                               {"running", pod(kOne), state({running("a")}), "Running", "True", "running"},
                               {"unready", pod(kOne), unready, "Running", "False", "running"},
                               {"crash loop", pod(kOne), state({exited("a", 1, 1, 10)}), "Running", "False", "waiting"},
                               {"succeeded", never, state({exited("a", 0)}), "Succeeded", "False", "terminated"},
                               {"failed", never, state({exited("a", 3)}), "Failed", "False", "terminated"}}) {
    SCOPED_TRACE(c.name);
    const auto s =
        pod_status(*c.spec, c.st, step(*c.spec, c.st), {.host_ip = "192.0.2.1", .pod_ips = {"10.0.0.5"}}, {});
    EXPECT_EQ(kube::str(s, {"phase"}), c.phase);
    EXPECT_EQ(kube::str(s, {"podIP"}), "10.0.0.5");
    for (const auto& v : kube::arr(s, {"conditions"}))
      EXPECT_TRUE(kube::str(kube::as_obj(v), {"type"}) != "Ready" || kube::str(kube::as_obj(v), {"status"}) == c.ready);
    const auto& a = kube::as_obj(kube::arr(s, {"containerStatuses"})[0]);
    EXPECT_TRUE(kube::find(a, {"state", c.state_a})) << c.state_a;
  }
}

TEST(PodStatus, KeepsTimesAndConditionsOfOthers) {
  const auto spec =
      pod(R"({"containers": [{"name": "a", "image": "i:1"}], "readinessGates": [{"conditionType": "gate"}]})");
  const auto before =
      boost::json::parse(
          R"({"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
    {"type": "gate", "status": "False"}]})")
          .as_object();
  const auto st = state({running("a")});
  const auto s = pod_status(*spec, st, step(*spec, st), {}, before);
  int seen = 0;
  for (const auto& v : kube::arr(s, {"conditions"})) {
    const auto& c = kube::as_obj(v);
    const auto type = kube::str(c, {"type"});
    if (type == "PodScheduled" && kube::str(c, {"lastTransitionTime"}) == "2020-01-01T00:00:00Z") ++seen;
    if (type == "Ready" && kube::str(c, {"reason"}) == "ReadinessGatesNotReady") ++seen;
    if (type == "gate") ++seen;
  }
  EXPECT_EQ(seen, 3);
}

TEST(PodStatus, QosClass) {
  const auto qos = [](const char* resources) {
    return std::string(qos_class(
        *pod(fmt::format(R"({{"containers": [{{"name": "a", "image": "i", "resources": {}}}]}})", resources))->object));
  };
  EXPECT_EQ(qos("{}"), "BestEffort");
  EXPECT_EQ(qos(R"({"requests": {"cpu": "1"}})"), "Burstable");
  EXPECT_EQ(qos(R"({"limits": {"cpu": "1", "memory": "1Gi"}})"), "Guaranteed");
  EXPECT_EQ(qos(R"({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})"),
            "Burstable");
}

TEST(PodMachine, HoldDelays) {
  EXPECT_EQ(hold_delay(true, 1), 10s);
  EXPECT_EQ(hold_delay(true, 2), 20s);
  EXPECT_EQ(hold_delay(true, 100), 300s);
  EXPECT_EQ(hold_delay(false, 1), 1s);
  EXPECT_EQ(hold_delay(false, 100), 60s);
}

}  // namespace
}  // namespace hawser::agent
