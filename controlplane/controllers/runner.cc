// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/runner.h"

#include <array>
#include <atomic>
#include <thread>

#include "controlplane/controllers/controllers.h"
#include "lib/base/log.h"

namespace hawser::controllers {
namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Controller> (*make)(Context&);
};
// Handlers of one cache run in this order: what makes endpoints right comes first.
constexpr std::array kControllers{
    Entry{"endpointslice", make_endpoint_slice_controller},
    Entry{"replicaset", make_replica_set_controller},
    Entry{"deployment", make_deployment_controller},
    Entry{"endpoints", make_endpoints_controller},
    Entry{"endpointslicemirroring", make_slice_mirror_controller},
    Entry{"nodeipam", make_node_ipam_controller},
    Entry{"nodelifecycle", make_node_lifecycle_controller},
    Entry{"taint-eviction", make_eviction_controller},
    Entry{"namespace-bootstrap", make_namespace_bootstrap_controller},
    Entry{"namespace", make_namespace_deletion_controller},
    Entry{"garbagecollector", make_garbage_collector},
    Entry{"podgc", make_pod_gc_controller},
};

constexpr std::size_t kHelpers = 15;
constexpr Nanos kSyncCheck = std::chrono::milliseconds(100);

}  // namespace

struct Runner::Impl {
  Impl(kube::Client& c, Options o)
      : options(std::move(o)),
        client(c),
        caches(client, *options.clock),
        parallel(kHelpers),
        events(client, "hawser-controllers", "", *options.clock),
        ctx{client, *options.clock, options, caches, parallel, events} {
    for (const Entry& e : kControllers) controllers.push_back(e.make(ctx));
    for (const auto& controller : controllers) controller->watch();
  }

  // Nothing is decided before everything is known: half a list would look like missing objects.
  void begin(const std::stop_token& stop) {
    for (const auto& cache : caches.all())
      while (!cache->wait_synced(kSyncCheck))
        if (stop.stop_requested()) return;
    for (const auto& controller : controllers) {
      if (stop.stop_requested()) return;
      controller->start();
    }
    running = true;
    log::info("controllers: {} at work", controllers.size());
  }

  const Options options;
  kube::Client& client;
  Caches caches;
  Parallel parallel;
  kube::EventRecorder events;
  Context ctx;
  std::vector<std::unique_ptr<Controller>> controllers;
  std::atomic<bool> running{false};
  std::jthread starter;
};

Runner::Runner(kube::Client& client, Options options) : impl_(std::make_unique<Impl>(client, std::move(options))) {}

Runner::~Runner() {
  stop();
}

void Runner::start() {
  for (const auto& cache : impl_->caches.all()) cache->start();
  impl_->starter = std::jthread([impl = impl_.get()](const std::stop_token& stop) { impl->begin(stop); });
}

void Runner::stop() {
  impl_->starter.request_stop();
  if (impl_->starter.joinable()) impl_->starter.join();
  // Informers first: their handlers call into the controllers.
  for (const auto& cache : impl_->caches.all()) cache->stop();
  for (const auto& controller : impl_->controllers) controller->stop();
  impl_->running = false;
}

bool Runner::running() const {
  return impl_->running;
}

std::vector<std::string_view> Runner::names() {
  std::vector<std::string_view> out;
  for (const Entry& e : kControllers) out.push_back(e.name);
  return out;
}

}  // namespace hawser::controllers
