// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/agent.h"

#include <algorithm>
#include <filesystem>

#include <malloc.h>

#include "controlplane/agent/pod_cgroup.h"
#include "lib/base/atomic_file.h"
#include "lib/base/log.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
using kube::Object;

// Enough to keep a runtime of two to many cores busy; more would only wait inside it.
constexpr int kRuntimeOperations = 12;
constexpr int kSlowOperations = 256;  // each pod that is stopping, and each followed log, holds one
constexpr std::chrono::milliseconds kTurn{500};
constexpr std::chrono::seconds kRelist{1};
constexpr std::chrono::seconds kRelistBesideStream{5};
constexpr std::chrono::seconds kRefreshVolumes{10};
constexpr std::chrono::seconds kRotateLogs{10};
constexpr std::chrono::seconds kRemoveLeftovers{30};
constexpr std::chrono::seconds kWaitForServices{5};

}  // namespace

Agent::Agent(const AgentParts& parts, NodeSettings node, LogLimits logs)
    : parts_(parts),
      node_(std::move(node)),
      log_limits_(logs),
      slow_(kSlowOperations, std::chrono::seconds(10), parts.clock),
      status_(parts.client, parts.clock),
      images_(parts.images, parts.clock),
      objects_(parts.client, parts.clock),
      checks_(parts.runtime),
      prober_(
          checks_, slow_, [this](const std::string& uid) { pool_->wake(uid); },
          [this](const ProbeSubject& s, const std::string& text) {
            parts_.event(*s.pod, {true, "Unhealthy", text, s.container});
          },
          parts.clock),
      context_{.runtime = parts.runtime,
               .images = images_,
               .node = node_,
               .prober = prober_,
               .checks = checks_,
               .slow = slow_,
               .status = status_,
               .clock = parts.clock,
               .wake = [this](const std::string& uid) { pool_->wake(uid); },
               .event = parts.event,
               .lookup = [this](const kube::Resource& kind, const std::string& ns, const std::string& name,
                                Nanos max_age) { return objects_.get(kind, ns, name, max_age); },
               .service_env = [this](const PodSpec& spec) { return service_env(spec); },
               .token = [this](const PodSpec& spec, const std::string& audience,
                               std::int64_t seconds) { return token(spec, audience, seconds); },
               .node_dns = [this] { return parse_resolv_conf(read_file(node_.resolv_conf).value_or("")); }},
      pool_(std::make_unique<PodPool>(context_, kRuntimeOperations)),
      pod_informer_(parts.client, kube::kPods, {.field_selector = "spec.nodeName=" + node_.node_name}, parts.clock),
      service_informer_(parts.client, kube::kServices, {}, parts.clock),
      reporter_(parts.client, parts.runtime, parts.images, node_, parts.clock) {}

Agent::~Agent() {
  stop();
}

void Agent::start() {
  reporter_.start();
  service_informer_.start({});
  if (parts_.exits) exit_thread_ = std::jthread([this](const std::stop_token& stop) { exit_loop(stop); });
  thread_ = std::thread([this] { loop(); });
}

void Agent::stop() {
  {
    std::lock_guard l(mu_);
    if (std::exchange(stopping_, true)) return;
    cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  exit_thread_.request_stop();
  if (exit_thread_.joinable()) exit_thread_.join();
  pod_informer_.stop();
  service_informer_.stop();
  prober_.stop();
  pool_->stop();
  // What is known by now is written; a deletion half way is finished by the next agent.
  status_.drain(std::chrono::seconds(1));
  slow_.stop();
  status_.stop();
  reporter_.stop();
}

bool Agent::sleep(Nanos time) {
  std::unique_lock l(mu_);
  parts_.clock.wait_until(l, cv_, parts_.clock.now() + time, [this] { return stopping_ || relist_now_; });
  return !stopping_;
}

void Agent::on_pod(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  if (old && (!current || kube::uid(*old) != kube::uid(*current))) pool_->remove_pod(std::string(kube::uid(*old)));
  if (current) pool_->set_pod(parse_pod(current));
}

void Agent::loop() {
  // Containers get the Services' addresses in their environment, so these must be known first; but pods do not wait for
  // ever.
  for (Nanos waited{0}; waited < kWaitForServices && !service_informer_.synced();
       waited += std::chrono::milliseconds(50))
    if (service_informer_.wait_synced(std::chrono::milliseconds(50)) || !sleep(Nanos(0))) break;
  pod_informer_.start(
      {.on_change = [this](const kube::ObjectPtr& old, const kube::ObjectPtr& now) { on_pod(old, now); },
       .on_synced = {}});
  MonoTime relist{}, refresh{}, rotate{}, leftovers{};
  while (sleep(kTurn)) {
    const MonoTime now = parts_.clock.now();
    bool relist_now = false;
    Nanos period = kRelist;
    {
      std::lock_guard l(mu_);
      relist_now = std::exchange(relist_now_, false);
      if (exits_live_) period = kRelistBesideStream;
    }
    const bool api_known = pod_informer_.synced() && pod_informer_.failures() == 0;
    if (relist_now || now >= relist) {
      if (auto r = pool_->relist(api_known); !r) log::debug("runtime: {}", r.error().text);
      relist = now + period;
    }
    if (now >= refresh) {
      if (api_known) pool_->refresh_volumes();
      objects_.drop_unused(2 * kRefreshVolumes);
      refresh = now + kRefreshVolumes;
    }
    if (now >= rotate) {
      rotate_logs();
      rotate = now + kRotateLogs;
    }
    if (now >= leftovers && api_known) {
      remove_leftovers();
      ::malloc_trim(0);  // what a burst of pods took goes back to the machine
      leftovers = now + kRemoveLeftovers;
    }
  }
}

void Agent::exit_loop(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::lock_guard l(mu_);
      exits_live_ = true;
      relist_now_ = true;  // what ended before the stream stood
      cv_.notify_all();
    }
    auto r = parts_.exits([this](const std::string& id) { pool_->on_exit(id); }, stop);
    if (!r) log::debug("runtime events: {}", r.error().text);
    {
      std::lock_guard l(mu_);
      exits_live_ = false;
    }
    std::unique_lock l(mu_);
    parts_.clock.wait_until(l, cv_, parts_.clock.now() + std::chrono::seconds(1),
                            [&] { return stopping_ || stop.stop_requested(); });
  }
}

void Agent::rotate_logs() {
  for (const auto& v : pool_->views()) {
    for (const auto& c : v->containers) {
      if (c.state != ContainerState::kRunning) continue;
      const auto path = fmt::format("{}/{}/{}.log", pod_log_dir(node_, *v->spec), c.name, c.attempt);
      if (auto r = rotate_log(path, c.id, parts_.images, log_limits_, parts_.clock.wall()); !r)
        log::warn("{}", r.error().text);
    }
  }
}

// Folders and cgroups of pods that neither the API nor the runtime has any more. The relist before has put every pod of
// the runtime into the pool.
void Agent::remove_leftovers() {
  std::error_code ec;
  std::vector<std::string> volumes;
  std::vector<fs::path> logs;
  for (fs::directory_iterator it(node_.root_dir + "/pods", ec), end; !ec && it != end; it.increment(ec))
    volumes.push_back(it->path().filename().string());
  for (fs::directory_iterator it(node_.pod_log_dir, ec), end; !ec && it != end; it.increment(ec)) {
    // <namespace>_<name>_<uid>: none of the three has an underscore.
    if (std::ranges::count(it->path().filename().string(), '_') == 2) logs.push_back(it->path());
  }
  auto cgroups = pods_with_cgroups(node_);
  // Asked only now: a pod is in the pool before its folders are made, so that none of a new pod is taken for a
  // leftover.
  const auto known = pool_->uids();
  std::erase_if(volumes, [&](const std::string& uid) { return known.contains(uid); });
  std::erase_if(logs, [&](const fs::path& p) {
    const auto name = p.filename().string();
    return known.contains(name.substr(name.rfind('_') + 1));
  });
  for (const auto& uid : volumes) {
    auto r = remove_pod_dir(node_, uid);
    if (r)
      log::info("removed the folder of pod {}, which is gone", uid);
    else
      log::warn("{}", r.error().text);
  }
  for (const auto& dir : logs) fs::remove_all(dir, ec);
  std::erase_if(cgroups, [&](const std::string& uid) { return known.contains(uid); });
  for (const auto& uid : cgroups) remove_pod_cgroups(node_, uid);
}

StringMap Agent::service_env(const PodSpec& spec) {
  return agent::service_env(service_informer_.list(), spec.ns,
                            kube::flag(*spec.object, {"spec", "enableServiceLinks"}, true));
}

Result<std::optional<std::string>> Agent::token(const PodSpec& spec, const std::string& audience,
                                                std::int64_t seconds) {
  const std::string key = fmt::format("{}/{}/{}", spec.uid, audience, seconds);
  const WallTime now = parts_.clock.wall();
  {
    std::lock_guard l(mu_);
    std::erase_if(tokens_, [&](const auto& e) { return now >= e.second.renew; });
    if (const auto it = tokens_.find(key); it != tokens_.end()) return std::optional(it->second.text);
  }
  auto account = kube::str(*spec.object, {"spec", "serviceAccountName"});
  if (account.empty()) account = "default";
  Object request_spec{
      {"expirationSeconds", seconds},
      {"boundObjectRef", Object{{"apiVersion", "v1"}, {"kind", "Pod"}, {"name", spec.name}, {"uid", spec.uid}}}};
  if (!audience.empty()) request_spec["audiences"] = kube::Array{boost::json::value(audience)};
  const Object request{
      {"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"spec", std::move(request_spec)}};
  auto r = parts_.client.create_sub(kube::kServiceAccounts, spec.ns, account, "token", request);
  // An API server without tokens: pods that only mount one by default must run all the same.
  if (!r && (r.error().code == 404 || r.error().code == 405)) return std::optional<std::string>();
  if (!r) return propagate(r, "token of service account {}", account);
  const std::string text(kube::str(**r, {"status", "token"}));
  std::lock_guard l(mu_);
  tokens_[key] = {text, now + std::chrono::seconds(seconds * 4 / 5)};
  return std::optional(text);
}

}  // namespace hawser::agent
