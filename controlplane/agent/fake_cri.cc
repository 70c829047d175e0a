// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/fake_cri.h"

#include <algorithm>

namespace hawser::agent {
namespace {

bool has_uid(const StringMap& labels, const std::string& uid) {
  const auto it = labels.find(kLabelPodUid);
  return it != labels.end() && (uid.empty() || it->second == uid);
}

}  // namespace

void FakeCri::add_image(const std::string& ref) {
  std::lock_guard l(mu_);
  images_.insert(ref);
}
void FakeCri::exit_container(const std::string& id, int code) {
  std::lock_guard l(mu_);
  if (const auto it = containers_.find(id); it != containers_.end()) end(it->second, code);
}
void FakeCri::kill_sandbox(const std::string& id) {
  std::lock_guard l(mu_);
  if (const auto it = sandboxes_.find(id); it != sandboxes_.end()) it->second.ready = false;
}
void FakeCri::fail_next(const std::string& method, const std::string& text, int times) {
  std::lock_guard l(mu_);
  faults_[method] = {text, times};
}
void FakeCri::set_exec(std::function<ExecOutcome(const std::vector<std::string>&)> fn) {
  std::lock_guard l(mu_);
  exec_ = std::move(fn);
}
std::vector<std::string> FakeCri::calls() const {
  std::lock_guard l(mu_);
  return calls_;
}
RuntimeSnapshot FakeCri::everything() const {
  std::lock_guard l(mu_);
  RuntimeSnapshot out;
  for (const auto& [id, s] : sandboxes_) out.sandboxes.push_back(s);
  for (const auto& [id, c] : containers_) out.containers.push_back(c);
  return out;
}
std::optional<ContainerConfig> FakeCri::config_of(const std::string& container_name) const {
  std::lock_guard l(mu_);
  const auto it = configs_.find(container_name);
  return it == configs_.end() ? std::nullopt : std::optional(it->second);
}

Result<> FakeCri::enter(const std::string& method, const std::string& what) {
  calls_.push_back(method + " " + what);
  const auto it = faults_.find(method);
  if (it == faults_.end() || it->second.second <= 0) return {};
  --it->second.second;
  return fail(0, "{}", it->second.first);
}
void FakeCri::end(Container& c, int code) {
  if (c.state != ContainerState::kRunning) return;
  c.state = ContainerState::kExited;
  c.exit_code = code;
  c.finished_at_ns = now_ns();
  c.reason = code == 0 ? "Completed" : "Error";
}

Result<RuntimeState> FakeCri::state() {
  std::lock_guard l(mu_);
  if (auto r = enter("state", ""); !r) return propagate(r);
  return RuntimeState{.name = "fake", .version = "1.0", .runtime_ready = true, .network_ready = true, .message = {}};
}

Result<RuntimeSnapshot> FakeCri::list(const std::string& pod_uid) {
  std::lock_guard l(mu_);
  if (auto r = enter("list", pod_uid); !r) return propagate(r);
  RuntimeSnapshot out;
  for (const auto& [id, s] : sandboxes_)
    if (has_uid(s.labels, pod_uid)) out.sandboxes.push_back(s);
  for (const auto& [id, c] : containers_)
    if (has_uid(c.labels, pod_uid)) out.containers.push_back(c);
  return out;
}

Result<std::string> FakeCri::run_sandbox(const SandboxConfig& config) {
  std::lock_guard l(mu_);
  if (auto r = enter("run_sandbox", config.name); !r) return propagate(r);
  const int n = next_id_++;
  Sandbox s{.id = fmt::format("sandbox{}", n),
            .name = config.name,
            .ns = config.ns,
            .uid = config.uid,
            .attempt = config.attempt,
            .ready = true,
            .created_at_ns = now_ns(),
            .ips = {fmt::format("10.244.0.{}", n + 1)},
            .labels = config.labels,
            .annotations = config.annotations};
  const std::string id = s.id;
  sandboxes_[id] = std::move(s);
  return id;
}

Result<> FakeCri::stop_sandbox(const std::string& id) {
  std::lock_guard l(mu_);
  if (auto r = enter("stop_sandbox", id); !r) return r;
  if (const auto it = sandboxes_.find(id); it != sandboxes_.end()) it->second.ready = false;
  for (auto& [cid, c] : containers_)
    if (c.sandbox_id == id) end(c, 137);
  return {};
}

Result<> FakeCri::remove_sandbox(const std::string& id) {
  std::lock_guard l(mu_);
  if (auto r = enter("remove_sandbox", id); !r) return r;
  sandboxes_.erase(id);
  std::erase_if(containers_, [&](const auto& e) { return e.second.sandbox_id == id; });
  return {};
}

Result<Sandbox> FakeCri::sandbox_status(const std::string& id) {
  std::lock_guard l(mu_);
  if (auto r = enter("sandbox_status", id); !r) return propagate(r);
  const auto it = sandboxes_.find(id);
  if (it == sandboxes_.end()) return fail(ENOENT, "sandbox {} not found", id);
  return it->second;
}

Result<std::string> FakeCri::create_container(const std::string& sandbox_id, const ContainerConfig& config,
                                              const SandboxConfig&) {
  std::lock_guard l(mu_);
  if (auto r = enter("create_container", config.name); !r) return propagate(r);
  if (!sandboxes_.contains(sandbox_id)) return fail(ENOENT, "sandbox {} not found", sandbox_id);
  for (const auto& [id, c] : containers_)
    if (c.sandbox_id == sandbox_id && c.name == config.name && c.attempt == config.attempt)
      return fail(EEXIST, "name {}_{} is reserved", config.name, config.attempt);
  Container c{.id = fmt::format("container{}", next_id_++),
              .sandbox_id = sandbox_id,
              .name = config.name,
              .attempt = config.attempt,
              .image = config.image,
              .image_ref = "sha256:" + config.image,
              .state = ContainerState::kCreated,
              .created_at_ns = now_ns(),
              .labels = config.labels,
              .annotations = config.annotations};
  const std::string id = c.id;
  containers_[id] = std::move(c);
  configs_[config.name] = config;
  return id;
}

Result<> FakeCri::start_container(const std::string& id) {
  std::lock_guard l(mu_);
  const auto it = containers_.find(id);
  if (it == containers_.end()) return fail(ENOENT, "container {} not found", id);
  Container& c = it->second;
  if (auto r = enter("start_container", c.name); !r) {
    c.state = ContainerState::kExited;
    c.exit_code = 128;
    c.reason = "StartError";
    c.message = r.error().text;
    c.finished_at_ns = now_ns();
    return r;
  }
  if (c.state != ContainerState::kCreated) return fail(EINVAL, "container {} is not in created state", id);
  c.state = ContainerState::kRunning;
  c.started_at_ns = now_ns();
  return {};
}

Result<> FakeCri::stop_container(const std::string& id, std::chrono::seconds grace) {
  std::lock_guard l(mu_);
  const auto it = containers_.find(id);
  if (auto r =
          enter("stop_container", it == containers_.end() ? id : fmt::format("{} {}", it->second.name, grace.count()));
      !r)
    return r;
  if (it != containers_.end()) end(it->second, 143);
  return {};
}

Result<> FakeCri::remove_container(const std::string& id) {
  std::lock_guard l(mu_);
  if (auto r = enter("remove_container", id); !r) return r;
  containers_.erase(id);
  return {};
}

Result<Container> FakeCri::container_status(const std::string& id) {
  std::lock_guard l(mu_);
  if (auto r = enter("container_status", id); !r) return propagate(r);
  const auto it = containers_.find(id);
  if (it == containers_.end()) return fail(ENOENT, "container {} not found", id);
  return it->second;
}

Result<ExecOutcome> FakeCri::exec(const std::string& id, const std::vector<std::string>& command,
                                  std::chrono::seconds) {
  std::function<ExecOutcome(const std::vector<std::string>&)> fn;
  {
    std::lock_guard l(mu_);
    if (auto r = enter("exec", id); !r) return propagate(r);
    fn = exec_;
  }
  return fn ? fn(command) : ExecOutcome{};
}

Result<std::optional<Image>> FakeCri::image_status(const std::string& ref) {
  std::lock_guard l(mu_);
  if (auto r = enter("image_status", ref); !r) return propagate(r);
  if (!images_.contains(ref)) return std::optional<Image>();
  return std::optional(
      Image{.id = "sha256:" + ref, .tags = {ref}, .digests = {}, .size_bytes = 1 << 20, .uid = 0, .username = {}});
}

Result<std::string> FakeCri::pull_image(const std::string& ref) {
  std::lock_guard l(mu_);
  if (auto r = enter("pull_image", ref); !r) return propagate(r);
  images_.insert(ref);
  return "sha256:" + ref;
}

Result<std::vector<Image>> FakeCri::list_images() {
  std::lock_guard l(mu_);
  std::vector<Image> out;
  for (const auto& ref : images_)
    out.push_back(
        {.id = "sha256:" + ref, .tags = {ref}, .digests = {}, .size_bytes = 1 << 20, .uid = 0, .username = {}});
  return out;
}

Result<> FakeCri::reopen_log(const std::string& container_id) {
  std::lock_guard l(mu_);
  return enter("reopen_log", container_id);
}

}  // namespace hawser::agent
