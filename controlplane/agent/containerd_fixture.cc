// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/containerd_fixture.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/testing/netns_fixture.h"

namespace hawser::agent::testing {
namespace {

namespace fs = std::filesystem;

void must(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::_Exit(2);
}

pid_t spawn(const std::vector<std::string>& argv, const std::string& log) {
  const pid_t pid = ::fork();
  must(pid >= 0, "fork");
  if (pid > 0) return pid;
  const int fd = ::open(log.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0644);
  ::dup2(fd, 1);
  ::dup2(fd, 2);
  std::vector<char*> args;
  for (const auto& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  ::execvp(args[0], args.data());
  std::_Exit(127);
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void remove_cgroup_tree(const fs::path& dir) {
  std::error_code ec;
  for (fs::directory_iterator it(dir, ec), end; !ec && it != end; it.increment(ec))
    if (it->is_directory(ec)) remove_cgroup_tree(it->path());
  ::rmdir(dir.c_str());
}

void isolate_mounts() {
  must(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "make / private");
  must(::mount("proc", "/proc", "proc", 0, nullptr) == 0, "mount /proc");
  // Shim sockets and network namespaces live under /run, whatever containerd's own folders are.
  must(::mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") == 0, "mount /run");
  must(::mount("none", "/", nullptr, MS_REC | MS_SHARED, nullptr) == 0, "make / shared");
}

}  // namespace

std::string why_no_containerd() {
  if (::geteuid() != 0) return "needs root";
  std::string why;
  if (!hawser::testing::can_make_netns(why)) return why;
  for (const char* program : {"/usr/bin/containerd", "/usr/bin/ctr", "/usr/sbin/runc", "/usr/lib/cni/bridge"})
    if (::access(program, X_OK) != 0) return std::string(program) + " is missing";
  return "";
}

int in_new_namespaces(const std::string& cgroup_parent, int (*body)()) {
  must(::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID) == 0, "unshare");
  const pid_t pid = ::fork();
  must(pid >= 0, "fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    isolate_mounts();
    must(hawser::testing::loopback_up().has_value(), "lo");
    const int rc = body();
    std::fflush(nullptr);
    std::_Exit(rc);
  }
  const int rc = wait_for(pid);
  std::error_code ec;
  for (fs::directory_iterator it("/sys/fs/cgroup", ec), end; !ec && it != end; it.increment(ec))
    remove_cgroup_tree(it->path().string() + cgroup_parent);
  return rc;
}

bool eventually(const std::function<bool()>& fn, std::chrono::seconds timeout) {
  Clock& clock = system_clock();
  const MonoTime end = clock.now() + timeout;
  std::mutex m;
  std::condition_variable cv;
  std::unique_lock l(m);
  while (!fn()) {
    if (clock.now() >= end) return fn();
    clock.wait_until(l, cv, clock.now() + std::chrono::milliseconds(10), [] { return false; });
  }
  return true;
}

Containerd::Containerd(std::string folder, const std::string& pause_tar, const std::string& test_tar, CniFolders cni)
    : folder_(std::move(folder)), cni_(std::move(cni)) {
  for (const char* sub : {"/root", "/run", "/cni", "/logs", "/agent"}) fs::create_directories(folder_ + sub);
  if (cni_.conf_dir.empty()) {
    cni_.conf_dir = folder_ + "/cni";
    set_network(true);
  }
  write_config();
  start();
  for (const auto& tar : {pause_tar, test_tar}) {
    const pid_t pid = spawn({"ctr", "-a", folder_ + "/run/containerd.sock", "-n", "k8s.io", "images", "import", tar},
                            folder_ + "/ctr.log");
    must(wait_for(pid) == 0, "ctr import");
  }
}

Containerd::~Containerd() {
  kill();
}

void Containerd::write_config() {
  std::ofstream(folder_ + "/config.toml") << fmt::format(R"(version = 2
root = "{0}/root"
state = "{0}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{0}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/hawser-pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{1}"
    conf_dir = "{2}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
)",
                                                         folder_, cni_.bin_dir, cni_.conf_dir);
}

void Containerd::set_network(bool working) {
  // containerd watches the folder: it takes note of the rename only if it is from a name in the same folder.
  std::ofstream(folder_ + "/cni/.tmp") << fmt::format(
      R"({{"cniVersion": "0.4.0", "name": "test", "plugins": [{{"type": "{}", "bridge": "cni0",
 "isGateway": true, "ipam": {{"type": "host-local", "dataDir": "/run/cni", "subnet": "10.99.0.0/24", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}})",
      working ? "bridge" : "no-such-plugin");
  fs::rename(folder_ + "/cni/.tmp", folder_ + "/cni/10-test.conflist");
}

void Containerd::start() {
  pid_ = spawn({"containerd", "--config", folder_ + "/config.toml"}, folder_ + "/containerd.log");
  wait_until_up();
}

void Containerd::wait_until_up() {
  CriClient client(endpoint());
  const bool up = eventually(
      [&] {
        auto s = client.state();
        return s && s->runtime_ready && s->network_ready;
      },
      std::chrono::seconds(30));
  must(up, "containerd did not come up");
}

void Containerd::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  wait_for(std::exchange(pid_, -1));
}

}  // namespace hawser::agent::testing
