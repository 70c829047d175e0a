// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: bytes over one nonblocking socket, plain or TLS. Says what to wait for instead of waiting, so
// the server's event loop and the client's poll() share it. OpenSSL works on the socket directly: Asio's TLS stream
// would keep about 68 KiB of buffers a connection, too much for hundreds of idle watches. Does not own the descriptor.
// One thread at a time.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/http/message.h"
#include "lib/http/openssl_handle.h"

namespace hawser::http {

enum class Io { kOk, kWantRead, kWantWrite, kEof, kError };

class Transport {
 public:
  Transport() = default;
  static Transport plain(int fd);
  static Result<Transport> server(int fd, TlsContext& tls);
  // Checks the server's certificate against `name` (an address or a host name), which is also sent as SNI.
  static Result<Transport> client(int fd, TlsContext& tls, const std::string& name);

  // kOk when done; plain transports are done at once.
  Io handshake();
  // n > 0 with kOk.
  Io read(std::span<char> into, std::size_t& n);
  Io write(std::string_view data, std::size_t& n);
  // Sends TLS close_notify if it can be sent at once.
  void close_notify();

  // What the last kError was.
  [[nodiscard]] const Error& error() const { return error_; }
  // The peer spoke plain HTTP to a TLS port.
  [[nodiscard]] bool peer_spoke_plain_http() const { return plain_http_; }
  // From the verified certificate; empty without one.
  [[nodiscard]] PeerIdentity peer_identity() const;

 private:
  static Result<Transport> tls(int fd, TlsContext& tls);
  Io result_of(int ret, const char* step);
  int fd_ = -1;
  SslPtr ssl_;  // null: plain
  Error error_;
  bool plain_http_ = false;
  bool broken_ = false;  // after a fatal error SSL_shutdown must not be called
};

}  // namespace hawser::http
