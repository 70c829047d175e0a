// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/sockets.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

namespace hawser::testing {

sockaddr_in v4(const char* addr, std::uint16_t port) {
  return {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {inet_addr(addr)}, .sin_zero = {}};
}

UniqueFd socket_in(const Host& h, int type) {
  UniqueFd fd;
  h.run([&] { fd = UniqueFd(socket(AF_INET, type | SOCK_CLOEXEC, 0)); });
  return fd;
}

UniqueFd listen_in(const Host& h, int type, std::uint16_t port) {
  auto fd = socket_in(h, type);
  auto a = v4("0.0.0.0", port);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(listen(fd.get(), 16), 0);
  }
  return fd;
}

bool readable(const UniqueFd& fd, int patience_ms) {
  pollfd p{fd.get(), POLLIN, 0};
  return poll(&p, 1, patience_ms) == 1;
}

bool connects(const Host& from, const char* addr, std::uint16_t port, const UniqueFd& server, std::string* source) {
  auto fd = socket_in(from, SOCK_STREAM | SOCK_NONBLOCK);
  auto a = v4(addr, port);
  (void)connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a);
  pollfd p{fd.get(), POLLOUT, 0};
  int err = -1;
  socklen_t len = sizeof err;
  if (poll(&p, 1, kPatienceMs) != 1 || getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err != 0)
    return false;
  if (!readable(server)) return false;
  sockaddr_in peer{};
  len = sizeof peer;
  UniqueFd accepted(accept4(server.get(), reinterpret_cast<sockaddr*>(&peer), &len, SOCK_CLOEXEC));
  if (source) *source = inet_ntoa(peer.sin_addr);
  return static_cast<bool>(accepted);
}

bool send_to(const UniqueFd& fd, const char* addr, std::uint16_t port) {
  auto a = v4(addr, port);
  return sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&a), sizeof a) == 1;
}

bool arrives(const UniqueFd& server, int patience_ms) {
  char c = 0;
  return readable(server, patience_ms) && recv(server.get(), &c, 1, 0) == 1;
}

}  // namespace hawser::testing
