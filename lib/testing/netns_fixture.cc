// SPDX-License-Identifier: Apache-2.0
#include "lib/testing/netns_fixture.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace hawser::testing {
namespace {

// A mistake here would let a test change the machine's own network, so it ends the program rather than the test.
// PID 1's namespace cannot be read everywhere (it may belong to another user namespace); the one this test came from
// can.
void require_throw_away(ino_t came_from) {
  struct stat ours {};
  struct stat init {};
  bool moved = ::stat("/proc/thread-self/ns/net", &ours) == 0 && ours.st_ino != came_from;
  if (moved && (::stat("/proc/1/ns/net", &init) != 0 || ours.st_ino != init.st_ino)) return;
  std::fputs("netns fixture: not in a throw-away network namespace; stopping before anything is changed\n", stderr);
  std::abort();
}

}  // namespace

Result<> loopback_up() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (::ioctl(fd.get(), SIOCGIFFLAGS, &request) < 0) return fail_errno(errno, "read flags of lo");
  request.ifr_flags |= IFF_UP;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) < 0) return fail_errno(errno, "set lo up");
  return {};
}

bool can_make_netns(std::string& why) {
  auto made = NetNs::create();
  if (!made) why = made.error().text;
  return made.has_value();
}

void NetNsTest::SetUp() {
  auto made = NetNs::create();
  if (!made) GTEST_SKIP() << "needs the right to make network namespaces: " << made.error().text;
  struct stat home {};
  ASSERT_EQ(::stat("/proc/thread-self/ns/net", &home), 0);
  auto inside = NetNsGuard::enter(*made);
  if (!inside) GTEST_SKIP() << "needs the right to enter network namespaces: " << inside.error().text;
  require_throw_away(home.st_ino);
  netns_.emplace(std::move(*made));
  inside_.emplace(std::move(*inside));
  auto up = loopback_up();
  ASSERT_TRUE(up) << up.error().text;
}

void NetNsTest::TearDown() {
  inside_.reset();
  netns_.reset();
}

}  // namespace hawser::testing
