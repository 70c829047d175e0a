// SPDX-License-Identifier: Apache-2.0
#include "lib/http/server.h"

#include <condition_variable>
#include <future>
#include <thread>
#include <unordered_map>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <malloc.h>
#include <sys/socket.h>

#include "lib/base/log.h"
#include "lib/http/connection.h"

namespace hawser::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;
using Acceptor = asio::basic_socket_acceptor<tcp, asio::io_context::executor_type>;

constexpr auto kSweepInterval = 1s;
constexpr auto kStopGrace = 2s;
// That many connections gone is a burst over; its memory goes back to the machine.
constexpr std::size_t kBurst = 100;

std::string text_of(const tcp::endpoint& e) {
  return e.address().is_v6() ? fmt::format("[{}]:{}", e.address().to_string(), e.port())
                             : fmt::format("{}:{}", e.address().to_string(), e.port());
}

}  // namespace

// Held by the Server, and by every connection for as long as a handler keeps its stream.
struct Server::Impl final : ServerCore, std::enable_shared_from_this<Server::Impl> {
  Impl(ServerOptions o, std::shared_ptr<TlsContext> t, Handler h)
      : options_(o),
        tls(std::move(t)),
        handler(std::move(h)),
        io(o.io_threads),
        workers(o.worker_threads, o.max_reads, o.max_writes),
        sweep_timer(io) {}

  bool submit(Lane lane, std::function<void()> work) override { return workers.submit(lane, std::move(work)); }
  void handle(const Request& r, Responder& responder) override { handler(r, responder); }
  void closed(Connection& c) override {
    std::lock_guard l(mu);
    connections.erase(&c);
    if (connections.empty()) empty_cv.notify_all();
  }
  const ServerOptions& options() const override { return options_; }

  void start_threads();
  void accept(const std::shared_ptr<Acceptor>& a);
  void take(Socket socket);
  void sweep();
  Result<> serve(Acceptor acceptor);
  std::vector<std::shared_ptr<Connection>> snapshot();

  const ServerOptions options_;
  const std::shared_ptr<TlsContext> tls;
  const Handler handler;
  asio::io_context io;
  Workers workers;
  asio::steady_timer sweep_timer;
  std::size_t most_open = 0;  // connections, since the last trim; the sweep's
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_guard;
  std::vector<std::thread> io_threads;
  std::vector<std::shared_ptr<Acceptor>> acceptors;  // guarded by mu
  std::mutex mu;
  std::condition_variable empty_cv;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections;  // guarded by mu
  bool stopping = false;                                                   // guarded by mu
};

void Server::Impl::start_threads() {
  if (!io_threads.empty()) return;
  work_guard.emplace(io.get_executor());
  for (int i = 0; i < options_.io_threads; i++) io_threads.emplace_back([this] { io.run(); });
  asio::post(io, [this] { sweep(); });
}

void Server::Impl::accept(const std::shared_ptr<Acceptor>& a) {
  a->async_accept(asio::make_strand(io), [this, a](const error_code& ec, Socket socket) {
    if (ec == asio::error::operation_aborted || !a->is_open()) return;
    if (!ec) {
      take(std::move(socket));
      return accept(a);
    }
    if (ec == asio::error::connection_aborted) return accept(a);
    // Out of descriptors or memory: the waiting connection would be reported again at once, so let some time pass.
    log::warn("http: accept: {}", ec.message());
    auto pause = std::make_shared<asio::steady_timer>(io, 100ms);
    pause->async_wait([this, a, pause](const error_code& cancelled) {
      if (!cancelled && a->is_open()) accept(a);
    });
  });
}

void Server::Impl::take(Socket socket) {
  error_code ec;
  auto peer = socket.remote_endpoint(ec);
  if (ec) return;  // already gone
  socket.non_blocking(true, ec);
  // A watch event must not wait for the acknowledgement of the one before (Nagle).
  socket.set_option(tcp::no_delay(true), ec);
  socket.set_option(asio::socket_base::keep_alive(true), ec);
  int fd = socket.native_handle();
  auto transport = tls ? Transport::server(fd, *tls) : Result<Transport>(Transport::plain(fd));
  if (!transport) return log::warn("http: {}", transport.error().text);
  auto own = socket.local_endpoint(ec);
  if (ec) return;
  auto c = std::make_shared<Connection>(shared_from_this(), std::move(socket), std::move(*transport),
                                        ConnectionEnds{text_of(peer), own.port()});
  {
    std::lock_guard l(mu);
    if (stopping) return;
    connections.emplace(c.get(), c);
  }
  c->start();
}

// One timer for all connections rather than one each: nothing is armed or cancelled per request.
void Server::Impl::sweep() {
  auto now = system_clock().now();
  auto open = snapshot();
  for (auto& c : open)
    if (c->deadline() < now) c->abort_soon();
  most_open = std::max(most_open, open.size());
  if (open.size() + kBurst <= most_open) {
    most_open = open.size();
    ::malloc_trim(0);
  }
  sweep_timer.expires_after(kSweepInterval);
  sweep_timer.async_wait([this](const error_code& ec) {
    if (!ec) sweep();
  });
}

std::vector<std::shared_ptr<Connection>> Server::Impl::snapshot() {
  std::vector<std::shared_ptr<Connection>> out;
  std::lock_guard l(mu);
  for (auto& [raw, weak] : connections)
    if (auto c = weak.lock()) out.push_back(std::move(c));
  return out;
}

Result<> Server::Impl::serve(Acceptor acceptor) {
  std::lock_guard l(mu);
  if (stopping) return fail(ESHUTDOWN, "the server is stopping");
  auto a = acceptors.emplace_back(std::make_shared<Acceptor>(std::move(acceptor)));
  start_threads();
  asio::post(io, [this, a] { accept(a); });
  return {};
}

Server::Server(ServerOptions options, std::shared_ptr<TlsContext> tls, Handler handler)
    : impl_(std::make_shared<Impl>(options, std::move(tls), std::move(handler))) {}
Server::~Server() {
  stop();
}

Result<std::uint16_t> Server::listen(const std::string& address, std::uint16_t port) {
  error_code ec;
  auto ip = asio::ip::make_address(address, ec);
  if (ec) return fail(EINVAL, "listen on \"{}\": not an IP address", address);
  tcp::endpoint at(ip, port);
  Acceptor a(impl_->io.get_executor());
  auto step = [&](auto fn) {
    if (!ec) fn();
  };
  step([&] { a.open(at.protocol(), ec); });
  step([&] { a.set_option(tcp::acceptor::reuse_address(true), ec); });
  step([&] { a.bind(at, ec); });
  step([&] { a.listen(tcp::acceptor::max_listen_connections, ec); });
  if (ec) return fail(ec.value(), "listen on {}:{}: {}", address, port, ec.message());
  auto bound = a.local_endpoint(ec).port();
  if (auto r = impl_->serve(std::move(a)); !r) return propagate(r);
  return bound;
}

void Server::unlisten(std::uint16_t port) {
  std::vector<std::shared_ptr<Acceptor>> ending;
  {
    std::lock_guard l(impl_->mu);
    if (impl_->stopping) return;
    std::erase_if(impl_->acceptors, [&](const auto& a) {
      error_code ec;
      if (a->local_endpoint(ec).port() != port || ec) return false;
      ending.push_back(a);
      return true;
    });
  }
  // An acceptor belongs to the I/O thread.
  for (auto& a : ending) {
    std::promise<void> closed;
    asio::post(impl_->io, [&] {
      error_code ignored;
      a->close(ignored);
      closed.set_value();
    });
    closed.get_future().wait();
  }
}

Result<> Server::adopt(UniqueFd listening) {
  sockaddr_storage addr{};
  socklen_t size = sizeof addr;
  int accepting = 0;
  socklen_t int_size = sizeof accepting;
  if (::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&addr), &size) < 0)
    return fail_errno(errno, "passed descriptor {}", listening.get());
  ::getsockopt(listening.get(), SOL_SOCKET, SO_ACCEPTCONN, &accepting, &int_size);
  if (!accepting || (addr.ss_family != AF_INET && addr.ss_family != AF_INET6))
    return fail(EINVAL, "passed descriptor {}: not a listening TCP socket", listening.get());
  Acceptor a(impl_->io.get_executor());
  error_code ec;
  a.assign(addr.ss_family == AF_INET ? tcp::v4() : tcp::v6(), listening.get(), ec);
  if (ec) return fail(ec.value(), "passed descriptor {}: {}", listening.get(), ec.message());
  (void)listening.release();  // the acceptor owns it now
  return impl_->serve(std::move(a));
}

void Server::stop() {
  Impl& s = *impl_;
  {
    std::lock_guard l(s.mu);
    if (std::exchange(s.stopping, true)) return;
  }
  asio::post(s.io, [&s] {
    std::lock_guard l(s.mu);
    error_code ignored;
    for (auto& a : s.acceptors) a->close(ignored);
    s.sweep_timer.cancel();
  });
  for (auto& c : s.snapshot()) c->stop_soon();
  {
    std::unique_lock l(s.mu);
    s.empty_cv.wait_for(l, kStopGrace, [&] { return s.connections.empty(); });
  }
  s.workers.stop();
  for (auto& c : s.snapshot()) c->abort_soon();
  s.work_guard.reset();
  for (auto& t : s.io_threads) t.join();
}

}  // namespace hawser::http
