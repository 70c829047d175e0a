// SPDX-License-Identifier: Apache-2.0
// PodWorker's actions: each a few runtime calls whose results go straight into the pod's state.
#include <algorithm>
#include <filesystem>

#include "controlplane/agent/image_ref.h"
#include "controlplane/agent/pod_cgroup.h"
#include "controlplane/agent/pod_worker.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::minutes kMaxHold{5};
constexpr std::chrono::seconds kMaxConfigHold{10};  // a missing Secret is usually there a moment later
constexpr std::chrono::seconds kMinStopGrace{2};    // what a preStop hook leaves at least
constexpr std::chrono::seconds kHookTimeout{30};

}  // namespace

bool PodWorker::perform(const Action& a) {
  switch (a.kind) {
    case Action::Kind::kPrepare:
      return prepare();
    case Action::Kind::kRunSandbox:
      return run_sandbox(a.attempt);
    case Action::Kind::kStartContainer:
      return start_container(a);
    case Action::Kind::kStopContainer:
      return stop_container(a);
    case Action::Kind::kRemoveContainer:
      return remove_container(a.id);
    case Action::Kind::kStopSandbox:
      return stop_sandbox(a.id);
    case Action::Kind::kRemoveSandbox:
      return remove_sandbox(a.id);
    case Action::Kind::kCleanUp:
      return clean_up();
    case Action::Kind::kFinish:
      if (!state_.removed) ctx_.status.finish(spec_);
      done_ = true;
      return false;
  }
  return false;
}

bool PodWorker::prepare() {
  auto r = prepare_volumes(*spec_, ctx_.node, payload_inputs(Nanos(0)));
  if (r) r = make_folders(pod_log_dir(ctx_.node, *spec_));
  if (!r) {
    event(true, "FailedMount", r.error().text);
    hold("", "ContainerCreating", r.error().text, kMaxConfigHold);
    return false;
  }
  state_.prepared = true;
  state_.holds.erase("");
  return true;
}

bool PodWorker::run_sandbox(std::uint32_t attempt) {
  const auto config = sandbox_config(*spec_, ctx_.node, ctx_.node_dns(), attempt);
  auto id = ctx_.runtime.run_sandbox(config);
  if (!id) {
    log::warn("pod {}: sandbox: {}", spec_->key(), id.error().text);
    event(true, "FailedCreatePodSandBox", "Failed to create pod sandbox: " + id.error().text);
    hold("", "ContainerCreating", "", std::chrono::seconds(30));
    stale_ = true;  // the runtime may have kept a half-made one
    return false;
  }
  Sandbox s{.id = *id,
            .name = spec_->name,
            .ns = spec_->ns,
            .uid = spec_->uid,
            .attempt = attempt,
            .ready = true,
            .created_at_ns = ctx_.clock.wall().time_since_epoch().count(),
            .ips = {},
            .labels = config.labels,
            .annotations = {}};
  if (!spec_->host_network) {
    auto status = ctx_.runtime.sandbox_status(*id);
    if (status) s.ips = status->ips;
  }
  state_.sandboxes.insert(state_.sandboxes.begin(), std::move(s));
  state_.holds.erase("");
  if (auto r = write_hosts(*spec_, ctx_.node, pod_ips()); !r) log::warn("pod {}: {}", spec_->key(), r.error().text);
  return true;
}

bool PodWorker::start_container(const Action& a) {
  const ContainerSpec& c = *a.container;
  auto ref = normal_image_ref(c.image);
  if (!ref) {
    event(true, "InspectFailed", ref.error().text, c.name);
    event(true, "Failed", "Error: InvalidImageName", c.name);
    hold(c.name, "InvalidImageName", ref.error().text, kMaxHold);
    return false;
  }
  const auto image = ensure_image(c, *ref, a.attempt);
  if (!image) return false;
  const EnvInputs env_inputs{
      .lookup = lookup(Nanos(0)), .services = ctx_.service_env(*spec_), .facts = {&ctx_.node, pod_ips()}};
  auto env = make_env(*spec_, c, env_inputs);
  Result<std::vector<Mount>> mounts;
  if (env) mounts = volume_mounts(*spec_, c, a.attempt, ctx_.node, *env);
  Result<ContainerConfig> config = !env      ? Result<ContainerConfig>(propagate(env))
                                   : !mounts ? Result<ContainerConfig>(propagate(mounts))
                                             : container_config(*spec_, c, ctx_.node,
                                                                {.env = std::move(*env),
                                                                 .mounts = std::move(*mounts),
                                                                 .image = *ref,
                                                                 .info = image,
                                                                 .attempt = a.attempt,
                                                                 .restart_delay = a.restart_delay});
  if (!config) {
    event(true, "Failed", "Error: " + config.error().text, c.name);
    hold(c.name, "CreateContainerConfigError", config.error().text, kMaxConfigHold);
    return false;
  }
  return create_and_start(c, std::move(*config), *ref);
}

std::optional<Image> PodWorker::ensure_image(const ContainerSpec& c, const std::string& ref, std::uint32_t attempt) {
  auto found = ctx_.images.find(ref);
  if (!found) {
    event(true, "InspectFailed", fmt::format("Failed to inspect image \"{}\": {}", c.image, found.error().text),
          c.name);
    hold(c.name, "ImageInspectError", found.error().text, kMaxConfigHold);
    return std::nullopt;
  }
  const auto pulled = pulled_.find(c.name);
  const bool fresh = pulled != pulled_.end() && pulled->second == attempt;
  if (*found && (c.pull != PullPolicy::kAlways || fresh)) {
    if (!fresh)
      event(false, "Pulled", fmt::format("Container image \"{}\" already present on machine", c.image), c.name);
    return **found;
  }
  if (c.pull == PullPolicy::kNever) {
    const std::string text = fmt::format("Container image \"{}\" is not present with pull policy of Never", c.image);
    event(true, "ErrImageNeverPull", text, c.name);
    event(true, "Failed", "Error: ErrImageNeverPull", c.name);
    hold(c.name, "ErrImageNeverPull", text, kMaxConfigHold);
    return std::nullopt;
  }
  pull(c, ref, attempt);
  return std::nullopt;
}

void PodWorker::pull(const ContainerSpec& c, const std::string& ref, std::uint32_t attempt) {
  state_.pulling.push_back(c.name);
  event(false, "Pulling", fmt::format("Pulling image \"{}\"", c.image), c.name);
  ctx_.slow.submit([this, self = shared_from_this(), name = c.name, image = c.image, ref, attempt] {
    const MonoTime begin = ctx_.clock.now();
    auto r = ctx_.images.pull(ref);
    const double seconds = std::chrono::duration<double>(ctx_.clock.now() - begin).count();
    post([this, name, image, attempt, seconds, r] {
      std::erase(state_.pulling, name);
      if (r) {
        event(false, "Pulled", fmt::format("Successfully pulled image \"{}\" in {:.3f}s", image, seconds), name);
        pulled_[name] = attempt;
        state_.holds.erase(name);
        return;
      }
      event(true, "Failed", fmt::format("Failed to pull image \"{}\": {}", image, r.error().text), name);
      event(true, "Failed", "Error: ErrImagePull", name);
      hold(name, "ErrImagePull", r.error().text, kMaxHold);
    });
  });
}

bool PodWorker::create_and_start(const ContainerSpec& c, ContainerConfig config, const std::string& ref) {
  const auto sandbox = sandbox_config(*spec_, ctx_.node, ctx_.node_dns(), state_.sandboxes.front().attempt);
  auto id = ctx_.runtime.create_container(state_.sandboxes.front().id, config, sandbox);
  if (!id) {
    log::warn("pod {}: container {}: create: {}", spec_->key(), c.name, id.error().text);
    ctx_.images.forget(ref);
    event(true, "Failed", "Error: " + id.error().text, c.name);
    hold(c.name, "CreateContainerError", id.error().text, kMaxHold);
    stale_ = true;
    return false;
  }
  event(false, "Created", "Created container " + c.name, c.name);
  auto r = ctx_.runtime.start_container(*id);
  auto status = ctx_.runtime.container_status(*id);
  if (!status) {
    stale_ = true;
    return false;
  }
  status->sandbox_id = state_.sandboxes.front().id;
  read_termination_message(*status);
  state_.containers.push_back(std::move(*status));
  if (!r) {
    log::warn("pod {}: container {}: start: {}", spec_->key(), c.name, r.error().text);
    event(true, "Failed", "Error: failed to start container \"" + c.name + "\": " + r.error().text, c.name);
    // The runtime keeps it as ended with the reason; the restart policy takes it from here.
    if (state_.containers.back().state != ContainerState::kCreated) return true;
    hold(c.name, "RunContainerError", r.error().text, kMaxHold);
    return remove_container(*id) && false;
  }
  event(false, "Started", "Started container " + c.name, c.name);
  state_.holds.erase(c.name);
  started(c, *id);
  return true;
}

void PodWorker::started(const ContainerSpec& c, const std::string& id) {
  if (!c.post_start) return;
  const auto ips = pod_ips();
  auto r = ctx_.checks.run(*c.post_start, {.container_id = id, .ip = ips.empty() ? "" : ips.front()}, kHookTimeout);
  if (r) return;
  event(true, "FailedPostStartHook", "PostStartHook failed: " + r.error().text, c.name);
  stop_container({.kind = Action::Kind::kStopContainer,
                  .id = id,
                  .container = &c,
                  .grace = spec_->grace,
                  .message = "FailedPostStartHook"});
}

bool PodWorker::stop_container(const Action& a) {
  const Container* c = find(a.id);
  if (!c) return false;
  const std::string name = c->name;
  const bool again = state_.stopping.contains(a.id);
  state_.stopping[a.id] = ctx_.clock.wall() + a.grace;
  if (!again) event(false, "Killing", a.message.empty() ? "Stopping container " + name : a.message, name);
  std::optional<Check> hook;
  if (a.container && a.container->pre_stop && !again) hook = a.container->pre_stop;
  const auto ips = pod_ips();
  const CheckTarget target{.container_id = a.id, .ip = ips.empty() ? "" : ips.front()};
  ctx_.slow.submit([this, self = shared_from_this(), id = a.id, grace = a.grace, hook, target, name] {
    auto left = grace;
    if (hook && grace.count() > 0) {
      const MonoTime begin = ctx_.clock.now();
      if (hook->kind == Check::Kind::kSleep) {
        std::mutex m;
        std::condition_variable cv;
        std::unique_lock l(m);
        ctx_.clock.wait_until(l, cv, begin + std::min(hook->sleep, grace), [] { return false; });
      } else if (auto r = ctx_.checks.run(*hook, target, grace); !r) {
        post([this, name, text = r.error().text] {
          event(true, "FailedPreStopHook", "PreStopHook failed: " + text, name);
        });
      }
      left = std::max(kMinStopGrace, left - std::chrono::duration_cast<std::chrono::seconds>(ctx_.clock.now() - begin));
    }
    auto r = ctx_.runtime.stop_container(id, left);
    auto status = ctx_.runtime.container_status(id);
    post([this, id, r, status]() mutable {
      state_.stopping.erase(id);
      if (!r) {
        log::warn("pod {}: stop: {}", spec_->key(), r.error().text);
        event(true, "FailedKillPod", "error killing pod: " + r.error().text);
        hold(id, "FailedKillPod", r.error().text, kMaxConfigHold);
      } else {
        state_.holds.erase(id);
      }
      Container* known = find(id);
      if (!status || !known) {
        stale_ = true;
        return;
      }
      status->sandbox_id = known->sandbox_id;
      read_termination_message(*status);
      *known = std::move(*status);
    });
  });
  return false;
}

bool PodWorker::stop_sandbox(const std::string& id) {
  if (spec_->deleting || state_.removed) ending_ = true;
  auto r = ctx_.runtime.stop_sandbox(id);
  if (!r) {
    log::warn("pod {}: stop sandbox: {}", spec_->key(), r.error().text);
    event(true, "FailedKillPod", "error killing pod: failed to \"KillPodSandbox\" for pod: " + r.error().text);
    hold("", "ContainerCreating", "", std::chrono::seconds(30));
    return false;
  }
  bool was_ready = false;
  for (auto& s : state_.sandboxes) {
    if (s.id != id) continue;
    was_ready = std::exchange(s.ready, false);
  }
  return was_ready;
}

bool PodWorker::remove_sandbox(const std::string& id) {
  const auto it = std::ranges::find_if(state_.sandboxes, [&](const Sandbox& s) { return s.id == id; });
  if (it == state_.sandboxes.end() || it->ready) return false;  // its stop has failed
  ending_ = spec_->deleting || state_.removed;
  if (auto r = ctx_.runtime.remove_sandbox(id); !r) {
    log::warn("pod {}: remove sandbox: {}", spec_->key(), r.error().text);
    hold("", "ContainerCreating", "", std::chrono::seconds(30));
    return false;
  }
  for (const auto& c : state_.containers)
    if (c.sandbox_id == id) ctx_.prober.forget(c.id);
  std::erase_if(state_.containers, [&](const Container& c) { return c.sandbox_id == id; });
  state_.sandboxes.erase(it);
  return true;
}

bool PodWorker::remove_container(const std::string& id) {
  const Container* c = find(id);
  if (!c) return false;
  if (auto r = ctx_.runtime.remove_container(id); !r) {
    log::warn("pod {}: remove container: {}", spec_->key(), r.error().text);
    hold(c->name, "ContainerCreating", "", kMaxConfigHold);
    return false;
  }
  ctx_.prober.forget(id);
  const fs::path log = fmt::format("{}/{}/{}.log", pod_log_dir(ctx_.node, *spec_), c->name, c->attempt);
  std::error_code ec;
  for (fs::directory_iterator it(log.parent_path(), ec), end; !ec && it != end; it.increment(ec))
    if (it->path().filename().string().starts_with(log.filename().string())) fs::remove(it->path(), ec);
  fs::remove(termination_file(ctx_.node, spec_->uid, c->name, c->attempt), ec);
  std::erase_if(state_.containers, [&](const Container& o) { return o.id == id; });
  return true;
}

bool PodWorker::clean_up() {
  ending_ = true;
  auto r = remove_pod_dir(ctx_.node, spec_->uid);
  if (!r) {
    log::warn("pod {}: clean up: {}", spec_->key(), r.error().text);
    hold("", "", "", kMaxConfigHold);
    return false;
  }
  std::error_code ec;
  fs::remove_all(pod_log_dir(ctx_.node, *spec_), ec);
  remove_pod_cgroups(ctx_.node, spec_->uid);
  state_.cleaned = true;
  return true;
}

}  // namespace hawser::agent
