// SPDX-License-Identifier: Apache-2.0
#include "lib/http/client.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "lib/base/clock.h"
#include "lib/http/client_connection.h"
#include "lib/http/wire.h"

namespace hawser::http {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxIdle = 4;
// Well under the server's own idle limit (180 s; a Go API server has 3 min too), so that we are the one to close.
constexpr Nanos kMaxIdleTime = 60s;

// RFC 9110 section 9.2.2, without the methods that change something: those are never sent twice, because a server that
// dies after the change but before the answer looks the same as one that never saw the request.
bool may_repeat(const Request& r) {
  return r.method == "GET" || r.method == "HEAD" || r.method == "OPTIONS";
}

struct Exchange {
  const Request& request;
  std::function<bool(const Response&)> on_head;  // may be null
  std::function<bool(std::string_view)> on_data;
  MonoTime head_deadline;
  Nanos idle_timeout;  // between pieces of the body
  MonoTime deadline;   // of the whole
};

enum class End { kDone, kReusable };

// Reads one answer from `c`; what the caller stops early ends as kDone.
Result<End> read_answer(ClientConnection& c, const Exchange& x) {
  bool stopped = false;
  auto sink = [&](std::string_view data) { return !(stopped = !x.on_data(data)); };
  auto parser = std::make_unique<ResponseParser>(x.request.method == "HEAD", sink);
  bool told_head = false;
  std::string unread;
  MonoTime wait_until = std::min(x.head_deadline, x.deadline);
  for (;;) {
    if (parser->header_done() && !told_head) {
      if (parser->head().status < 200) {  // 100 and 103 come before the real answer
        parser = std::make_unique<ResponseParser>(x.request.method == "HEAD", sink);
      } else {
        told_head = true;
        if (x.on_head && !x.on_head(parser->head())) return End::kDone;
      }
    }
    bool progress = false;
    if (!unread.empty() && !parser->done()) {
      auto used = parser->feed(unread);
      if (stopped) return End::kDone;
      if (!used) return propagate(used);
      unread.erase(0, *used);
      progress = *used > 0;
    }
    if (parser->done() && told_head) return parser->keep_alive() && unread.empty() ? End::kReusable : End::kDone;
    if (progress || (parser->header_done() && !told_head)) continue;
    if (told_head) wait_until = std::min(x.deadline, system_clock().now() + x.idle_timeout);
    auto more = c.read(unread, wait_until);
    if (!more) return propagate(more);
    if (*more) continue;
    if (auto r = parser->feed_end(); !r) return propagate(r);
    return End::kDone;
  }
}

}  // namespace

struct Client::Impl {
  explicit Impl(ClientOptions o) : options(std::move(o)) {
    if (options.server_name.empty()) options.server_name = options.host;
    bool v6 = options.host.contains(':');
    host_header =
        v6 ? fmt::format("[{}]:{}", options.host, options.port) : fmt::format("{}:{}", options.host, options.port);
  }

  std::unique_ptr<ClientConnection> take_idle() {
    std::lock_guard l(mu);
    while (!idle.empty()) {
      auto c = std::move(idle.back());
      idle.pop_back();
      if (c->usable() && system_clock().now() - c->last_used() < kMaxIdleTime) return c;
    }
    return nullptr;
  }
  void give_back(std::unique_ptr<ClientConnection> c) {
    c->set_stop(nullptr);
    c->touch();
    std::lock_guard l(mu);
    if (idle.size() < kMaxIdle) idle.push_back(std::move(c));
  }

  Result<> run(const Exchange& x, StopSignal* stop);

  ClientOptions options;
  std::string host_header;
  std::mutex mu;
  std::vector<std::unique_ptr<ClientConnection>> idle;  // guarded by mu; last used last
};

Result<> Client::Impl::run(const Exchange& x, StopSignal* stop) {
  std::string text = request_text(x.request, host_header);
  auto c = take_idle();
  for (bool reused = c != nullptr;; reused = false) {
    if (!c) {
      auto fresh = ClientConnection::connect(options, stop);
      if (!fresh) return propagate(fresh);
      c = std::move(*fresh);
    }
    c->set_stop(stop);
    std::size_t written = 0;
    auto sent = c->write(text, std::min(x.head_deadline, x.deadline), written);
    c->start_counting();
    // A server that refuses a long body answers before it has read it all, so the answer is read even if writing
    // failed.
    auto end = sent || written > 0 ? read_answer(*c, x) : Result<End>(propagate(sent));
    if (end) {
      if (*end == End::kReusable && sent) give_back(std::move(c));
      return {};
    }
    bool unanswered = c->received() == 0 && end.error().code != ETIMEDOUT && end.error().code != ECANCELED;
    if (reused && unanswered && (may_repeat(x.request) || written == 0)) {
      c.reset();
      continue;
    }
    return std::unexpected(
        std::move(end.error()).context("{} {}:{}{}", x.request.method, options.host, options.port, x.request.path()));
  }
}

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

Result<Response> Client::send(const Request& r) {
  Response out;
  MonoTime deadline = system_clock().now() + impl_->options.request_timeout;
  std::string body;
  Exchange x{.request = r,
             .on_head =
                 [&](const Response& head) {
                   out = head;
                   return true;
                 },
             .on_data =
                 [&](std::string_view data) {
                   body += data;
                   return true;
                 },
             .head_deadline = deadline,
             .idle_timeout = impl_->options.request_timeout,
             .deadline = deadline};
  if (auto done = impl_->run(x, nullptr); !done) return propagate(done);
  out.body = std::move(body);
  return out;
}

Result<> Client::stream(const Request& r, const std::function<bool(const Response& head)>& on_head,
                        const std::function<bool(std::string_view data)>& on_data,
                        std::chrono::milliseconds idle_timeout, std::stop_token stop) {
  auto signal = StopSignal::make();
  if (!signal) return propagate(signal);
  std::stop_callback wake(stop, [&] { (*signal)->raise(); });
  Exchange x{.request = r,
             .on_head = on_head,
             .on_data = on_data,
             .head_deadline = system_clock().now() + impl_->options.request_timeout,
             .idle_timeout = idle_timeout,
             .deadline = MonoTime::max()};
  auto done = impl_->run(x, signal->get());
  if (!done && stop.stop_requested()) return {};
  return done;
}

}  // namespace hawser::http
