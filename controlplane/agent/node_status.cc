// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/node_status.h"

#include <algorithm>
#include <charconv>

#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "lib/base/atomic_file.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using kube::Array;
using kube::Object;

constexpr std::int64_t kMemoryFloorBytes = 100 << 20;  // the kubelet's hard eviction thresholds
constexpr double kDiskFloor = 0.10;
constexpr double kInodeFloor = 0.05;
constexpr std::size_t kMaxImages = 50;
constexpr std::size_t kMaxNamesPerImage = 5;

std::string first_line(const std::string& path) {
  auto text = read_file(path);
  if (!text) return "";
  return text->substr(0, text->find('\n'));
}

std::int64_t number_after(std::string_view text, std::string_view key) {
  auto pos = text.find(key);
  if (pos == std::string_view::npos) return 0;
  pos += key.size();
  while (pos < text.size() && (text[pos] == ' ' || text[pos] == '\t')) ++pos;
  std::int64_t v = 0;
  std::from_chars(text.data() + pos, text.data() + text.size(), v);
  return v;
}

std::string os_image() {
  const auto text = read_file("/etc/os-release").value_or("");
  constexpr std::string_view kKey = "PRETTY_NAME=";
  const auto pos = text.find(kKey);
  if (pos == std::string::npos) return "Linux";
  auto line = text.substr(pos + kKey.size(), text.find('\n', pos) - pos - kKey.size());
  std::erase(line, '"');
  return line;
}

std::string go_arch(std::string_view machine) {
  if (machine == "x86_64") return "amd64";
  if (machine == "aarch64") return "arm64";
  return std::string(machine);
}

std::int64_t memory_total() {
  const auto meminfo = read_file("/proc/meminfo").value_or("");
  std::int64_t total = number_after(meminfo, "MemTotal:") * 1024;
  // The limit of this node's own cgroup, where it has one.
  for (const char* path : {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"}) {
    const auto limit = number_after(first_line(path), "");
    if (limit > 0) total = std::min(total, limit);
  }
  return total;
}

Object condition(std::string_view type, bool on, std::string_view reason, std::string_view message) {
  return {{"type", type}, {"status", on ? "True" : "False"}, {"reason", reason}, {"message", message}};
}

Object amounts(const NodeSettings& node, const MachineFacts& m, std::int64_t memory) {
  const auto cpu = m.milli_cpu % 1000 == 0 ? std::to_string(m.milli_cpu / 1000) : fmt::format("{}m", m.milli_cpu);
  return {{"cpu", cpu},
          {"memory", fmt::format("{}Ki", memory / 1024)},
          {"ephemeral-storage", fmt::format("{}Ki", m.disk_bytes / 1024)},
          {"pods", std::to_string(node.max_pods)}};
}

Array image_list(std::vector<Image> images) {
  std::ranges::sort(images, [](const Image& a, const Image& b) { return a.size_bytes > b.size_bytes; });
  if (images.size() > kMaxImages) images.resize(kMaxImages);
  Array out;
  for (const auto& i : images) {
    Array names;
    for (const auto* list : {&i.digests, &i.tags})
      for (const auto& n : *list)
        if (names.size() < kMaxNamesPerImage) names.emplace_back(n);
    if (names.empty()) continue;
    out.push_back(Object{{"names", std::move(names)}, {"sizeBytes", static_cast<std::int64_t>(i.size_bytes)}});
  }
  return out;
}

}  // namespace

MachineFacts read_machine(const std::string& root_dir) {
  MachineFacts m;
  cpu_set_t set;
  CPU_ZERO(&set);
  m.milli_cpu = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) * 1000 : 1000;
  m.memory_bytes = memory_total();
  struct statvfs fs {};
  if (::statvfs(root_dir.c_str(), &fs) == 0) m.disk_bytes = static_cast<std::int64_t>(fs.f_blocks * fs.f_frsize);
  m.machine_id = first_line("/etc/machine-id");
  m.system_uuid = first_line("/sys/class/dmi/id/product_uuid");
  if (m.system_uuid.empty()) m.system_uuid = m.machine_id;
  m.boot_id = first_line("/proc/sys/kernel/random/boot_id");
  utsname u{};
  if (::uname(&u) == 0) {
    m.kernel = u.release;
    m.architecture = go_arch(u.machine);
  }
  m.os_image = os_image();
  return m;
}

Pressure read_pressure(const std::string& root_dir) {
  Pressure p;
  const auto meminfo = read_file("/proc/meminfo").value_or("");
  const auto available = number_after(meminfo, "MemAvailable:") * 1024;
  p.memory = available > 0 && available < kMemoryFloorBytes;
  struct statvfs fs {};
  if (::statvfs(root_dir.c_str(), &fs) == 0 && fs.f_blocks > 0) {
    p.disk = static_cast<double>(fs.f_bavail) / static_cast<double>(fs.f_blocks) < kDiskFloor;
    if (fs.f_files > 0) p.disk |= static_cast<double>(fs.f_favail) / static_cast<double>(fs.f_files) < kInodeFloor;
  }
  // loadavg's fourth field is running/total tasks.
  const auto load = first_line("/proc/loadavg");
  const auto limit = number_after(first_line("/proc/sys/kernel/pid_max"), "");
  if (const auto slash = load.find('/'); slash != std::string::npos && limit > 0)
    p.pids = number_after(std::string_view(load).substr(slash + 1), "") > limit * 9 / 10;
  return p;
}

bool node_ready(const NodeInputs& in) {
  return in.runtime_error.empty() && in.runtime.runtime_ready && in.runtime.network_ready;
}

Object node_labels(const NodeSettings& node, const MachineFacts& m) {
  return {{"kubernetes.io/hostname", node.node_name},
          {"kubernetes.io/os", "linux"},
          {"kubernetes.io/arch", m.architecture},
          {"beta.kubernetes.io/os", "linux"},
          {"beta.kubernetes.io/arch", m.architecture}};
}

Object node_object(const NodeSettings& node, const MachineFacts& m) {
  return {{"apiVersion", "v1"},
          {"kind", "Node"},
          {"metadata", Object{{"name", node.node_name}, {"labels", node_labels(node, m)}}}};
}

Object node_status(const NodeSettings& node, const NodeInputs& in) {
  const MachineFacts& m = in.machine;
  Array conditions;
  conditions.push_back(in.pressure.memory ? condition("MemoryPressure", true, "KubeletHasInsufficientMemory",
                                                      "kubelet has insufficient memory available")
                                          : condition("MemoryPressure", false, "KubeletHasSufficientMemory",
                                                      "kubelet has sufficient memory available"));
  conditions.push_back(
      in.pressure.disk ? condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure")
                       : condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"));
  conditions.push_back(
      in.pressure.pids
          ? condition("PIDPressure", true, "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
          : condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"));
  std::string why = in.runtime_error;
  if (why.empty() && !in.runtime.message.empty()) why = in.runtime.message;
  if (!in.runtime_error.empty())
    why = "container runtime is down: " + why;
  else if (!in.runtime.network_ready)
    why = "container runtime network not ready: " + why;
  conditions.push_back(node_ready(in) ? condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
                                      : condition("Ready", false, "KubeletNotReady", why));
  Object out;
  out["capacity"] = amounts(node, m, m.memory_bytes);
  out["allocatable"] = amounts(node, m, std::max<std::int64_t>(0, m.memory_bytes - kMemoryFloorBytes));
  out["conditions"] = std::move(conditions);
  out["addresses"] = Array{Object{{"type", "InternalIP"}, {"address", node.node_ip}},
                           Object{{"type", "Hostname"}, {"address", node.node_name}}};
  out["daemonEndpoints"] = Object{{"kubeletEndpoint", Object{{"Port", node.port}}}};
  out["nodeInfo"] =
      Object{{"machineID", m.machine_id},
             {"systemUUID", m.system_uuid},
             {"bootID", m.boot_id},
             {"kernelVersion", m.kernel},
             {"osImage", m.os_image},
             {"containerRuntimeVersion",
              fmt::format("{}://{}", in.runtime.name.empty() ? "containerd" : in.runtime.name, in.runtime.version)},
             {"kubeletVersion", kKubeletVersion},
             {"kubeProxyVersion", kKubeletVersion},
             {"operatingSystem", "linux"},
             {"architecture", m.architecture}};
  out["images"] = image_list(in.images);
  return out;
}

void stamp_conditions(Object& status, const Object& before, WallTime now) {
  const std::string stamp = rfc3339(now);
  auto* list = status.if_contains("conditions");
  if (!list || !list->is_array()) return;
  for (auto& v : list->get_array()) {
    Object& c = v.get_object();
    std::string since = stamp;
    for (const auto& o : kube::arr(before, {"conditions"})) {
      const Object& old = kube::as_obj(o);
      if (kube::str(old, {"type"}) == kube::str(c, {"type"}) &&
          kube::str(old, {"status"}) == kube::str(c, {"status"}) && !kube::str(old, {"lastTransitionTime"}).empty())
        since = kube::str(old, {"lastTransitionTime"});
    }
    c["lastHeartbeatTime"] = stamp;
    c["lastTransitionTime"] = since;
  }
}

}  // namespace hawser::agent
