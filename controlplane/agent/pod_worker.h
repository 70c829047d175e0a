// SPDX-License-Identifier: Apache-2.0
// PodWorker: carries out one pod. tick() reads what the runtime has (only when something may have changed), steps the
// state machine, performs its actions and publishes the status, until nothing is left to do now.
//
// tick() runs on one thread at a time (PodPool sees to that) and blocks in runtime calls; what may take long (stopping
// with a grace period, pulling) goes to the slow executor and comes back through a small inbox. update(),
// mark_removed(), mark_stale() and view() are safe from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/agent/check_runner.h"
#include "controlplane/agent/cri.h"
#include "controlplane/agent/executor.h"
#include "controlplane/agent/image_cache.h"
#include "controlplane/agent/node_settings.h"
#include "controlplane/agent/pod_config.h"
#include "controlplane/agent/pod_machine.h"
#include "controlplane/agent/pod_volumes.h"
#include "controlplane/agent/prober.h"

namespace hawser::agent {

struct PodEvent {
  bool warning = false;
  std::string reason, message;
  std::string container;  // empty: the pod itself
};

// Where status and the end of a pod are written.
class StatusSink {
 public:
  virtual ~StatusSink() = default;
  // Writes the newest status soon; `urgent`: at once, else a short while later so that quick successions become one
  // write.
  virtual void publish(const PodSpecPtr& spec, kube::Object status, bool urgent) = 0;
  // Writes what is pending, then deletes the API object for good.
  virtual void finish(const PodSpecPtr& spec) = 0;
};

// What every worker uses; owned by the agent, which outlives the workers.
struct PodContext {
  CriRuntime& runtime;
  ImageCache& images;
  const NodeSettings& node;
  Prober& prober;
  CheckRunner& checks;
  Executor& slow;
  StatusSink& status;
  Clock& clock;
  std::function<void(const std::string& uid)> wake;  // tick that pod again
  std::function<void(const PodSpec&, const PodEvent&)> event;
  // A ConfigMap or Secret as it was at most `max_age` ago.
  std::function<Result<kube::ObjectPtr>(const kube::Resource&, const std::string& ns, const std::string& name,
                                        Nanos max_age)>
      lookup;
  std::function<StringMap(const PodSpec&)> service_env;
  std::function<Result<std::optional<std::string>>(const PodSpec&, const std::string& audience, std::int64_t seconds)>
      token;
  std::function<DnsConfig()> node_dns;
};

// What others may see of a pod; immutable.
struct PodView {
  PodSpecPtr spec;
  std::vector<Sandbox> sandboxes;
  std::vector<Container> containers;
  kube::Object status;
};

class PodWorker : public std::enable_shared_from_this<PodWorker> {
 public:
  // `orphan`: the runtime has it, the API does not; it is taken down.
  PodWorker(PodContext& context, PodSpecPtr spec, bool orphan);

  void update(PodSpecPtr spec);
  void mark_removed();
  // The runtime may have changed something: read it back at the next tick.
  void mark_stale() { stale_ = true; }
  // The runtime said that this container (or sandbox) ended; its lists may say so a little later only, so it is looked
  // for.
  void expect_exit(const std::string& id);
  // Rewrite the volumes that follow API objects at the next tick.
  void mark_refresh() { refresh_ = true; }
  [[nodiscard]] PodSpecPtr spec() const;
  [[nodiscard]] std::shared_ptr<const PodView> view() const;
  [[nodiscard]] bool done() const { return done_; }

  // Returns when to tick again if nothing happens before.
  std::optional<WallTime> tick();

 private:
  void refresh_payloads();
  void take_inbox();
  Result<> read_back();
  void read_termination_message(Container& c);
  void sync_probes();
  void age_holds(std::optional<WallTime>& wake);
  bool runs(const std::string& id);
  std::optional<WallTime> look_for_exits();
  void publish(const Plan& plan);
  void publish_view();

  // True: done, step again. False: failed (a hold says until when) or continues elsewhere.
  bool perform(const Action& a);
  bool prepare();
  bool run_sandbox(std::uint32_t attempt);
  bool start_container(const Action& a);
  std::optional<Image> ensure_image(const ContainerSpec& c, const std::string& ref, std::uint32_t attempt);
  void pull(const ContainerSpec& c, const std::string& ref, std::uint32_t attempt);
  bool create_and_start(const ContainerSpec& c, ContainerConfig config, const std::string& ref);
  void started(const ContainerSpec& c, const std::string& id);
  bool stop_container(const Action& a);
  bool stop_sandbox(const std::string& id);
  bool remove_sandbox(const std::string& id);
  bool remove_container(const std::string& id);
  bool clean_up();

  void hold(const std::string& name, std::string reason, std::string message, std::chrono::milliseconds most);
  void event(bool warning, std::string reason, std::string message, const std::string& container = {});
  void post(std::function<void()> change);  // from the slow executor: applied by the next tick
  Container* find(const std::string& container_id);
  [[nodiscard]] PayloadInputs payload_inputs(Nanos max_age) const;
  [[nodiscard]] ObjectLookup lookup(Nanos max_age) const;
  [[nodiscard]] std::vector<std::string> pod_ips() const;

  PodContext& ctx_;
  std::atomic<bool> stale_{true};
  std::atomic<bool> refresh_{false};
  std::atomic<bool> done_{false};

  mutable std::mutex mu_;
  PodSpecPtr next_spec_;                      // guarded by mu_
  bool removed_ = false;                      // guarded by mu_
  bool overruled_ = false;                    // guarded by mu_; somebody else wrote that the pod is not Ready
  std::vector<std::function<void()>> inbox_;  // guarded by mu_
  std::shared_ptr<const PodView> view_;       // guarded by mu_

  // tick() only
  PodSpecPtr spec_;
  PodState state_;
  std::map<std::string, std::uint32_t> pulled_;  // container name -> attempt its image was pulled for
  std::map<std::string, int> expected_exits_;    // id -> how often it was looked for
  kube::Object status_;                          // as last published
  WallTime start_time_{};
  bool adopted_ = false;  // the first read_back() has been made
  bool ending_ = false;   // its runtime objects are being removed: the status stays as it is
};

}  // namespace hawser::agent
