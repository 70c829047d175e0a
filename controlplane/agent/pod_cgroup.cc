// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_cgroup.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
constexpr const char* kClasses[] = {"Guaranteed", "Burstable", "BestEffort"};

std::vector<std::string> folders_in(const std::string& dir) {
  std::vector<std::string> out;
  std::error_code ec;
  for (fs::directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec))
    if (it->is_directory(ec) && !it->is_symlink(ec)) out.push_back(it->path().string());
  return out;
}

// The unified tree itself, and the hierarchies mounted below it.
std::vector<std::string> roots(const NodeSettings& node) {
  std::vector<std::string> out = folders_in(node.cgroup_root);
  out.push_back(node.cgroup_root);
  return out;
}

// True if there was a process to kill. One of another process namespace reads 0.
bool kill_processes(const std::string& dir) {
  std::ifstream procs(dir + "/cgroup.procs");
  bool any = false;
  for (pid_t pid = 0; procs >> pid;) any |= pid > 1 && ::kill(pid, SIGKILL) == 0;
  return any;
}

// The files of a cgroup go with it, so only folders are removed, the lowest first.
void remove_tree(const std::string& dir) {
  constexpr int kTries = 50;
  constexpr std::chrono::milliseconds kEnd{2};  // a killed process leaves its cgroup when it has ended
  for (const auto& below : folders_in(dir)) remove_tree(below);
  for (int i = 0; i < kTries && ::rmdir(dir.c_str()) != 0 && errno == EBUSY && kill_processes(dir); ++i)
    std::this_thread::sleep_for(kEnd);
}

}  // namespace

std::string pod_cgroup(const NodeSettings& node, std::string_view uid, std::string_view qos) {
  std::string parent = node.cgroup_parent.empty() ? "kubepods" : node.cgroup_parent;
  if (!parent.starts_with('/')) parent.insert(0, "/");
  while (parent.size() > 1 && parent.ends_with('/')) parent.pop_back();
  const std::string_view level = qos == "Guaranteed" ? "" : qos == "Burstable" ? "/burstable" : "/besteffort";
  return fmt::format("{}{}/pod{}", parent, level, uid);
}

void remove_pod_cgroups(const NodeSettings& node, std::string_view uid) {
  for (const auto& root : roots(node))
    for (const char* qos : kClasses) remove_tree(root + pod_cgroup(node, uid, qos));
}

std::set<std::string> pods_with_cgroups(const NodeSettings& node) {
  std::set<std::string> out;
  for (const auto& root : roots(node)) {
    for (const char* qos : kClasses) {
      // The cgroup of a pod without a uid ends as every pod's begins.
      const fs::path prefix = root + pod_cgroup(node, "", qos);
      for (const auto& dir : folders_in(prefix.parent_path())) {
        const auto name = fs::path(dir).filename().string();
        if (name.starts_with("pod") && name.size() > 3) out.insert(name.substr(3));
      }
    }
  }
  return out;
}

}  // namespace hawser::agent
