// SPDX-License-Identifier: Apache-2.0
// hawser-echo: says who answered. TCP: HTTP/1.1, keep-alive; any path gives one line "pod=... node=... server=ip:port
// client=ip:port", /healthz gives "ok". UDP: every datagram gets the same line. Both on PORT (default 8080).
//
// The pod's name is its hostname; the node's name comes from NODE_NAME. One thread, poll(2); as PID 1 it ends at once
// on SIGTERM.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

std::string pod_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

const char* node_name() {
  const char* n = getenv("NODE_NAME");
  return n && *n ? n : "unknown";
}

// "192.0.2.1:80" or "[2001:db8::1]:80"; a v4-mapped address is written as IPv4.
std::string text(const sockaddr_in6& a) {
  char buf[INET6_ADDRSTRLEN];
  std::string port = std::to_string(ntohs(a.sin6_port));
  if (IN6_IS_ADDR_V4MAPPED(&a.sin6_addr)) {
    inet_ntop(AF_INET, &a.sin6_addr.s6_addr[12], buf, sizeof buf);
    return std::string(buf) + ":" + port;
  }
  inet_ntop(AF_INET6, &a.sin6_addr, buf, sizeof buf);
  return "[" + std::string(buf) + "]:" + port;
}

std::string answer(const std::string& server, const std::string& client) {
  return "pod=" + pod_name() + " node=" + node_name() + " server=" + server + " client=" + client + "\n";
}

int listen_on(int type, int port) {
  int fd = socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int on = 1, off = 0;
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (type == SOCK_DGRAM) {
    // The datagram's own destination address, so that the answer names it and leaves from it.
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  }
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  a.sin6_port = htons(static_cast<uint16_t>(port));
  if (bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) || (type == SOCK_STREAM && listen(fd, 1024))) return -1;
  return fd;
}

struct Connection {
  std::string in;
  std::string server, client;
};

void serve_datagram(int fd, int port) {
  char data[2048], control[256];
  sockaddr_in6 from{};
  iovec iov{data, sizeof data};
  msghdr m{};
  m.msg_name = &from;
  m.msg_namelen = sizeof from;
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  if (recvmsg(fd, &m, 0) < 0) return;
  sockaddr_in6 to{};
  to.sin6_port = htons(static_cast<uint16_t>(port));
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
      to.sin6_addr = reinterpret_cast<in6_pktinfo*>(CMSG_DATA(c))->ipi6_addr;
  std::string out = answer(text(to), text(from));
  iov = {out.data(), out.size()};
  m.msg_flags = 0;
  sendmsg(fd, &m, 0);
}

// Answers every whole request in c.in. False: close the connection.
bool serve_requests(int fd, Connection& c) {
  for (;;) {
    size_t end = c.in.find("\r\n\r\n");
    if (end == c.in.npos) return c.in.size() < 65536;
    std::string head = c.in.substr(0, end + 2);
    c.in.erase(0, end + 4);
    bool close = strcasestr(head.c_str(), "\r\nConnection: close") || head.find(" HTTP/1.0\r\n") != head.npos;
    std::string body = head.starts_with("GET /healthz ") ? "ok\n" : answer(c.server, c.client);
    std::string out = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
                      (close ? "\r\nConnection: close" : "") + "\r\n\r\n" + body;
    if (send(fd, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size()) || close) return false;
  }
}

void accept_all(int listener, std::map<int, Connection>& connections) {
  for (;;) {
    sockaddr_in6 peer{}, own{};
    socklen_t n = sizeof peer;
    int fd = accept4(listener, reinterpret_cast<sockaddr*>(&peer), &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    n = sizeof own;
    getsockname(fd, reinterpret_cast<sockaddr*>(&own), &n);
    connections[fd] = {"", text(own), text(peer)};
  }
}

bool read_some(int fd, Connection& c) {
  char buf[16384];
  ssize_t n = recv(fd, buf, sizeof buf, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  c.in.append(buf, static_cast<size_t>(n));
  return serve_requests(fd, c);
}

}  // namespace

int main() {
  signal(SIGTERM, [](int) { _exit(0); });
  signal(SIGINT, [](int) { _exit(0); });
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const char* p = getenv("PORT");
  int port = p ? atoi(p) : 8080;
  int tcp = listen_on(SOCK_STREAM, port), udp = listen_on(SOCK_DGRAM, port);
  if (tcp < 0 || udp < 0) {
    fprintf(stderr, "hawser-echo: port %d: %s\n", port, strerror(errno));
    return 1;
  }
  printf("hawser-echo: pod %s on node %s serves TCP and UDP port %d\n", pod_name().c_str(), node_name(), port);
  std::map<int, Connection> connections;
  for (;;) {
    std::vector<pollfd> fds{{tcp, POLLIN, 0}, {udp, POLLIN, 0}};
    for (auto& [fd, c] : connections) fds.push_back({fd, POLLIN, 0});
    if (poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[0].revents) accept_all(tcp, connections);
    if (fds[1].revents) serve_datagram(udp, port);
    for (size_t i = 2; i < fds.size(); i++) {
      if (!fds[i].revents || read_some(fds[i].fd, connections[fds[i].fd])) continue;
      connections.erase(fds[i].fd);
      close(fds[i].fd);
    }
  }
}
