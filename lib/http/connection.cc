// SPDX-License-Identifier: Apache-2.0
#include "lib/http/connection.h"

#include <array>
#include <utility>

#include <boost/asio/post.hpp>

#include "lib/http/responder.h"

namespace hawser::http {
namespace {

using boost::system::error_code;
using namespace std::chrono_literals;

constexpr Nanos kHandshakeTimeout = 10s;
constexpr Nanos kWriteTimeout = 60s;  // without any progress
constexpr Nanos kLingerTimeout = 3s;
constexpr std::size_t kMaxLingerBytes = 16u << 20;
constexpr std::size_t kMaxPipelinedBytes = 64u << 10;
constexpr std::size_t kBatchBytes = 64u << 10;
constexpr std::size_t kReadBytes = 16u << 10;

}  // namespace

Connection::Connection(std::shared_ptr<ServerCore> core, Socket socket, Transport transport, ConnectionEnds ends)
    : core_(std::move(core)), ends_(std::move(ends)), socket_(std::move(socket)), transport_(std::move(transport)) {
  set_deadline(kHandshakeTimeout);
}
Connection::~Connection() {
  end_stream_state();
}

void Connection::start() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->handshake(); });
}
void Connection::answer(Response r) {
  boost::asio::post(socket_.get_executor(),
                    [self = shared_from_this(), r = std::move(r)]() mutable { self->send_answer(std::move(r)); });
}
std::shared_ptr<Stream> Connection::answer_stream(Response r) {
  auto state = std::make_shared<StreamState>();
  boost::asio::post(socket_.get_executor(), [self = shared_from_this(), state, r = std::move(r)]() mutable {
    self->stream_ = std::move(state);
    self->begin_stream(std::move(r));
  });
  return make_stream_handle(state, shared_from_this(), core_->options().stream_queue_bytes);
}
void Connection::flush_soon() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->state_ == State::kStreaming) self->pump();
  });
}
void Connection::abort_soon() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->close(); });
}
void Connection::stop_soon() {
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->stopping_ = true;
    bool idle = self->state_ == State::kReading || self->state_ == State::kHandshake || self->state_ == State::kLinger;
    if (idle) return self->close();
    if (!self->stream_) return;
    {
      std::lock_guard l(self->stream_->mu);
      self->stream_->ended = true;
    }
    if (self->state_ == State::kStreaming) self->pump();
  });
}

void Connection::set_deadline(Nanos from_now) {
  deadline_.store((system_clock().now() + from_now).time_since_epoch().count(), std::memory_order_relaxed);
}
void Connection::no_deadline() {
  deadline_.store(MonoTime::max().time_since_epoch().count(), std::memory_order_relaxed);
}
Nanos Connection::idle_timeout() const {
  return std::chrono::seconds(core_->options().idle_timeout_seconds);
}
Nanos Connection::request_timeout() const {
  return std::chrono::seconds(core_->options().request_timeout_seconds);
}

void Connection::handshake() {
  if (state_ != State::kHandshake) return;
  switch (transport_.handshake()) {
    case Io::kWantRead:
      return wait_read();
    case Io::kWantWrite:
      return wait_write();
    case Io::kOk:
      break;
    default:
      if (transport_.peer_spoke_plain_http()) {
        static constexpr std::string_view kHint =
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        error_code ignored;
        socket_.write_some(boost::asio::buffer(kHint.data(), kHint.size()), ignored);
      }
      return close();
  }
  peer_ = transport_.peer_identity();
  state_ = State::kReading;
  set_deadline(idle_timeout());
  read_all();
}

void Connection::wait_read() {
  if (state_ == State::kClosed || std::exchange(waiting_read_, true)) return;
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    self->waiting_read_ = false;
    if (!ec) self->on_readable();
  });
}
void Connection::wait_write() {
  if (state_ == State::kClosed || std::exchange(waiting_write_, true)) return;
  socket_.async_wait(Socket::wait_write, [self = shared_from_this()](const error_code& ec) {
    self->waiting_write_ = false;
    if (ec) return;
    if (self->state_ == State::kHandshake) return self->handshake();
    self->pump();
    self->read_all();  // TLS may have had to write before it could read on
  });
}

void Connection::on_readable() {
  if (state_ == State::kHandshake) return handshake();
  read_all();
  if (out_sent_ < out_.size()) pump();  // TLS may have had to read before it could write on
}

// Reads until the socket is empty or there is a request to handle.
void Connection::read_all() {
  // One buffer a thread: idle connections keep none.
  thread_local std::array<char, kReadBytes> scratch;
  while (state_ == State::kReading || state_ == State::kStreaming || state_ == State::kLinger) {
    std::size_t n = 0;
    Io io = transport_.read(scratch, n);
    if (io == Io::kWantRead) return wait_read();
    if (io == Io::kWantWrite) return wait_write();
    if (io != Io::kOk) return close();
    if (state_ == State::kLinger) {
      if ((lingered_bytes_ += n) > kMaxLingerBytes) return close();
      continue;
    }
    in_.append(scratch.data(), n);
    if (state_ == State::kReading)
      parse();
    else if (in_.size() > kMaxPipelinedBytes)
      return close();
  }
}

void Connection::parse() {
  if (in_.empty()) return;
  if (!parser_) {
    parser_ = std::make_unique<RequestParser>(core_->options().max_body_bytes);
    sent_continue_ = false;
    // From the first byte the request has this long in all: a client that drips bytes is not kept.
    set_deadline(request_timeout());
  }
  auto used = parser_->feed(in_);
  if (!used) return refuse(used.error().code, used.error().text);
  in_.erase(0, *used);
  if (parser_->done()) return dispatch();
  if (parser_->header_done() && parser_->expects_continue() && !std::exchange(sent_continue_, true)) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    pump();
  }
}

void Connection::dispatch() {
  keep_alive_ = parser_->keep_alive();
  old_version_ = parser_->http_1_0();
  Request r = parser_->take();
  parser_.reset();
  if (in_.empty()) std::string().swap(in_);
  head_request_ = r.method == "HEAD";
  r.peer = peer_;
  r.remote = ends_.remote;
  r.local_port = ends_.local_port;
  state_ = State::kHandling;
  no_deadline();
  auto lane = r.method == "GET" || r.method == "HEAD" ? Lane::kRead : Lane::kWrite;
  auto late = system_clock().now() + request_timeout();
  bool taken = core_->submit(lane, [self = shared_from_this(), r = std::move(r), late] {
    if (system_clock().now() < late) return run_handler(*self->core_, r, self);
    self->answer(refusal(self->core_->options(), 504, "the request waited too long"));
  });
  if (taken) return;
  auto busy = refusal(core_->options(), 429, "too many requests, please try again later");
  busy.headers.set("Retry-After", "1");
  send_answer(std::move(busy));
}

// Answers what cannot be read on.
void Connection::refuse(int status, std::string_view text) {
  parser_.reset();
  keep_alive_ = false;
  head_request_ = false;
  send_answer(refusal(core_->options(), status, text));
}

void Connection::send_answer(Response r) {
  if (state_ == State::kClosed) return;
  bool no_body = r.status == 204 || r.status == 304 || r.status < 200;
  HeadOptions o{.framing = no_body ? Framing::kNone : Framing::kLength,
                .body_bytes = r.body.size(),
                .keep_alive = keep_alive_ && !stopping_};
  keep_alive_ = o.keep_alive;
  // Clients of 1.0 keep a connection only if told so in words.
  if (keep_alive_ && old_version_) r.headers.set("Connection", "keep-alive");
  out_ += response_head(r, o);
  if (!no_body && !head_request_) out_ += r.body;
  state_ = State::kWriting;
  pump();
}

void Connection::begin_stream(Response r) {
  if (state_ == State::kClosed) return end_stream_state();
  if (old_version_ || stopping_) keep_alive_ = false;
  HeadOptions o{.framing = old_version_ ? Framing::kUntilClose : Framing::kChunked, .keep_alive = keep_alive_};
  out_ += response_head(r, o);
  if (!head_request_) {
    if (old_version_)
      out_ += r.body;
    else
      append_chunk(out_, r.body);
  }
  state_ = State::kStreaming;
  if (stopping_ || head_request_) {
    std::lock_guard l(stream_->mu);
    stream_->ended = true;
  }
  pump();
  if (state_ == State::kStreaming) read_all();
}

// Writes out_ until it is empty or the socket is full.
void Connection::pump() {
  while (state_ != State::kClosed) {
    if (out_sent_ == out_.size()) {
      out_.clear();
      out_sent_ = 0;
      if (refill_from_stream()) continue;
      if (out_.capacity() > kReadBytes) std::string().swap(out_);
      return on_drained();
    }
    std::size_t n = 0;
    Io io = transport_.write(std::string_view(out_).substr(out_sent_), n);
    out_sent_ += n;
    if (io == Io::kOk) {
      if (state_ != State::kReading) set_deadline(kWriteTimeout);
      continue;
    }
    if (deadline() == MonoTime::max()) set_deadline(kWriteTimeout);
    if (io == Io::kWantWrite) return wait_write();
    if (io == Io::kWantRead) return wait_read();
    return close();
  }
}

void Connection::on_drained() {
  if (state_ == State::kStreaming) return no_deadline();
  if (state_ == State::kWriting) finish_message();
}

// Takes what the handler wrote meanwhile, as one chunk a batch; false if there is nothing to send now.
bool Connection::refill_from_stream() {
  if (state_ != State::kStreaming) return false;
  std::string batch;
  bool ended = false;
  {
    std::lock_guard l(stream_->mu);
    stream_->queued_bytes -= std::exchange(out_stream_bytes_, 0);
    stream_->drained.notify_all();
    stream_->flush_posted = false;
    std::size_t taken = 0;
    while (taken < stream_->queue.size() && batch.size() < kBatchBytes) {
      // Pieces of a large write, not a copy of it: a thousand streams may share what is queued, and out_ is each one's.
      auto rest = std::string_view(*stream_->queue[taken]).substr(stream_->front_sent);
      auto piece = rest.substr(0, kBatchBytes - batch.size());
      batch += piece;
      bool whole = piece.size() == rest.size();
      stream_->front_sent = whole ? 0 : stream_->front_sent + piece.size();
      if (whole) taken++;
    }
    stream_->queue.erase(stream_->queue.begin(), stream_->queue.begin() + static_cast<std::ptrdiff_t>(taken));
    out_stream_bytes_ = batch.size();
    ended = stream_->ended && stream_->queue.empty();
  }
  if (head_request_) batch.clear();
  if (old_version_)
    out_ += batch;
  else
    append_chunk(out_, batch);
  if (ended) {
    if (!old_version_ && !head_request_) out_ += kLastChunk;
    state_ = State::kWriting;
    out_stream_bytes_ = 0;
    end_stream_state();
    stream_.reset();
  }
  return !out_.empty();
}

// An answer is out: on to the next request, or the end.
void Connection::finish_message() {
  if (stopping_) return close();
  if (!keep_alive_) return linger();
  state_ = State::kReading;
  set_deadline(idle_timeout());
  // Posted, not called: a client that pipelines many small requests must not grow the stack.
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->state_ != State::kReading) return;
    self->parse();
    if (self->state_ == State::kReading) self->read_all();
  });
}

// Closing with unread input would reset the connection, and the peer might lose the answer; so the input is read away
// first.
void Connection::linger() {
  state_ = State::kLinger;
  set_deadline(kLingerTimeout);
  transport_.close_notify();
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  read_all();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  if (state_ != State::kLinger) transport_.close_notify();
  state_ = State::kClosed;
  parser_.reset();
  error_code ignored;
  socket_.close(ignored);
  end_stream_state();
  core_->closed(*this);
}

void Connection::end_stream_state() {
  if (!stream_) return;
  std::function<void()> fn;
  {
    std::lock_guard l(stream_->mu);
    stream_->open = false;
    stream_->queue.clear();
    stream_->drained.notify_all();
    fn = std::exchange(stream_->on_close, nullptr);
  }
  if (fn) fn();
}

}  // namespace hawser::http
