// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/host.h"

#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::testing {
namespace {

// A mistake here would change the machine's own network, so it ends the program.
void require_throw_away(const NetNs& ns) {
  auto own = NetNs::current();
  auto a = ns.inode();
  if (!own || !a || !own->inode() || *a == *own->inode()) std::abort();
}

}  // namespace

bool eventually(const std::function<bool()>& done, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::mutex mu;
  std::condition_variable cv;
  std::unique_lock l(mu);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    cv.wait_for(l, std::chrono::milliseconds(3));
  }
  return true;
}

Result<Host> Host::make() {
  auto ns = NetNs::create();
  if (!ns) return propagate(ns);
  require_throw_away(*ns);
  Host h(std::move(*ns));
  int status = 0;
  auto text = h.sh("ip link set lo up", &status);
  if (status != 0) return fail(EPERM, "ip link set lo up: {}", text);
  return h;
}

void Host::run(const std::function<void()>& fn) const {
  auto inside = NetNsGuard::enter(ns_);
  if (!inside) std::abort();  // going on in the wrong namespace would prove nothing
  fn();
}

std::string Host::sh(const std::string& command, int* status) const {
  std::string out;
  run([&] {
    FILE* p = popen(("{ " + command + "\n} 2>&1").c_str(), "re");
    if (!p) std::abort();
    std::array<char, 4096> buf{};
    for (size_t n; (n = fread(buf.data(), 1, buf.size(), p)) > 0;) out.append(buf.data(), n);
    int rc = pclose(p);
    if (status) *status = WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
  });
  return out;
}

bool Host::ok(const std::string& command) const {
  int status = 0;
  auto out = sh(command, &status);
  EXPECT_EQ(status, 0) << command << "\n" << out;
  return status == 0;
}

std::string Host::path() const {
  return fmt::format("/proc/{}/fd/{}", getpid(), ns_.fd());
}

bool Host::wire(const std::string& name, const Host& far, const std::string& far_name) const {
  auto k = netlink::KernelRtnl::open(ns_.fd());
  auto r =
      k ? k->add_link({.name = name, .kind = "veth", .up = true, .peer = {.name = far_name, .netns_fd = far.ns_.fd()}})
        : Result<>(propagate(k));
  EXPECT_TRUE(r) << r.error().text;
  return r && far.ok("ip link set " + far_name + " up");
}

}  // namespace hawser::testing
