// SPDX-License-Identifier: Apache-2.0
// hawser-cri-limit N: what N pods cost this host's containerd with nothing above it. Runs N sandboxes with one
// container each through CRI, eight at a time, then stops and removes them; prints "seconds_up seconds_down". The
// `limit` of the bench `pods`. Runs inside a lab host.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/agent/cri_client.h"
#include "lib/base/clock.h"

using namespace hawser;

namespace {

constexpr int kParallel = 8;

// Runs f(0) .. f(n-1) on kParallel threads; ends the program at the first error.
void for_each(int n, const std::function<Result<>(int)>& f) {
  std::atomic<int> next = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kParallel; t++)
    threads.emplace_back([&] {
      for (int i; (i = next++) < n;)
        if (auto r = f(i); !r) {
          fprintf(stderr, "hawser-cri-limit: %s\n", r.error().text.c_str());
          std::exit(1);
        }
    });
}

double seconds_since(MonoTime start) {
  return std::chrono::duration<double>(system_clock().now() - start).count();
}

agent::SandboxConfig sandbox_config(int i) {
  agent::SandboxConfig c;
  c.name = c.hostname = "limit-" + std::to_string(i);
  c.ns = "limit";
  c.uid = "limit-uid-" + std::to_string(i);
  c.log_directory = "/run/hawser-cri-limit/" + c.name;
  c.cgroup_parent = "/limit";
  // Not the labels of a pod: the node's agent would take these for pods that the API has deleted, and end them.
  c.labels = {{"app", "hawser-cri-limit"}};
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  int n = argc == 2 ? std::atoi(argv[1]) : 0;
  if (n < 1) {
    fprintf(stderr, "usage: hawser-cri-limit N\n");
    return 2;
  }
  agent::CriClient cri("unix:///run/containerd/containerd.sock");
  std::vector<std::string> sandboxes(static_cast<size_t>(n));
  auto start = system_clock().now();
  for_each(n, [&](int i) -> Result<> {
    auto config = sandbox_config(i);
    std::filesystem::create_directories(config.log_directory);
    auto sandbox = cri.run_sandbox(config);
    if (!sandbox) return propagate(sandbox, "sandbox {}", i);
    sandboxes[static_cast<size_t>(i)] = *sandbox;
    agent::ContainerConfig container;
    container.name = "main";
    container.image = "localhost/hawser-echo:1";
    container.log_path = "main.log";
    container.labels = config.labels;
    auto id = cri.create_container(*sandbox, container, config);
    if (!id) return propagate(id, "container {}", i);
    return cri.start_container(*id);
  });
  double up = seconds_since(start);
  start = system_clock().now();
  for_each(n, [&](int i) -> Result<> {
    const auto& id = sandboxes[static_cast<size_t>(i)];
    if (auto r = cri.stop_sandbox(id); !r) return r;
    return cri.remove_sandbox(id);
  });
  printf("%.3f %.3f\n", up, seconds_since(start));
  std::filesystem::remove_all("/run/hawser-cri-limit");
  return 0;
}
