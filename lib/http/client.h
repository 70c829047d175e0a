// SPDX-License-Identifier: Apache-2.0
// Blocking HTTP/1.1 client with TLS and a pool of kept-alive connections to one origin. Any thread; each call uses one
// connection for itself. A request that met a pooled connection the server had closed is tried once more on a new one,
// unless it may have been executed (a method that changes something, already sent).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/http/message.h"
#include "lib/http/tls.h"

namespace hawser::http {

struct ClientOptions {
  std::string host;  // name or address
  std::uint16_t port = 443;
  std::shared_ptr<TlsContext> tls;  // null: plain HTTP
  std::string server_name;          // SNI and certificate name; empty: host
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds request_timeout{30000};
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // The whole exchange. An HTTP status of any value is success here; Error is for transport failures.
  Result<Response> send(const Request& r);

  // Streams the body: `on_head` once with status and headers (body empty; return false to stop), then `on_data` per
  // piece until it returns false, the body ends, `stop` is requested or `idle_timeout` passes without a byte
  // (ETIMEDOUT).
  Result<> stream(const Request& r, const std::function<bool(const Response& head)>& on_head,
                  const std::function<bool(std::string_view data)>& on_data, std::chrono::milliseconds idle_timeout,
                  std::stop_token stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::http
