// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/check_runner.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"
#include "lib/http/client.h"

namespace hawser::agent {
namespace {

constexpr std::size_t kMaxOutput = 10 << 10;

struct AddrInfoFree {
  void operator()(addrinfo* a) const { ::freeaddrinfo(a); }
};

Result<> tcp_connect(const std::string& host, std::uint16_t port, std::chrono::milliseconds timeout) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); rc != 0)
    return fail(EINVAL, "dial tcp {}:{}: {}", host, port, ::gai_strerror(rc));
  const std::unique_ptr<addrinfo, AddrInfoFree> list(found);
  UniqueFd fd(::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (::connect(fd.get(), list->ai_addr, list->ai_addrlen) == 0) return {};
  if (errno != EINPROGRESS) return fail_errno(errno, "dial tcp {}:{}: connect", host, port);
  pollfd p{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  const int n = ::poll(&p, 1, static_cast<int>(timeout.count()));
  if (n == 0) return fail(ETIMEDOUT, "dial tcp {}:{}: i/o timeout", host, port);
  int err = n < 0 ? errno : 0;
  socklen_t size = sizeof err;
  if (n > 0 && ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &size) != 0) err = errno;
  if (err != 0) return fail_errno(err, "dial tcp {}:{}: connect", host, port);
  return {};
}

std::string clipped(std::string text) {
  if (text.size() > kMaxOutput) text.resize(kMaxOutput);
  return text;
}

}  // namespace

Result<> NetworkCheckRunner::http_get(const Check& check, const std::string& host, std::chrono::seconds timeout) {
  http::ClientOptions o;
  o.host = host;
  o.port = check.port;
  o.connect_timeout = o.request_timeout = timeout;
  if (check.https) {
    // A probe asks whether the server answers, not who it is (as the kubelet does).
    auto tls = http::TlsContext::client("", {}, true);
    if (!tls) return propagate(tls);
    o.tls = *tls;
  }
  http::Request r;
  r.target = check.path;
  r.headers.set("User-Agent", "kube-probe/1.33");
  r.headers.set("Accept", "*/*");
  r.headers.set("Connection", "close");
  for (const auto& [name, value] : check.headers) r.headers.set(name, value);
  http::Client client(o);
  auto response = client.send(r);
  if (!response)
    return propagate(response, "Get \"{}://{}:{}{}\"", check.https ? "https" : "http", host, check.port, check.path);
  if (response->status >= 200 && response->status < 400) return {};
  return fail(response->status, "HTTP probe failed with statuscode: {}", response->status);
}

Result<> NetworkCheckRunner::run(const Check& check, const CheckTarget& target, std::chrono::seconds timeout) {
  const std::string& host = check.host.empty() ? target.ip : check.host;
  switch (check.kind) {
    case Check::Kind::kHttpGet:
      return http_get(check, host, timeout);
    case Check::Kind::kTcp:
      return tcp_connect(host, check.port, timeout);
    case Check::Kind::kExec: {
      auto outcome = runtime_.exec(target.container_id, check.command, timeout);
      if (!outcome) return propagate(outcome);
      if (outcome->exit_code != 0) return fail(0, "{}", clipped(std::move(outcome->output)));
      return {};
    }
    case Check::Kind::kSleep:
      return {};  // the caller's wait: it holds the clock
  }
  return {};
}

}  // namespace hawser::agent
