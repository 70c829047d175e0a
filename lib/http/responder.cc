// SPDX-License-Identifier: Apache-2.0
#include "lib/http/responder.h"

#include <utility>

#include "lib/base/log.h"
#include "lib/http/connection.h"

namespace hawser::http {
namespace {

// The handler's end of a stream.
class StreamHandle final : public Stream {
 public:
  StreamHandle(std::shared_ptr<StreamState> state, std::shared_ptr<Connection> connection, std::size_t limit_bytes)
      : state_(std::move(state)), connection_(std::move(connection)), limit_bytes_(limit_bytes) {}
  ~StreamHandle() override { end(); }

  bool write(std::string_view data) override { return write(std::make_shared<const std::string>(data)); }
  bool write(std::shared_ptr<const std::string> data) override {
    bool cut = false;
    {
      std::lock_guard l(state_->mu);
      if (!state_->open || state_->ended) return false;
      if (data->empty()) return true;
      if (state_->queued_bytes + data->size() > limit_bytes_) {
        state_->open = false;
        state_->drained.notify_all();
        cut = true;
      } else {
        state_->queued_bytes += data->size();
        state_->queue.push_back(std::move(data));
        if (std::exchange(state_->flush_posted, true)) return true;
      }
    }
    if (cut)
      connection_->abort_soon();
    else
      connection_->flush_soon();
    return !cut;
  }
  void close() override { end(); }
  bool open() const override {
    std::lock_guard l(state_->mu);
    return state_->open && !state_->ended;
  }
  bool wait_below(std::size_t bytes) override {
    std::unique_lock l(state_->mu);
    state_->drained.wait(l, [&] { return !state_->open || state_->ended || state_->queued_bytes < bytes; });
    return state_->open && !state_->ended;
  }
  void on_close(std::function<void()> fn) override {
    {
      std::lock_guard l(state_->mu);
      if (state_->open && !state_->ended) {
        state_->on_close = std::move(fn);
        return;
      }
    }
    fn();
  }

 private:
  void end() {
    {
      std::lock_guard l(state_->mu);
      if (!state_->open || std::exchange(state_->ended, true)) return;
      if (std::exchange(state_->flush_posted, true)) return;
    }
    connection_->flush_soon();
  }
  const std::shared_ptr<StreamState> state_;
  const std::shared_ptr<Connection> connection_;
  const std::size_t limit_bytes_;
};

// For one request; on the worker's stack unless detached.
class ConnectionResponder final : public Responder {
 public:
  ConnectionResponder(const ServerOptions& options, std::shared_ptr<Connection> connection, bool gzip)
      : options_(options), connection_(std::move(connection)), gzip_(gzip) {}
  ~ConnectionResponder() override {
    if (!answered_) connection_->answer(refusal(options_, 500, "no answer"));
  }
  ConnectionResponder(const ConnectionResponder&) = delete;
  ConnectionResponder& operator=(const ConnectionResponder&) = delete;
  void send(Response r) override {
    if (std::exchange(answered_, true)) return;
    if (gzip_) gzip_response(r);
    connection_->answer(std::move(r));
  }
  std::shared_ptr<Stream> stream(Response r) override {
    answered_ = true;
    return connection_->answer_stream(std::move(r));
  }
  std::shared_ptr<Responder> detach() override {
    answered_ = true;
    return std::make_shared<ConnectionResponder>(options_, connection_, gzip_);
  }

 private:
  const ServerOptions& options_;  // the server's, which outlives its connections
  const std::shared_ptr<Connection> connection_;
  const bool gzip_;
  bool answered_ = false;
};

}  // namespace

std::shared_ptr<Stream> make_stream_handle(std::shared_ptr<StreamState> state, std::shared_ptr<Connection> connection,
                                           std::size_t limit_bytes) {
  return std::make_shared<StreamHandle>(std::move(state), std::move(connection), limit_bytes);
}

Response refusal(const ServerOptions& o, int status, std::string_view text) {
  if (o.refusal) return o.refusal(status, text);
  Response r;
  r.status = status;
  r.headers.set("Content-Type", "text/plain; charset=utf-8");
  r.body = text;
  r.body += '\n';
  return r;
}

void run_handler(ServerCore& core, const Request& r, const std::shared_ptr<Connection>& connection) {
  ConnectionResponder responder(core.options(), connection, accepts_gzip(r.headers));
  // Our code throws nothing, but the libraries a handler calls may, and one request must not end the process.
  try {
    core.handle(r, responder);
  } catch (const std::exception& e) {
    log::error("http: {} {}: handler threw: {}", r.method, r.path(), e.what());
  }
}

}  // namespace hawser::http
