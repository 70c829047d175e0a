// SPDX-License-Identifier: Apache-2.0
// hawser-cni-bench PODS PARALLEL CONFIG BINARY: attaches and detaches pods as a runtime would, one process an
// operation, in a network namespace of its own. First PODS one after the other, then PARALLEL at once. Prints one JSON
// object: milliseconds of each sequential operation (medians are the reader's), of both parallel batches, and CPU
// milliseconds an operation. Orphans of an operation are waited for and counted with it, so that nothing is hidden in
// the background.
//
// BINARY `limit` is this program itself, doing nothing but the bare netlink messages of a routed attachment.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cni-plugin/attachment.h"
#include "lib/base/netns.h"
#include "lib/netlink/rtnl_kernel.h"

namespace {

using namespace hawser;
using Clock = std::chrono::steady_clock;

// The limit: what the kernel has to be told, and nothing else.
int bare(const std::string& verb, int pod, const std::string& netns) {
  auto node = netlink::KernelRtnl::open();
  if (!node) return 1;
  const auto name = "lim" + std::to_string(pod);
  if (verb == "DEL") {
    auto link = node->get_link(name);
    return link && node->delete_link(link->index) ? 0 : 1;
  }
  auto ns = NetNs::open(netns);
  if (!ns) return 1;
  auto inside = netlink::KernelRtnl::open(ns->fd());
  if (!inside) return 1;
  const auto address = IpAddr::v4(0x0af40002 + static_cast<std::uint32_t>(pod));
  return cni::attach(*node, *inside,
                     {.host_name = name, .ifname = "eth0", .netns_fd = ns->fd(), .mtu = 1450, .addresses = {address}})
             ? 0
             : 1;
}

struct Pod {
  NetNs ns;
  std::string path;
};

struct Subject {
  std::string self, binary, config;
  [[nodiscard]] bool limit() const { return binary == "limit"; }
};

pid_t start(const Subject& s, const char* verb, int pod, const Pod& p) {
  std::vector<std::string> env{std::string("CNI_COMMAND=") + verb,
                               "CNI_CONTAINERID=bench" + std::to_string(pod),
                               "CNI_NETNS=" + p.path,
                               "CNI_IFNAME=eth0",
                               "CNI_PATH=/usr/lib/cni",
                               "PATH=/usr/sbin:/usr/bin"};
  std::vector<std::string> args{s.limit() ? s.self : s.binary};
  if (s.limit()) args.insert(args.end(), {"bare", verb, std::to_string(pod), p.path});
  std::vector<char*> envp, argv;
  for (auto& e : env) envp.push_back(e.data());
  for (auto& a : args) argv.push_back(a.data());
  envp.push_back(nullptr);
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, s.config.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int err = posix_spawn(&pid, args[0].c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  return err == 0 ? pid : -1;
}

// True if it ended well.
bool end_of(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
void wait_for_orphans() {
  while (wait(nullptr) > 0 || errno == EINTR) {
  }
}

double cpu_ms() {
  rusage u{};
  getrusage(RUSAGE_CHILDREN, &u);
  auto ms = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3; };
  return ms(u.ru_utime) + ms(u.ru_stime);
}
double ms_since(Clock::time_point t) {
  return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}

bool one_by_one(const Subject& s, const char* verb, const std::vector<Pod>& pods, std::size_t n) {
  std::printf("\"%s_ms\":[", verb);
  const double before = cpu_ms();
  for (std::size_t i = 0; i < n; i++) {
    const auto begin = Clock::now();
    if (!end_of(start(s, verb, static_cast<int>(i), pods[i]))) return false;
    std::printf("%s%.3f", i ? "," : "", ms_since(begin));
    wait_for_orphans();
  }
  std::printf("],\"%s_cpu_ms\":%.3f,", verb, (cpu_ms() - before) / static_cast<double>(n));
  return true;
}

bool at_once(const Subject& s, const char* verb, const std::vector<Pod>& pods, const char* end) {
  std::vector<pid_t> pids;
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < pods.size(); i++) pids.push_back(start(s, verb, static_cast<int>(i), pods[i]));
  bool good = true;
  for (pid_t pid : pids) good &= end_of(pid);
  std::printf("\"%s_parallel_ms\":%.3f%s", verb, ms_since(begin), end);
  wait_for_orphans();
  return good;
}

int measure(const Subject& s, std::size_t sequential, std::size_t parallel) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (unshare(CLONE_NEWNET) != 0) return std::perror("hawser-cni-bench: unshare"), 1;
  std::vector<Pod> pods;
  for (std::size_t i = 0; i < std::max(sequential, parallel); i++) {
    auto ns = NetNs::create();
    if (!ns) return 1;
    auto path = fmt::format("/proc/{}/fd/{}", getpid(), ns->fd());
    pods.push_back({std::move(*ns), std::move(path)});
  }
  std::printf("{");
  bool good = one_by_one(s, "ADD", pods, sequential) && one_by_one(s, "DEL", pods, sequential);
  if (good && parallel != 0) {
    pods.erase(pods.begin() + static_cast<std::ptrdiff_t>(parallel), pods.end());
    good = at_once(s, "ADD", pods, ",") && at_once(s, "DEL", pods, "");
  }
  std::printf("}\n");
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "bare") return bare(argv[2], std::atoi(argv[3]), argv[4]);
  if (argc != 5) {
    std::fprintf(stderr, "usage: hawser-cni-bench PODS PARALLEL CONFIG BINARY|limit\n");
    return 2;
  }
  return measure({.self = "/proc/self/exe", .binary = argv[4], .config = argv[3]},
                 static_cast<std::size_t>(std::atoi(argv[1])), static_cast<std::size_t>(std::atoi(argv[2])));
}
