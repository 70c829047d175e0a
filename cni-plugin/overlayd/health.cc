// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/health.h"

#include <charconv>

namespace hawser::overlay {
namespace {

struct Endpoint {
  std::string address;
  std::uint16_t port = 0;
};

Result<Endpoint> parse_bind(const std::string& bind) {
  auto colon = bind.rfind(':');
  if (colon == std::string::npos) return fail(EINVAL, "--healthz-bind \"{}\": is not address:port", bind);
  std::string host = bind.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  auto address = IpAddr::parse(host);
  if (!address) return propagate(address, "--healthz-bind");
  std::uint16_t port = 0;
  const char* end = bind.data() + bind.size();
  auto [at, ec] = std::from_chars(bind.data() + colon + 1, end, port);
  if (ec != std::errc() || at != end) return fail(EINVAL, "--healthz-bind \"{}\": the port is not 0 to 65535", bind);
  return Endpoint{host, port};
}

http::Response text(int status, std::string body) {
  http::Response r{.status = status, .body = std::move(body)};
  r.headers.set("Content-Type", "text/plain; charset=utf-8");
  return r;
}

}  // namespace

Result<std::unique_ptr<http::Server>> serve_health(const std::string& bind, std::function<Status()> status,
                                                   std::function<std::vector<std::string>()> verbose_lines,
                                                   const metrics::Registry& registry) {
  auto at = parse_bind(bind);
  if (!at) return propagate(at);
  auto server = std::make_unique<http::Server>(http::ServerOptions{.worker_threads = 1}, nullptr,
                                               [status = std::move(status), verbose_lines = std::move(verbose_lines),
                                                &registry](const http::Request& q, http::Responder& out) {
                                                 auto path = q.path();
                                                 if (path == "/healthz" || path == "/livez")
                                                   return out.send(text(200, "ok\n"));
                                                 if (path == "/readyz") {
                                                   auto s = status();
                                                   std::string body = s.ready ? "ok\n" : s.reason + "\n";
                                                   if (q.has_query("verbose")) {
                                                     for (const auto& line : verbose_lines()) body += line + "\n";
                                                   }
                                                   return out.send(text(s.ready ? 200 : 503, std::move(body)));
                                                 }
                                                 if (path == "/metrics") {
                                                   auto r = text(200, registry.text());
                                                   r.headers.set("Content-Type", metrics::kContentType);
                                                   return out.send(std::move(r));
                                                 }
                                                 out.send(text(404, "not found\n"));
                                               });
  auto port = server->listen(at->address, at->port);
  if (!port) return propagate(port, "--healthz-bind {}", bind);
  return server;
}

}  // namespace hawser::overlay
