// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: one connection of the server, and what connections share.
//
// Theory of operation: a connection is a state machine on its own strand: handshake -> reading -> handling (a worker
// has the request; nothing is read) -> writing -> reading ... or, for a stream, -> streaming until closed. Bytes to
// write wait in out_. While streaming it still reads, to see the peer go and to keep what a pipelining client sends
// early. The server's sweep calls abort() on connections whose deadline() passed. Only the StreamState part is touched
// by other threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "lib/http/transport.h"
#include "lib/http/wire.h"
#include "lib/http/workers.h"

namespace hawser::http {

using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Strand>;

struct ConnectionEnds {
  std::string remote;  // "ip:port"
  std::uint16_t local_port = 0;
};

class Connection;

// What a connection needs of its server; outlives every connection and stream.
class ServerCore {
 public:
  virtual ~ServerCore() = default;
  // Runs on a worker thread; false if too much waits already.
  virtual bool submit(Lane lane, std::function<void()> work) = 0;
  virtual void handle(const Request& r, Responder& responder) = 0;
  virtual void closed(Connection& c) = 0;
  [[nodiscard]] virtual const ServerOptions& options() const = 0;
};

// Shared by the connection and the handler's Stream.
struct StreamState {
  std::mutex mu;
  std::vector<std::shared_ptr<const std::string>> queue;  // guarded by mu
  std::size_t front_sent = 0;                             // guarded by mu; of the first in the queue
  std::condition_variable drained;                        // notified when queued_bytes falls or the stream ends
  std::size_t queued_bytes = 0;                           // guarded by mu; unsent, those handed to the socket included
  bool open = true;                                       // guarded by mu; the peer is there
  bool ended = false;                                     // guarded by mu; the handler closed it
  bool flush_posted = false;                              // guarded by mu
  std::function<void()> on_close;                         // guarded by mu
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<ServerCore> core, Socket socket, Transport transport, ConnectionEnds ends);
  ~Connection();

  // Any thread.
  void start();
  void answer(Response r);
  std::shared_ptr<Stream> answer_stream(Response r);
  void flush_soon();
  void abort_soon();
  // Ends at once if idle, after the answer if busy; streams are ended cleanly.
  void stop_soon();
  [[nodiscard]] MonoTime deadline() const { return MonoTime(Nanos(deadline_.load(std::memory_order_relaxed))); }

 private:
  enum class State { kHandshake, kReading, kHandling, kWriting, kStreaming, kLinger, kClosed };

  // All on the strand.
  void handshake();
  void wait_read();
  void wait_write();
  void on_readable();
  void read_all();
  void parse();
  void dispatch();
  void refuse(int status, std::string_view text);
  void send_answer(Response r);
  void begin_stream(Response r);
  void pump();
  void on_drained();
  bool refill_from_stream();
  void finish_message();
  void linger();
  void close();
  void end_stream_state();
  void set_deadline(Nanos from_now);
  void no_deadline();
  [[nodiscard]] Nanos idle_timeout() const;
  [[nodiscard]] Nanos request_timeout() const;

  const std::shared_ptr<ServerCore> core_;
  const ConnectionEnds ends_;
  Socket socket_;
  Transport transport_;
  std::atomic<std::int64_t> deadline_;

  // strand only
  State state_ = State::kHandshake;
  bool waiting_read_ = false;
  bool waiting_write_ = false;
  bool stopping_ = false;
  PeerIdentity peer_;
  std::string in_;
  std::unique_ptr<RequestParser> parser_;
  std::string out_;
  std::size_t out_sent_ = 0;
  std::size_t out_stream_bytes_ = 0;  // of out_, how many count against the stream's queue
  std::size_t lingered_bytes_ = 0;
  bool keep_alive_ = true;     // of the request in progress
  bool head_request_ = false;  // of the request in progress
  bool old_version_ = false;   // of the request in progress: HTTP/1.0
  bool sent_continue_ = false;
  std::shared_ptr<StreamState> stream_;
};

}  // namespace hawser::http
