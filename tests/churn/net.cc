// SPDX-License-Identifier: Apache-2.0
#include "tests/churn/net.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/netlink/rtnl_kernel.h"

namespace hawser::churn {
namespace {

constexpr std::uint32_t kFirstPod = 0x0af48000;  // 10.244.128.0
constexpr int kReceiveBytes = 16 << 20;
constexpr std::size_t kToken = 8;  // bytes of a datagram that come back as they are

Result<UniqueFd> listening(int type) {
  UniqueFd fd(socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  // A server that gets no processor for a while loses nothing.
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes, sizeof kReceiveBytes);
  const sockaddr_in a{.sin_family = AF_INET, .sin_port = htons(kPodPort), .sin_addr = {INADDR_ANY}, .sin_zero = {}};
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0 ||
      (type == SOCK_STREAM && listen(fd.get(), 4096) != 0))
    return fail_errno(errno, "endpoints' server");
  return fd;
}

Result<> run_in(const NetNs& where, const std::string& command) {
  auto inside = NetNsGuard::enter(where);
  if (!inside) return propagate(inside);
  if (std::system(command.c_str()) != 0) return fail(EIO, "{}: failed", command);
  return {};
}

Result<> join(const NetNs& here, const std::string& name, const NetNs& there) {
  auto k = netlink::KernelRtnl::open(here.fd());
  if (!k) return propagate(k);
  return k->add_link({.name = name, .kind = "veth", .up = true, .peer = {.name = "eth0", .netns_fd = there.fd()}});
}

}  // namespace

IpAddr pod(std::uint32_t n) {
  return IpAddr::v4(kFirstPod + n % kPods);
}

Result<std::unique_ptr<PodServer>> PodServer::start(const NetNs& where) {
  std::unique_ptr<PodServer> s(new PodServer);
  auto inside = NetNsGuard::enter(where);
  if (!inside) return propagate(inside);
  auto tcp = listening(SOCK_STREAM), udp = listening(SOCK_DGRAM);
  if (!tcp) return propagate(tcp);
  if (!udp) return propagate(udp);
  s->tcp_ = std::move(*tcp);
  s->udp_ = std::move(*udp);
  s->stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  s->epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  for (const auto* fd : {&s->tcp_, &s->udp_, &s->stop_}) {
    epoll_event e{.events = EPOLLIN, .data = {.fd = fd->get()}};
    if (epoll_ctl(s->epoll_.get(), EPOLL_CTL_ADD, fd->get(), &e) != 0) return fail_errno(errno, "endpoints' server");
  }
  s->thread_ = std::thread([p = s.get()] { p->serve(); });
  return s;
}

PodServer::~PodServer() {
  eventfd_write(stop_.get(), 1);
  if (thread_.joinable()) thread_.join();
}

void PodServer::serve() {
  std::array<epoll_event, 64> events{};
  for (;;) {
    const int n = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == stop_.get()) return;
      if (fd == tcp_.get())
        accept_all();
      else if (fd == udp_.get())
        answer_datagrams();
      else if (!serve_connection(fd))
        connections_[static_cast<std::size_t>(fd)].reset();
    }
  }
}

void PodServer::accept_all() {
  for (;;) {
    UniqueFd c(accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!c) return;
    sockaddr_in own{};
    socklen_t size = sizeof own;
    getsockname(c.get(), reinterpret_cast<sockaddr*>(&own), &size);
    (void)!send(c.get(), &own.sin_addr, sizeof own.sin_addr, MSG_NOSIGNAL);
    epoll_event e{.events = EPOLLIN, .data = {.fd = c.get()}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c.get(), &e);
    const auto at = static_cast<std::size_t>(c.get());
    if (connections_.size() <= at) connections_.resize(at + 1);
    connections_[at] = std::move(c);
  }
}

bool PodServer::serve_connection(int fd) {
  std::array<char, 64> data{};
  const ssize_t n = recv(fd, data.data(), data.size(), 0);
  if (n < 0) return errno == EAGAIN;
  return n > 0 && send(fd, data.data(), static_cast<std::size_t>(n), MSG_NOSIGNAL) == n;
}

void PodServer::answer_datagrams() {
  for (;;) {
    std::array<char, kToken + sizeof(in_addr)> data{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in_pktinfo))> control{};
    sockaddr_in peer{};
    iovec io{data.data(), kToken};
    msghdr m{.msg_name = &peer,
             .msg_namelen = sizeof peer,
             .msg_iov = &io,
             .msg_iovlen = 1,
             .msg_control = control.data(),
             .msg_controllen = control.size(),
             .msg_flags = 0};
    if (recvmsg(udp_.get(), &m, 0) != static_cast<ssize_t>(kToken)) return;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    if (c == nullptr || c->cmsg_type != IP_PKTINFO) continue;
    // Answered from the address that was asked.
    in_pktinfo info{};
    std::memcpy(&info, CMSG_DATA(c), sizeof info);
    std::memcpy(data.data() + kToken, &info.ipi_addr, sizeof info.ipi_addr);
    info.ipi_spec_dst = info.ipi_addr;
    info.ipi_ifindex = 0;
    std::memcpy(CMSG_DATA(c), &info, sizeof info);
    io.iov_len = data.size();
    (void)!sendmsg(udp_.get(), &m, 0);
  }
}

Result<std::unique_ptr<Net>> Net::make() {
  auto node = NetNs::create(), client = NetNs::create(), pods = NetNs::create();
  for (auto* ns : {&node, &client, &pods}) {
    if (!*ns) return propagate(*ns);
  }
  std::unique_ptr<Net> n(new Net(std::move(*node), std::move(*client), std::move(*pods)));
  if (auto r = n->wire(); !r) return propagate(r);
  auto server = PodServer::start(n->pods_);
  if (!server) return propagate(server);
  n->server_ = std::move(*server);
  return n;
}

Result<> Net::wire() {
  if (auto r = join(node_, "client", client_); !r) return r;
  if (auto r = join(node_, "pods", pods_); !r) return r;
  // The tables are sized by the machine's memory, and thousands of ended connections a second want to leave them soon.
  if (auto r = run_in(node_,
                      "ip link set lo up && ip addr add 192.0.2.11/32 dev lo && sysctl -qw net.ipv4.ip_forward=1 && "
                      "ip addr add 169.254.1.1/30 dev client && ip addr add 169.254.2.1/30 dev pods && "
                      "ip route add 10.244.1.9 dev client && ip route add 10.244.128.0/17 via 169.254.2.2 && "
                      "ip route add default via 169.254.2.2");
      !r)
    return r;
  if (auto r = run_in(client_,
                      "ip link set lo up && ip link set eth0 up && ip addr add 10.244.1.9/32 dev eth0 && "
                      "ip route add 169.254.1.1 dev eth0 && ip route add default via 169.254.1.1");
      !r)
    return r;
  return run_in(pods_,
                "ip link set lo up && ip link set eth0 up && ip addr add 169.254.2.2/30 dev eth0 && "
                "ip route add local 10.244.128.0/17 dev lo && ip route add default via 169.254.2.1");
}

Process::~Process() {
  end(SIGKILL);
}

Result<> Process::start() {
  std::vector<char*> argv;
  for (const auto& a : argv_) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  auto out = UniqueFd::open(log_.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0600);
  if (!out) return propagate(out);
  auto inside = NetNsGuard::enter(where_);
  if (!inside) return propagate(inside);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return fail_errno(errno, "fork");
  if (pid_ > 0) return {};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  dup2(out->get(), STDOUT_FILENO);
  dup2(out->get(), STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

void Process::end(int signal) {
  if (pid_ <= 0) return;
  kill(pid_, signal);
  (void)wait();
}

Result<int> Process::wait() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return fail_errno(errno, "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace hawser::churn
