// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/overlayd_process.h"

#include <csignal>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"

namespace hawser::testing {

OverlaydProcess::OverlaydProcess(std::string program, std::string folder, int leak_grace_seconds)
    : program_(std::move(program)), folder_(std::move(folder)), leak_grace_seconds_(leak_grace_seconds) {}

const char* OverlaydProcess::underlay_command() {
  return "ip link add eth0 type veth peer name wire && ip addr add 192.0.2.11/24 dev eth0 && "
         "ip addr add 2001:db8::11/64 dev eth0 nodad && ip link set eth0 up && ip link set wire up && "
         "ip route add default via 192.0.2.1";
}

void OverlaydProcess::start() {
  const auto leases = folder_ + "/leases.json";
  (void)write_file(leases, R"({"nodes":[
{"name":"node-1","podCIDRs":["10.244.0.0/21","fd00:1::/64"],"publicIP":"192.0.2.11","publicIPv6":"2001:db8::11"},
{"name":"node-2","podCIDRs":["10.244.8.0/21","fd00:2::/64"],"publicIP":"192.0.2.12","publicIPv6":"2001:db8::12"}]})");
  std::vector<std::string> args{program_,
                                "--subnets-file=" + leases,
                                "--node-name=node-1",
                                "--iface=eth0",
                                "--cluster-cidr=10.244.0.0/16,fd00::/16",
                                "--run-dir=" + folder_,
                                "--cni-conf-dir=" + folder_ + "/net.d",
                                "--probe-seconds=0",
                                "--leak-grace-seconds=" + std::to_string(leak_grace_seconds_),
                                "--healthz-bind",
                                ""};
  std::vector<char*> argv;
  for (auto& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  const auto log = folder_ + "/overlayd.log";
  pid_ = fork();
  if (pid_ != 0) return;
  const int out = open(log.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0600);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

void OverlaydProcess::kill() {
  const pid_t pid = std::exchange(pid_, -1);
  if (pid <= 0) return;
  ::kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

bool OverlaydProcess::wait_until_up() const {
  for (int i = 0; i < 4000; i++) {
    if (access((folder_ + "/net.d/10-hawser.conflist").c_str(), F_OK) == 0) return true;
    usleep(5'000);
  }
  return false;
}

std::string OverlaydProcess::log() const {
  return read_file(folder_ + "/overlayd.log").value_or("");
}

}  // namespace hawser::testing
