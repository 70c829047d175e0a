// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_machine.h"

#include <algorithm>
#include <charconv>

#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using Kind = Action::Kind;

constexpr std::chrono::seconds kClockSlack{1};

std::chrono::seconds restart_delay_of(const Container& c) {
  const auto it = c.annotations.find(kRestartDelayAnnotation);
  if (it == c.annotations.end()) return std::chrono::seconds(0);
  int seconds = 0;
  std::from_chars(it->second.data(), it->second.data() + it->second.size(), seconds);
  return std::clamp<std::chrono::seconds>(std::chrono::seconds(seconds), std::chrono::seconds(0), kMaxRestartDelay);
}

bool ended(const Container& c) {
  return c.state == ContainerState::kExited || c.state == ContainerState::kUnknown;
}

// Builds one Plan; lives for one call of step().
class Step {
 public:
  Step(const PodSpec& spec, const PodState& st) : spec_(spec), st_(st) {}

  Plan run() {
    if (spec_.deleting || st_.removed) {
      end();
    } else if (st_.deadline_passed || is_finished(spec_, st_)) {
      park();
    } else if (prepare() && sandbox()) {
      if (init_containers()) main_containers();
      collect_garbage();
    }
    return std::move(plan_);
  }

 private:
  void act(Action a) { plan_.actions.push_back(std::move(a)); }
  void wake(WallTime t) { plan_.wake = plan_.wake ? std::min(*plan_.wake, t) : t; }
  void wait(const std::string& name, std::string reason, std::string message = {}) {
    plan_.waiting[name] = {std::move(reason), std::move(message)};
  }

  // True while the failure recorded under `name` forbids another try.
  bool held(const std::string& name) {
    const auto it = st_.holds.find(name);
    if (it == st_.holds.end() || it->second.over(st_.now)) return false;
    wake(it->second.until);
    return true;
  }
  void wait_for_hold(const std::string& name, std::string_view otherwise) {
    const auto it = st_.holds.find(name);
    if (it == st_.holds.end()) return wait(name, std::string(otherwise));
    wait(name, it->second.reason, it->second.message);
  }

  void all_waiting() {
    for (const auto& c : spec_.init) wait_unless_ran(c, "PodInitializing");
    for (const auto& c : spec_.main) wait_unless_ran(c, spec_.init.empty() ? "ContainerCreating" : "PodInitializing");
  }
  void wait_unless_ran(const ContainerSpec& c, std::string_view reason) {
    if (!st_.latest(c.name)) wait(c.name, std::string(reason));
  }

  // Stops every running container that `which` picks; true if none of those runs any more.
  template <class F>
  bool stop_running(std::optional<std::chrono::seconds> grace, std::string_view message, F which) {
    bool none = true;
    for (const auto& c : st_.containers) {
      if (c.state != ContainerState::kRunning || !which(c)) continue;
      none = false;
      stop(c, grace.value_or(spec_.deletion_grace.value_or(spec_.grace)), std::string(message));
    }
    return none;
  }
  void stop(const Container& c, std::chrono::seconds grace, std::string message) {
    // A stop in progress is repeated only to shorten its grace (a second, harder delete).
    const auto it = st_.stopping.find(c.id);
    if (it != st_.stopping.end() && it->second <= st_.now + grace + std::chrono::seconds(1)) return;
    if (held(c.id)) return;
    act({.kind = Kind::kStopContainer,
         .id = c.id,
         .container = spec_.container(c.name),
         .grace = grace,
         .message = std::move(message)});
  }
  bool is_sidecar(const Container& c) const {
    const auto* s = spec_.container(c.name);
    return s && s->sidecar;
  }
  // Containers first, sidecars when those are gone.
  bool stop_everything(std::string_view message) {
    const bool others = stop_running({}, message, [&](const Container& c) { return !is_sidecar(c); });
    if (!others) return false;
    return stop_running({}, message, [&](const Container&) { return true; });
  }

  void end() {
    all_waiting();
    if (!stop_everything({})) return;
    if (held("")) return;
    for (const auto& s : st_.sandboxes) {
      if (s.ready) act({.kind = Kind::kStopSandbox, .id = s.id});
      act({.kind = Kind::kRemoveSandbox, .id = s.id});
    }
    for (const auto& c : st_.containers) {
      const bool in_sandbox =
          std::ranges::any_of(st_.sandboxes, [&](const Sandbox& s) { return s.id == c.sandbox_id; });
      if (!in_sandbox) act({.kind = Kind::kRemoveContainer, .id = c.id});
    }
    if (!plan_.actions.empty()) return;
    act({.kind = st_.cleaned ? Kind::kFinish : Kind::kCleanUp});
  }

  // A pod that is done keeps its ended containers (their logs), but neither processes nor an address.
  void park() {
    all_waiting();
    if (!stop_everything(st_.deadline_passed ? "Pod was active on the node longer than the specified deadline" : ""))
      return;
    if (held("")) return;
    for (const auto& s : st_.sandboxes)
      if (s.ready) act({.kind = Kind::kStopSandbox, .id = s.id});
  }

  bool prepare() {
    if (st_.prepared) return true;
    all_waiting();
    if (!held("")) act({.kind = Kind::kPrepare});
    return false;
  }

  // True when a ready sandbox is there and nothing of an older one runs.
  bool sandbox() {
    const Sandbox* current = st_.sandboxes.empty() ? nullptr : &st_.sandboxes.front();
    const std::string current_id = current && current->ready ? current->id : "";
    const bool stale_gone = stop_running({}, "Pod sandbox changed, it will be killed and re-created.",
                                         [&](const Container& c) { return c.sandbox_id != current_id; });
    for (std::size_t i = 1; i < st_.sandboxes.size(); ++i) {
      const auto& s = st_.sandboxes[i];
      if (s.ready) act({.kind = Kind::kStopSandbox, .id = s.id});
      // One sandbox back is kept for the last state and logs of its containers.
      if (i >= 2) act({.kind = Kind::kRemoveSandbox, .id = s.id});
    }
    if (!current_id.empty() && stale_gone) return true;
    all_waiting();
    if (!stale_gone || held("")) return false;
    if (current) act({.kind = Kind::kStopSandbox, .id = current->id});  // frees what its network still holds
    act({.kind = Kind::kRunSandbox, .attempt = current ? current->attempt + 1 : 0});
    return false;
  }

  [[nodiscard]] const Container* in_current(const std::string& name) const {
    const Container* c = st_.latest(name);
    return c && c->sandbox_id == st_.sandboxes.front().id ? c : nullptr;
  }

  // True when the main containers may run.
  bool init_containers() {
    const bool main_started =
        std::ranges::any_of(spec_.main, [&](const ContainerSpec& c) { return in_current(c.name) != nullptr; });
    for (const auto& c : spec_.init) {
      if (main_started && !c.sidecar) continue;
      const bool satisfied = container(c);
      if (main_started || satisfied) continue;
      for (const auto* rest = &c + 1; rest != spec_.init.data() + spec_.init.size(); ++rest)
        wait_unless_ran(*rest, "PodInitializing");
      for (const auto& m : spec_.main) wait_unless_ran(m, "PodInitializing");
      return false;
    }
    return true;
  }

  void main_containers() {
    for (const auto& c : spec_.main) container(c);
  }

  // Plans one container; true if it is where its successors need it: an init container done, a sidecar started, another
  // one running.
  bool container(const ContainerSpec& c) {
    const Container* latest = st_.latest(c.name);
    const Container* now = in_current(c.name);
    if (!now) {
      start(c, latest ? latest->attempt + 1 : 0, std::chrono::seconds(0));
      return false;
    }
    if (now->state == ContainerState::kCreated) {
      // Made but never started: an agent died in between. Its name is free again once it is removed.
      act({.kind = Kind::kRemoveContainer, .id = now->id});
      wait(c.name, "ContainerCreating");
      wake(st_.now);
      return false;
    }
    if (now->state == ContainerState::kRunning) return running(c, *now);
    if (c.init && !c.sidecar && now->exit_code == 0) return true;
    if (restarts(spec_, c, now->exit_code)) restart(c, *now);
    return false;
  }

  bool running(const ContainerSpec& c, const Container& now) {
    const auto image = now.annotations.find(kImageAnnotation);
    if (image != now.annotations.end() && image->second != c.image) {
      stop(now, spec_.grace, fmt::format("Container {} definition changed, will be restarted", c.name));
      return false;
    }
    const auto it = st_.probes.find(now.id);
    if (it == st_.probes.end()) return !c.init || c.sidecar;
    if (!it->second.kill.empty()) {
      stop(now, it->second.grace.value_or(spec_.grace), it->second.kill);
      return false;
    }
    return it->second.started && (!c.init || c.sidecar);
  }

  void restart(const ContainerSpec& c, const Container& now) {
    const auto ran = std::chrono::nanoseconds(now.finished_at_ns - now.started_at_ns);
    const auto delay = ran >= kGoodRun ? std::chrono::seconds(0) : restart_delay_of(now);
    const WallTime ended_at{std::chrono::nanoseconds(now.finished_at_ns)};
    const WallTime due = ended_at + delay;
    // Before its end: the clock was set back, and waiting for `due` could take for ever.
    if (st_.now < due && st_.now + kClockSlack >= ended_at) {
      wake(due);
      wait(c.name, "CrashLoopBackOff",
           fmt::format("back-off {}s restarting failed container={} pod={}_{}({})", delay.count(), c.name, spec_.name,
                       spec_.ns, spec_.uid));
      return;
    }
    start(c, now.attempt + 1, delay);
  }

  void start(const ContainerSpec& c, std::uint32_t attempt, std::chrono::seconds last_delay) {
    const bool pulling = std::ranges::find(st_.pulling, c.name) != st_.pulling.end();
    wait_for_hold(c.name, "ContainerCreating");
    if (pulling || held(c.name)) return;
    const bool again = attempt > 0;
    const auto delay = !again ? std::chrono::seconds(0)
                              : std::clamp<std::chrono::seconds>(last_delay * 2, kFirstRestartDelay, kMaxRestartDelay);
    act({.kind = Kind::kStartContainer, .container = &c, .attempt = attempt, .restart_delay = delay});
  }

  // Of each container the running instance and one ended one are kept.
  void collect_garbage() {
    for (const auto& c : st_.containers) {
      if (!ended(c)) continue;
      const auto newer = std::ranges::count_if(st_.containers, [&](const Container& o) {
        return o.name == c.name && o.attempt > c.attempt && o.state != ContainerState::kCreated;
      });
      if (newer >= 2 || !spec_.container(c.name)) act({.kind = Kind::kRemoveContainer, .id = c.id});
    }
  }

  const PodSpec& spec_;
  const PodState& st_;
  Plan plan_;
};

}  // namespace

const Container* PodState::latest(const std::string& container_name) const {
  const Container* best = nullptr;
  for (const auto& c : containers)
    if (c.name == container_name && (!best || c.attempt > best->attempt)) best = &c;
  return best;
}

const Container* PodState::previous(const std::string& container_name) const {
  const Container* newest = latest(container_name);
  const Container* best = nullptr;
  for (const auto& c : containers)
    if (c.name == container_name && &c != newest && (!best || c.attempt > best->attempt)) best = &c;
  return best;
}

bool restarts(const PodSpec& spec, const ContainerSpec& c, int exit_code) {
  if (c.sidecar) return true;
  if (c.init) return exit_code != 0 && spec.restart != RestartPolicy::kNever;
  if (spec.restart == RestartPolicy::kAlways) return true;
  return spec.restart == RestartPolicy::kOnFailure && exit_code != 0;
}

bool is_finished(const PodSpec& spec, const PodState& state) {
  // The API's word is final: its containers may have been removed since.
  const auto phase = kube::str(*spec.object, {"status", "phase"});
  if (phase == "Succeeded" || phase == "Failed") return true;
  if (spec.restart == RestartPolicy::kAlways) return false;
  for (const auto& c : spec.init) {
    const Container* latest = state.latest(c.name);
    if (latest && ended(*latest) && !c.sidecar && latest->exit_code != 0 && !restarts(spec, c, latest->exit_code))
      return true;
  }
  return std::ranges::all_of(spec.main, [&](const ContainerSpec& c) {
    const Container* latest = state.latest(c.name);
    return latest && ended(*latest) && !restarts(spec, c, latest->exit_code);
  });
}

std::chrono::milliseconds hold_delay(bool container, int failures) {
  const auto first = std::chrono::milliseconds(container ? 10'000 : 1'000);
  const auto most = std::chrono::milliseconds(container ? 300'000 : 60'000);
  auto d = first;
  for (int i = 1; i < failures && d < most; ++i) d *= 2;
  return std::min(d, most);
}

Plan step(const PodSpec& spec, const PodState& state) {
  return Step(spec, state).run();
}

}  // namespace hawser::agent
