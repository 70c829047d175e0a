// SPDX-License-Identifier: Apache-2.0
// PodPool: all pods of this node. It runs each pod's worker on a bounded pool of threads, one tick of a pod at a time,
// when something about it changed or its own time came; and it compares what the runtime has with what the workers
// know. Any thread.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/agent/executor.h"
#include "controlplane/agent/pod_worker.h"

namespace hawser::agent {

class PodPool {
 public:
  // `threads`: how many runtime operations at once. More than the runtime can use only makes them wait in it.
  PodPool(PodContext& context, int threads);
  ~PodPool();
  PodPool(const PodPool&) = delete;
  PodPool& operator=(const PodPool&) = delete;

  void set_pod(PodSpecPtr spec);            // new or changed
  void remove_pod(const std::string& uid);  // its API object is gone
  void wake(const std::string& uid);
  // A process of the runtime ended.
  void on_exit(const std::string& container_id);
  // Reads everything from the runtime; pods that differ from what their workers know are looked at. With
  // `take_orphans`, pods that only the runtime knows are taken down.
  Result<> relist(bool take_orphans);
  // Volumes that follow ConfigMaps, Secrets and the pod's own fields.
  void refresh_volumes();

  [[nodiscard]] std::vector<std::shared_ptr<const PodView>> views() const;
  [[nodiscard]] std::shared_ptr<const PodView> view(const std::string& ns, const std::string& name) const;
  [[nodiscard]] std::set<std::string> uids() const;
  void stop();

 private:
  struct Slot {
    std::shared_ptr<PodWorker> worker;
    bool queued = false, running = false, again = false;
    std::optional<MonoTime> wake;  // not by the wall clock, which may be set
  };
  void enqueue(const std::string& uid, Slot& slot);  // mu_ held
  void run(const std::string& uid);
  void timer_loop();

  PodContext& ctx_;
  Executor executor_;
  mutable std::mutex mu_;
  std::condition_variable cv_;
  std::map<std::string, Slot> slots_;  // guarded by mu_; by pod uid
  bool timer_changed_ = false;         // guarded by mu_
  bool stopping_ = false;              // guarded by mu_
  std::thread timer_;
};

}  // namespace hawser::agent
