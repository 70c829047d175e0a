// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_worker.h"

#include <algorithm>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "controlplane/agent/cri_log.h"
#include "controlplane/agent/pod_status.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

constexpr int kMaxRounds = 64;  // of actions in one tick; a pod that needs more takes another turn
constexpr std::size_t kMaxTerminationMessage = 4096;
constexpr std::size_t kMaxLogMessage = 2048;
constexpr int kMaxLogMessageLines = 80;
// How long ErrImagePull is shown before it reads ImagePullBackOff.
constexpr std::chrono::seconds kShowPullError{2};

// Pods whose volumes are refreshed in one go share what was read for the first of them.
constexpr std::chrono::seconds kSharedRead{2};

// The container ids of the API object's status that were ready: what the agent before this one found.
bool was_ready(const kube::Object& pod, const std::string& id) {
  for (const char* list : {"containerStatuses", "initContainerStatuses"}) {
    for (const auto& v : kube::arr(pod, {"status", list})) {
      const auto& s = kube::as_obj(v);
      if (kube::str(s, {"containerID"}).ends_with(id) && kube::flag(s, {"ready"})) return true;
    }
  }
  return false;
}

bool says_ready(const kube::Object& status) {
  return std::ranges::any_of(kube::arr(status, {"conditions"}), [](const auto& v) {
    const auto& c = kube::as_obj(v);
    return kube::str(c, {"type"}) == "Ready" && kube::str(c, {"status"}) == "True";
  });
}

}  // namespace

PodWorker::PodWorker(PodContext& context, PodSpecPtr spec, bool orphan)
    : ctx_(context), next_spec_(spec), removed_(orphan), spec_(std::move(spec)) {
  state_.removed = orphan;
  status_ = kube::obj(*spec_->object, {"status"});
  if (auto t = parse_rfc3339(kube::str(status_, {"startTime"}))) start_time_ = *t;
  publish_view();
}

void PodWorker::update(PodSpecPtr spec) {
  std::lock_guard l(mu_);
  // The control plane does so for the pods of a silent node. Who listens to this node again has to hear the truth.
  overruled_ |=
      says_ready(kube::obj(*next_spec_->object, {"status"})) && !says_ready(kube::obj(*spec->object, {"status"}));
  next_spec_ = std::move(spec);
}
void PodWorker::mark_removed() {
  std::lock_guard l(mu_);
  removed_ = true;
}
PodSpecPtr PodWorker::spec() const {
  std::lock_guard l(mu_);
  return next_spec_;
}
std::shared_ptr<const PodView> PodWorker::view() const {
  std::lock_guard l(mu_);
  return view_;
}
void PodWorker::publish_view() {
  auto v = std::make_shared<PodView>();
  v->spec = spec_;
  v->sandboxes = state_.sandboxes;
  v->containers = state_.containers;
  v->status = status_;
  std::lock_guard l(mu_);
  view_ = std::move(v);
}

void PodWorker::post(std::function<void()> change) {
  {
    std::lock_guard l(mu_);
    inbox_.push_back(std::move(change));
  }
  ctx_.wake(spec_->uid);
}

void PodWorker::take_inbox() {
  std::vector<std::function<void()>> inbox;
  {
    std::lock_guard l(mu_);
    inbox.swap(inbox_);
    spec_ = next_spec_;
    state_.removed = removed_;
  }
  for (auto& change : inbox) change();
}

Container* PodWorker::find(const std::string& container_id) {
  const auto it = std::ranges::find_if(state_.containers, [&](const Container& c) { return c.id == container_id; });
  return it == state_.containers.end() ? nullptr : &*it;
}

std::vector<std::string> PodWorker::pod_ips() const {
  if (spec_->host_network)
    return state_.sandboxes.empty() ? std::vector<std::string>{} : std::vector{ctx_.node.node_ip};
  return state_.sandboxes.empty() ? std::vector<std::string>{} : state_.sandboxes.front().ips;
}

ObjectLookup PodWorker::lookup(Nanos max_age) const {
  return [this, max_age](const kube::Resource& kind, const std::string& name) {
    return ctx_.lookup(kind, spec_->ns, name, max_age);
  };
}
PayloadInputs PodWorker::payload_inputs(Nanos max_age) const {
  return {.lookup = lookup(max_age),
          .facts = {&ctx_.node, pod_ips()},
          .token = [this](const std::string& audience, std::int64_t seconds) {
            return ctx_.token(*spec_, audience, seconds);
          }};
}

Result<> PodWorker::read_back() {
  stale_ = false;
  auto snapshot = ctx_.runtime.list(spec_->uid);
  if (!snapshot) return propagate(snapshot);
  std::ranges::sort(snapshot->sandboxes, [](const Sandbox& a, const Sandbox& b) {
    return std::pair(a.attempt, a.created_at_ns) > std::pair(b.attempt, b.created_at_ns);
  });
  for (auto& s : snapshot->sandboxes) {
    const auto old = std::ranges::find_if(state_.sandboxes, [&](const Sandbox& o) { return o.id == s.id; });
    if (old != state_.sandboxes.end()) s.ips = old->ips;
  }
  state_.sandboxes = std::move(snapshot->sandboxes);
  if (!state_.sandboxes.empty() && state_.sandboxes.front().ready && state_.sandboxes.front().ips.empty()) {
    auto s = ctx_.runtime.sandbox_status(state_.sandboxes.front().id);
    if (s) state_.sandboxes.front().ips = s->ips;
    // Its folders and volumes were made before it was.
    if (!adopted_) state_.prepared = true;
  }
  std::vector<Container> containers;
  for (auto& c : snapshot->containers) {
    const Container* known = find(c.id);
    if (known && known->state == c.state) {
      containers.push_back(*known);
      continue;
    }
    auto full = ctx_.runtime.container_status(c.id);
    if (!full && is_not_found(full.error())) continue;
    if (!full) return propagate(full);
    full->sandbox_id = c.sandbox_id;
    read_termination_message(*full);
    containers.push_back(std::move(*full));
  }
  state_.containers = std::move(containers);
  adopted_ = true;
  return {};
}

void PodWorker::expect_exit(const std::string& id) {
  std::lock_guard l(mu_);
  inbox_.push_back([this, id] {
    expected_exits_.try_emplace(id, 0);
    if (runs(id)) stale_ = true;
  });
}

bool PodWorker::runs(const std::string& id) {
  const Container* c = find(id);
  if (c) return c->state == ContainerState::kRunning;
  return std::ranges::any_of(state_.sandboxes, [&](const Sandbox& s) { return s.id == id && s.ready; });
}

// Drops what has been seen to end; for the rest, says when to read back again.
std::optional<WallTime> PodWorker::look_for_exits() {
  constexpr int kLooks = 7;
  constexpr std::chrono::milliseconds kFirstLook{10};
  std::optional<WallTime> again;
  for (auto it = expected_exits_.begin(); it != expected_exits_.end();) {
    if (!runs(it->first) || it->second >= kLooks) {
      it = expected_exits_.erase(it);
      continue;
    }
    const WallTime next = state_.now + kFirstLook * (1 << it->second++);
    again = again ? std::min(*again, next) : next;
    stale_ = true;
    ++it;
  }
  return again;
}

void PodWorker::read_termination_message(Container& c) {
  if (c.state != ContainerState::kExited || !c.message.empty()) return;
  const auto* spec = spec_->container(c.name);
  if (!spec) return;
  // The container wrote this file: never more of it than a message.
  if (auto fd = UniqueFd::open(termination_file(ctx_.node, spec_->uid, c.name, c.attempt).c_str(),
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK)) {
    std::string text(kMaxTerminationMessage, '\0');
    const ssize_t n = ::read(fd->get(), text.data(), text.size());
    if (n > 0) c.message = text.substr(0, static_cast<std::size_t>(n));
  }
  if (c.message.empty() && spec->termination_fallback_to_logs && c.exit_code != 0)
    c.message = log_tail(fmt::format("{}/{}/{}.log", pod_log_dir(ctx_.node, *spec_), c.name, c.attempt),
                         kMaxLogMessageLines, kMaxLogMessage);
}

void PodWorker::sync_probes() {
  const auto ips = pod_ips();
  state_.probes.clear();
  for (const auto& c : state_.containers) {
    const auto* spec = spec_->container(c.name);
    if (!spec) continue;
    if (c.state != ContainerState::kRunning) {
      ctx_.prober.forget(c.id);
      continue;
    }
    const ProbeSubject subject{
        .pod = spec_, .container = c.name, .target = {.container_id = c.id, .ip = ips.empty() ? "" : ips.front()}};
    ctx_.prober.watch(subject, *spec, was_ready(*spec_->object, c.id));
    if (auto v = ctx_.prober.verdict(c.id)) state_.probes[c.id] = *v;
  }
}

void PodWorker::age_holds(std::optional<WallTime>& wake) {
  for (auto& [name, h] : state_.holds) {
    if (h.reason != "ErrImagePull") continue;
    const WallTime flip = h.since + kShowPullError;
    if (state_.now < flip && !h.over(state_.now)) {
      wake = wake ? std::min(*wake, flip) : flip;
      continue;
    }
    const auto* c = spec_->container(name);
    const std::string text = fmt::format("Back-off pulling image \"{}\"", c ? c->image : name);
    event(false, "BackOff", text, name);
    event(true, "Failed", "Error: ImagePullBackOff", name);
    h.reason = "ImagePullBackOff";
    h.message = text + ": ErrImagePull: " + h.message;
  }
}

void PodWorker::publish(const Plan& plan) {
  if (state_.removed || ending_) return;
  if (start_time_ == WallTime{}) start_time_ = state_.now;
  const StatusInputs in{.host_ip = ctx_.node.node_ip, .pod_ips = pod_ips(), .start_time = start_time_};
  // Conditions of others come from the API object, times of ours from what was last written.
  kube::Object before = status_;
  for (const auto& v : kube::arr(*spec_->object, {"status", "conditions"})) {
    const auto type = kube::str(kube::as_obj(v), {"type"});
    auto& list = before["conditions"];
    if (!list.is_array()) list = kube::Array{};
    auto& known = list.get_array();
    const auto it =
        std::ranges::find_if(known, [&](const auto& c) { return kube::str(kube::as_obj(c), {"type"}) == type; });
    if (it == known.end())
      known.push_back(v);
    else if (type != "Ready" && type != "Initialized" && type != "ContainersReady" && type != "PodScheduled")
      *it = v;
  }
  kube::Object status = pod_status(*spec_, state_, plan, in, before);
  bool overruled = false;
  {
    std::lock_guard l(mu_);
    overruled = std::exchange(overruled_, false);
  }
  if (status == status_ && !(overruled && says_ready(status))) return;
  const bool starting = kube::str(status, {"phase"}) == "Pending" && state_.holds.empty();
  status_ = std::move(status);
  ctx_.status.publish(spec_, status_, !starting);
}

std::optional<WallTime> PodWorker::tick() {
  take_inbox();
  if (done_) return std::nullopt;
  state_.now = ctx_.clock.wall();
  if (stale_) {
    if (auto r = read_back(); !r) {
      stale_ = true;
      log::debug("pod {}: {}", spec_->key(), r.error().text);
      return state_.now + std::chrono::seconds(1);  // the runtime is away; what runs goes on running
    }
  }
  if (refresh_.exchange(false)) refresh_payloads();
  std::optional<WallTime> wake = look_for_exits();
  for (int round = 0; round < kMaxRounds && !done_; ++round) {
    state_.now = ctx_.clock.wall();
    if (spec_->active_deadline && start_time_ != WallTime{}) {
      const WallTime end = start_time_ + *spec_->active_deadline;
      state_.deadline_passed = state_.now >= end;
      if (!state_.deadline_passed) wake = wake ? std::min(*wake, end) : end;
    }
    sync_probes();
    age_holds(wake);
    const Plan plan = step(*spec_, state_);
    publish(plan);
    if (plan.wake) wake = wake ? std::min(*wake, *plan.wake) : *plan.wake;
    bool progress = false;
    for (const auto& a : plan.actions) progress |= perform(a);
    if (!progress && stale_ && expected_exits_.empty())
      wake = wake ? std::min(*wake, state_.now + std::chrono::seconds(1)) : state_.now + std::chrono::seconds(1);
    if (!progress) {
      // A failure has just set a hold: its reason belongs into the status, and its end into the wake-up.
      if (!plan.actions.empty()) {
        // The hold began after this round did: seen from the round's own time it would look like one of the future, and
        // so as over.
        state_.now = ctx_.clock.wall();
        const Plan after = step(*spec_, state_);
        publish(after);
        age_holds(wake);
        if (after.wake) wake = wake ? std::min(*wake, *after.wake) : *after.wake;
      }
      break;
    }
  }
  publish_view();
  return wake;
}

void PodWorker::refresh_payloads() {
  if (!state_.prepared || state_.cleaned || ending_ || state_.removed || spec_->deleting) return;
  auto r = refresh_volumes(*spec_, ctx_.node, payload_inputs(kSharedRead));
  if (!r) log::debug("pod {}: {}", spec_->key(), r.error().text);
}

void PodWorker::event(bool warning, std::string reason, std::string message, const std::string& container) {
  ctx_.event(*spec_, {warning, std::move(reason), std::move(message), container});
}

void PodWorker::hold(const std::string& name, std::string reason, std::string message, std::chrono::milliseconds most) {
  Hold& h = state_.holds[name];
  ++h.failures;
  h.reason = std::move(reason);
  h.message = std::move(message);
  const bool image = h.reason == "ErrImagePull";
  h.since = ctx_.clock.wall();
  h.until = h.since + std::min(hold_delay(image, h.failures), most);
}

}  // namespace hawser::agent
