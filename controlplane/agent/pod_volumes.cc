// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/pod_volumes.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "lib/kube/object.h"
#include "lib/kube/quantity.h"

namespace hawser::agent {
namespace {

namespace fs = std::filesystem;
using kube::Object;

constexpr const char* kVolumeKinds[] = {"emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected"};

std::string_view name_of(const Object& volume) {
  return kube::str(volume, {"name"});
}

// The volume's type, "" for one that this agent does not know.
std::string_view kind_of(const Object& volume) {
  for (const char* k : kVolumeKinds)
    if (kube::find(volume, {k})) return k;
  return "";
}

std::string volume_dir(const NodeSettings& node, const PodSpec& spec, const Object& volume) {
  std::string kind(kind_of(volume));
  std::ranges::transform(kind, kind.begin(), [](unsigned char c) { return std::tolower(c); });
  if (kind == "emptydir") kind = "empty-dir";
  if (kind == "downwardapi") kind = "downward-api";
  return fmt::format("{}/volumes/kubernetes.io~{}/{}", node.pod_dir(spec.uid), kind, name_of(volume));
}

std::int64_t fs_group(const PodSpec& spec) {
  return kube::num(*spec.object, {"spec", "securityContext", "fsGroup"}, -1);
}

bool is_mount_point(const std::string& dir) {
  struct stat here {
  }, parent{};
  return ::stat(dir.c_str(), &here) == 0 && ::stat((dir + "/..").c_str(), &parent) == 0 && here.st_dev != parent.st_dev;
}

Result<> mount_tmpfs(const std::string& dir, const std::string& options) {
  if (auto r = make_folders(dir); !r) return r;
  if (is_mount_point(dir)) return {};
  if (::mount("tmpfs", dir.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
    return fail_errno(errno, "mount tmpfs on {}", dir);
  return {};
}

Result<> prepare_empty_dir(const PodSpec& spec, const Object& source, const std::string& dir) {
  if (auto r = make_folders(dir); !r) return r;
  if (kube::str(source, {"medium"}) == "Memory") {
    std::string options = "mode=0777";
    if (const auto limit = kube::str(source, {"sizeLimit"}); !limit.empty()) {
      auto bytes = kube::quantity_value(limit);
      if (!bytes) return propagate(bytes, "sizeLimit");
      if (*bytes > 0) options += fmt::format(",size={}", *bytes);
    }
    if (auto r = mount_tmpfs(dir, options); !r) return r;
  }
  const auto gid = fs_group(spec);
  if (gid >= 0 && ::chown(dir.c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(gid)) != 0)
    return fail_errno(errno, "chown {}", dir);
  if (::chmod(dir.c_str(), gid >= 0 ? 02777 : 0777) != 0) return fail_errno(errno, "chmod {}", dir);
  return {};
}

Result<> prepare_host_path(const Object& source) {
  const std::string path(kube::str(source, {"path"}));
  const auto type = kube::str(source, {"type"});
  std::error_code ec;
  const auto st = fs::status(path, ec);
  if (type == "DirectoryOrCreate") return make_folders(path);
  if (type == "FileOrCreate") {
    if (fs::is_regular_file(st)) return {};
    auto fd = UniqueFd::open(path.c_str(), O_CREAT | O_RDWR, 0644);
    return fd ? Result<>{} : propagate(fd);
  }
  const bool ok = type == "Directory"     ? fs::is_directory(st)
                  : type == "File"        ? fs::is_regular_file(st)
                  : type == "Socket"      ? fs::is_socket(st)
                  : type == "CharDevice"  ? fs::is_character_file(st)
                  : type == "BlockDevice" ? fs::is_block_file(st)
                                          : true;
  if (!ok) return fail(ENOENT, "hostPath type check failed: {} is not a {}", path, type);
  // Without a type the runtime makes a missing path a folder, as Docker did.
  if (type.empty() && !fs::exists(st)) return make_folders(path);
  return {};
}

Result<> prepare_one(const PodSpec& spec, const Object& volume, const NodeSettings& node, const PayloadInputs& in) {
  const auto kind = kind_of(volume);
  if (kind == "emptyDir")
    return prepare_empty_dir(spec, kube::obj(volume, {"emptyDir"}), volume_dir(node, spec, volume));
  if (kind == "hostPath") return prepare_host_path(kube::obj(volume, {"hostPath"}));
  if (kind.empty()) {
    for (const auto& [k, v] : volume)
      if (k != "name") return fail(ENOTSUP, "volume type {} is not supported by this agent", std::string_view(k));
    return prepare_empty_dir(spec, kube::empty_object(), volume_dir(node, spec, volume));
  }
  auto payload = payload_of(spec, volume, in);
  if (!payload) return propagate(payload);
  const std::string dir = volume_dir(node, spec, volume);
  // Secrets and tokens never reach the disk.
  if (kind == "secret" || kind == "projected")
    if (auto r = mount_tmpfs(dir, "mode=0755"); !r) return r;
  auto wrote = write_payload(dir, *payload, fs_group(spec));
  return wrote ? Result<>{} : propagate(wrote);
}

const Object* find_volume(const PodSpec& spec, std::string_view name) {
  for (const auto& v : kube::arr(*spec.object, {"spec", "volumes"}))
    if (name_of(kube::as_obj(v)) == name) return &kube::as_obj(v);
  return nullptr;
}

// A sub-path must stay inside its volume, symlinks included.
Result<std::string> sub_path(const std::string& volume_root, const std::string& sub) {
  for (const auto& part : fs::path(sub))
    if (part == ".." || fs::path(sub).is_absolute())
      return fail(EINVAL, "subPath {:?}: must be relative without \"..\"", sub);
  const fs::path full = fs::path(volume_root) / sub;
  std::error_code ec;
  if (!fs::exists(full, ec))
    if (auto r = make_folders(full.string()); !r) return propagate(r, "subPath {}", sub);
  const auto real = fs::canonical(full, ec).string();
  const auto root = fs::canonical(volume_root, ec).string();
  if (ec || (real != root && !real.starts_with(root + "/")))
    return fail(EINVAL, "subPath {:?}: leaves its volume", sub);
  return real;
}

Mount::Propagation propagation_of(const Object& m) {
  const auto text = kube::str(m, {"mountPropagation"});
  return text == "Bidirectional"     ? Mount::Propagation::kBidirectional
         : text == "HostToContainer" ? Mount::Propagation::kHostToContainer
                                     : Mount::Propagation::kPrivate;
}

Result<Mount> one_mount(const PodSpec& spec, const Object& m, const NodeSettings& node, const EnvList& env) {
  const auto name = kube::str(m, {"name"});
  const Object* volume = find_volume(spec, name);
  if (!volume) return fail(EINVAL, "volumeMount {:?}: the pod has no such volume", name);
  Mount out;
  out.container_path = kube::str(m, {"mountPath"});
  out.host_path = kind_of(*volume) == "hostPath" ? std::string(kube::str(*volume, {"hostPath", "path"}))
                                                 : volume_dir(node, spec, *volume);
  out.read_only = kube::flag(m, {"readOnly"}) || has_payload(*volume);
  out.propagation = propagation_of(m);
  std::string sub(kube::str(m, {"subPath"}));
  if (const auto expr = kube::str(m, {"subPathExpr"}); !expr.empty()) {
    sub = expand(expr, [&](std::string_view key) -> const std::string* {
      const auto it = std::ranges::find_if(env, [&](const auto& e) { return e.first == key; });
      return it == env.end() ? nullptr : &it->second;
    });
  }
  if (!sub.empty()) {
    auto path = sub_path(out.host_path, sub);
    if (!path) return propagate(path);
    out.host_path = *path;
  }
  return out;
}

}  // namespace

Result<> prepare_volumes(const PodSpec& spec, const NodeSettings& node, const PayloadInputs& in) {
  if (auto r = make_folders(node.pod_dir(spec.uid), 0750); !r) return r;
  for (const auto& v : kube::arr(*spec.object, {"spec", "volumes"})) {
    const Object& volume = kube::as_obj(v);
    if (auto r = prepare_one(spec, volume, node, in); !r)
      return propagate(r, "MountVolume.SetUp failed for volume \"{}\" ", name_of(volume));
  }
  return {};
}

bool has_payload_volumes(const PodSpec& spec) {
  return std::ranges::any_of(kube::arr(*spec.object, {"spec", "volumes"}),
                             [](const auto& v) { return has_payload(kube::as_obj(v)); });
}

Result<bool> refresh_volumes(const PodSpec& spec, const NodeSettings& node, const PayloadInputs& in) {
  bool changed = false;
  for (const auto& v : kube::arr(*spec.object, {"spec", "volumes"})) {
    const Object& volume = kube::as_obj(v);
    if (!has_payload(volume)) continue;
    auto payload = payload_of(spec, volume, in);
    if (!payload) return propagate(payload, "volume {}", name_of(volume));
    auto wrote = write_payload(volume_dir(node, spec, volume), *payload, fs_group(spec));
    if (!wrote) return propagate(wrote, "volume {}", name_of(volume));
    changed |= *wrote;
  }
  return changed;
}

Result<> remove_pod_dir(const NodeSettings& node, const std::string& uid) {
  const std::string dir = node.pod_dir(uid);
  if (uid.empty() || uid.find('/') != std::string::npos) return fail(EINVAL, "pod uid {:?}: not a folder name", uid);
  // Newest mounts first: they may lie on older ones. What cannot be unmounted must not be deleted through.
  std::vector<std::string> mounts;
  if (auto text = read_file("/proc/self/mountinfo")) {
    std::istringstream lines(*text);
    for (std::string line, skip, point; std::getline(lines, line);) {
      std::istringstream fields(line);
      fields >> skip >> skip >> skip >> skip >> point;
      if (point.starts_with(dir + "/")) mounts.push_back(point);
    }
  }
  std::ranges::reverse(mounts);
  for (const auto& m : mounts)
    if (::umount2(m.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL)
      return fail_errno(errno, "unmount {}", m);
  std::error_code ec;
  fs::remove_all(dir, ec);
  if (ec) return fail(ec.value(), "remove {}: {}", dir, ec.message());
  return {};
}

std::string termination_file(const NodeSettings& node, const std::string& uid, const std::string& container,
                             std::uint32_t attempt) {
  return fmt::format("{}/containers/{}/{}", node.pod_dir(uid), container, attempt);
}

Result<std::vector<Mount>> volume_mounts(const PodSpec& spec, const ContainerSpec& c, std::uint32_t attempt,
                                         const NodeSettings& node, const EnvList& env) {
  std::vector<Mount> out;
  bool own_hosts = false;
  for (const auto& v : kube::arr(*c.object, {"volumeMounts"})) {
    auto m = one_mount(spec, kube::as_obj(v), node, env);
    if (!m) return propagate(m);
    own_hosts |= m->container_path == "/etc/hosts";
    out.push_back(std::move(*m));
  }
  if (!own_hosts) out.push_back({.container_path = "/etc/hosts", .host_path = node.pod_dir(spec.uid) + "/etc-hosts"});
  const std::string message = termination_file(node, spec.uid, c.name, attempt);
  if (auto r = make_folders(fs::path(message).parent_path()); !r) return propagate(r);
  // Written by whatever user the container has.
  if (auto r = write_file(message, "", {.mode = 0666}); !r) return propagate(r);
  if (::chmod(message.c_str(), 0666) != 0) return fail_errno(errno, "chmod {}", message);
  out.push_back({.container_path = c.termination_path, .host_path = message});
  return out;
}

std::string hosts_text(const PodSpec& spec, const std::vector<std::string>& pod_ips, const std::string& node_hosts,
                       const std::string& domain) {
  std::string out = "# Kubernetes-managed hosts file";
  const Object& o = *spec.object;
  if (spec.host_network) {
    out += " (host network).\n" + node_hosts;
  } else {
    out +=
        ".\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost "
        "ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
    const auto hostname = kube::str(o, {"spec", "hostname"});
    const std::string name = hostname.empty() ? spec.name : std::string(hostname);
    const auto subdomain = kube::str(o, {"spec", "subdomain"});
    for (const auto& ip : pod_ips) {
      out += ip + "\t";
      if (!subdomain.empty()) out += fmt::format("{}.{}.{}.svc.{}\t", name, subdomain, spec.ns, domain);
      out += name + "\n";
    }
  }
  const auto& aliases = kube::arr(o, {"spec", "hostAliases"});
  if (!aliases.empty()) out += "\n# Entries added by HostAliases.\n";
  for (const auto& v : aliases) {
    out += kube::str(kube::as_obj(v), {"ip"});
    for (const auto& h : kube::arr(kube::as_obj(v), {"hostnames"}))
      if (h.is_string()) out += "\t" + std::string(h.get_string());
    out += "\n";
  }
  return out;
}

Result<> write_hosts(const PodSpec& spec, const NodeSettings& node, const std::vector<std::string>& pod_ips) {
  std::string own;
  if (spec.host_network) own = read_file(node.hosts_file).value_or("127.0.0.1\tlocalhost\n");
  const std::string path = node.pod_dir(spec.uid) + "/etc-hosts";
  auto r = write_file_if_changed(path, hosts_text(spec, pod_ips, own, node.cluster_domain));
  return r ? Result<>{} : propagate(r);
}

}  // namespace hawser::agent
