// SPDX-License-Identifier: Apache-2.0
#include "lib/http/client_connection.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/endian.h"

namespace hawser::http {
namespace {

Result<std::vector<IpAddr>> resolve(const std::string& host) {
  if (auto ip = IpAddr::parse(host)) return std::vector{*ip};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // Temporary to the caller: names come and go with the network.
  if (int e = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); e != 0)
    return fail(EHOSTUNREACH, "look up {}: {}", host, ::gai_strerror(e));
  std::vector<IpAddr> out;
  for (addrinfo* a = found; a; a = a->ai_next) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(a->ai_addr);
    std::size_t at = a->ai_family == AF_INET6 ? offsetof(sockaddr_in6, sin6_addr) : offsetof(sockaddr_in, sin_addr);
    if (auto ip = IpAddr::from_bytes({bytes + at, a->ai_family == AF_INET6 ? 16u : 4u})) out.push_back(*ip);
  }
  ::freeaddrinfo(found);
  return out;
}

socklen_t fill(sockaddr_storage& to, const IpAddr& ip, std::uint16_t port) {
  std::memset(&to, 0, sizeof to);
  if (ip.is_v6()) {
    auto& a = reinterpret_cast<sockaddr_in6&>(to);
    a.sin6_family = AF_INET6;
    a.sin6_port = be16(port).network();
    std::ranges::copy(ip.bytes(), a.sin6_addr.s6_addr);
    return sizeof a;
  }
  auto& a = reinterpret_cast<sockaddr_in&>(to);
  a.sin_family = AF_INET;
  a.sin_port = be16(port).network();
  a.sin_addr.s_addr = be32(ip.v4_host_order()).network();
  return sizeof a;
}

int poll_ms(MonoTime deadline) {
  if (deadline == MonoTime::max()) return -1;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - system_clock().now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000'000));
}

}  // namespace

Result<std::unique_ptr<StopSignal>> StopSignal::make() {
  auto s = std::make_unique<StopSignal>();
  s->fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!s->fd_) return fail_errno(errno, "eventfd");
  return s;
}
void StopSignal::raise() {
  std::uint64_t one = 1;
  // Fails only when it is raised already.
  if (::write(fd_.get(), &one, sizeof one) < 0) return;
}

Result<std::unique_ptr<ClientConnection>> ClientConnection::connect(const ClientOptions& o, StopSignal* stop) {
  MonoTime deadline = system_clock().now() + o.connect_timeout;
  auto addresses = resolve(o.host);
  if (!addresses) return propagate(addresses);
  Error last{EHOSTUNREACH, fmt::format("{}: no address", o.host), {}};
  for (const auto& ip : *addresses) {
    auto c = std::make_unique<ClientConnection>();
    c->stop_ = stop;
    auto ok = c->open(ip, o.port, deadline);
    if (ok) ok = c->secure(o, deadline);
    if (ok) return c;
    last = std::move(ok.error()).context("connect to {}:{}", o.host, o.port);
  }
  return std::unexpected(std::move(last));
}

Result<> ClientConnection::open(const IpAddr& ip, std::uint16_t port, MonoTime deadline) {
  fd_.reset(::socket(ip.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_) return fail_errno(errno, "socket");
  int one = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  // A watch may be silent for minutes; a server that vanished without a word is noticed after about a minute.
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  int idle_seconds = 30;
  int interval_seconds = 10;
  int probes = 3;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof interval_seconds);
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  sockaddr_storage to;
  socklen_t size = fill(to, ip, port);
  if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), size) == 0) return {};
  if (errno != EINPROGRESS) return fail_errno(errno, "connect");
  if (auto r = wait(POLLOUT, deadline); !r) return r;
  int err = 0;
  socklen_t err_size = sizeof err;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &err, &err_size);
  if (err) return fail_errno(err, "connect");
  return {};
}

Result<> ClientConnection::secure(const ClientOptions& o, MonoTime deadline) {
  if (!o.tls) {
    transport_ = Transport::plain(fd_.get());
    return {};
  }
  auto t = Transport::client(fd_.get(), *o.tls, o.server_name.empty() ? o.host : o.server_name);
  if (!t) return propagate(t);
  transport_ = std::move(*t);
  for (;;) {
    Io io = transport_.handshake();
    if (io == Io::kOk) return {};
    if (io != Io::kWantRead && io != Io::kWantWrite) return std::unexpected(transport_.error());
    if (auto r = wait(io == Io::kWantRead ? POLLIN : POLLOUT, deadline); !r) return r;
  }
}

Result<> ClientConnection::wait(short events, MonoTime deadline) {
  for (;;) {
    std::array<pollfd, 2> p{pollfd{fd_.get(), events, 0}, pollfd{stop_ ? stop_->fd() : -1, POLLIN, 0}};
    int n = ::poll(p.data(), p.size(), poll_ms(deadline));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "poll");
    if (p[1].revents) return fail(ECANCELED, "stopped");
    if (n == 0) return fail(ETIMEDOUT, "timed out");
    return {};
  }
}

Result<bool> ClientConnection::read(std::string& out, MonoTime deadline) {
  for (;;) {
    std::array<char, 16384> buf;
    std::size_t n = 0;
    Io io = transport_.read(buf, n);
    received_ += n;
    if (n) out.append(buf.data(), n);
    if (io == Io::kOk) return true;
    if (io == Io::kEof) return false;
    if (io == Io::kError) return std::unexpected(transport_.error());
    if (auto r = wait(io == Io::kWantRead ? POLLIN : POLLOUT, deadline); !r) return propagate(r);
  }
}

Result<> ClientConnection::write(std::string_view data, MonoTime deadline, std::size_t& written) {
  written = 0;
  while (written < data.size()) {
    std::size_t n = 0;
    Io io = transport_.write(data.substr(written), n);
    written += n;
    if (io == Io::kOk) continue;
    if (io == Io::kEof) return fail(ECONNRESET, "connection closed");
    if (io == Io::kError) return std::unexpected(transport_.error());
    if (auto r = wait(io == Io::kWantRead ? POLLIN : POLLOUT, deadline); !r) return r;
  }
  return {};
}

bool ClientConnection::usable() const {
  pollfd p{fd_.get(), POLLIN | POLLRDHUP, 0};
  return ::poll(&p, 1, 0) == 0;
}

}  // namespace hawser::http
