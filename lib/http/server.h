// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 server with TLS on Boost.Beast. I/O (accept, handshake, parse, write) runs on the server's own I/O threads;
// each complete request is handed to `handler` on a worker thread, which may block. Limits: 3 MiB body (413), 64 KiB
// headers (431), requests that wait or run (429; streams do not count), the time to arrive and the time to wait for a
// worker (504).
//
// A handler answers exactly once, through Responder: send() for a whole response, or stream() for one that goes on
// (watch, log follow); or takes the answer to another thread by detach(). Stream writes never block: they queue, and a
// stream whose queue passes `stream_queue_bytes` is cut, so that one slow reader costs bounded memory. Bodies over 16
// KiB are gzipped when the client accepts it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/http/message.h"
#include "lib/http/tls.h"

namespace hawser::http {

// The open body of a streaming response. Any thread. Dropping the last reference ends the response cleanly.
class Stream {
 public:
  virtual ~Stream() = default;
  // False once the peer is gone or the stream was cut; the data is then dropped.
  virtual bool write(std::string_view data) = 0;
  // Data shared by many streams (one watch event, serialized once).
  virtual bool write(std::shared_ptr<const std::string> data) = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual bool open() const = 0;
  // For a writer with more data than the queue holds (a log file): blocks until less than `bytes` are queued. False
  // once the peer is gone. Never on an I/O thread.
  virtual bool wait_below(std::size_t bytes) = 0;
  // Called once, on an I/O thread, when the peer goes or the stream is closed (at once if it is already).
  virtual void on_close(std::function<void()> fn) = 0;
};

class Responder {
 public:
  virtual ~Responder() = default;
  virtual void send(Response r) = 0;
  // Sends status and headers, chunked; r.body goes out as the first chunk if not empty.
  virtual std::shared_ptr<Stream> stream(Response r) = 0;
  // A responder to answer with later, on any thread; this one is done. Dropped without an answer it answers 500.
  virtual std::shared_ptr<Responder> detach() = 0;
};

using Handler = std::function<void(const Request&, Responder&)>;

struct ServerOptions {
  int io_threads = 1;
  int worker_threads = 8;
  std::size_t max_reads = 400;   // GET and HEAD that wait or run
  std::size_t max_writes = 200;  // all others
  std::size_t max_body_bytes = 3u << 20;
  std::size_t stream_queue_bytes = 4u << 20;
  std::int64_t idle_timeout_seconds = 180;    // between requests
  std::int64_t request_timeout_seconds = 60;  // from a request's first byte to its last, and then for a worker
  // The answer to a request that never reaches the handler; null: plain text.
  std::function<Response(int status, std::string_view text)> refusal;
};

class Server {
 public:
  // tls null: plain HTTP.
  Server(ServerOptions options, std::shared_ptr<TlsContext> tls, Handler handler);
  ~Server();  // stops: closes listeners and connections, joins the threads
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Binds and listens; port 0 picks one. A busy port is an error that names it.
  Result<std::uint16_t> listen(const std::string& address, std::uint16_t port);
  // Closes what listens on `port`, of all addresses; when it returns the port is free. Connections that are open stay.
  // Never on an I/O thread, nor beside stop().
  void unlisten(std::uint16_t port);
  // Serves a socket that already listens (socket activation).
  Result<> adopt(UniqueFd listening);
  void stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace hawser::http
