// SPDX-License-Identifier: Apache-2.0
// Internal to lib/http: HTTP/1.1 messages to and from bytes. Parsing is Boost.Beast's, kept behind these classes so
// that its templates are compiled once. Pure.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/http/message.h"

namespace hawser::http {

inline constexpr std::size_t kMaxHeaderBytes = 64u << 10;

// One message being read. feed() takes the unread bytes and says how many it used; what it did not use must come again
// in front of more. Errors carry the HTTP status to answer: 400, 413 or 431.
class RequestParser {
 public:
  explicit RequestParser(std::size_t max_body_bytes);
  ~RequestParser();
  Result<std::size_t> feed(std::string_view bytes);
  [[nodiscard]] bool header_done() const;
  [[nodiscard]] bool done() const;
  // Only after done().
  Request take();
  [[nodiscard]] bool keep_alive() const;
  [[nodiscard]] bool http_1_0() const;
  [[nodiscard]] bool expects_continue() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class ResponseParser {
 public:
  // Body bytes go to `on_body` as they come; false from it stops the parse (feed() then reports code ECANCELED).
  explicit ResponseParser(bool head_request, std::function<bool(std::string_view)> on_body);
  ~ResponseParser();
  Result<std::size_t> feed(std::string_view bytes);
  // The connection ended: success if the body is one that ends so.
  Result<> feed_end();
  [[nodiscard]] bool header_done() const;
  [[nodiscard]] bool done() const;
  [[nodiscard]] bool keep_alive() const;
  // Status and headers.
  [[nodiscard]] Response& head();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

enum class Framing { kLength, kChunked, kUntilClose, kNone };
struct HeadOptions {
  Framing framing = Framing::kLength;
  std::size_t body_bytes = 0;  // for kLength
  bool keep_alive = true;
};
// Status line and headers with the empty line; Content-Length, Transfer-Encoding, Host, Connection and Date are ours to
// set; of the first three, what the message itself says is left out.
std::string response_head(const Response& r, const HeadOptions& o);
std::string request_text(const Request& r, std::string_view host);

void append_chunk(std::string& out, std::string_view data);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// Gzips r.body in place with its headers, if it is long enough to pay.
inline constexpr std::size_t kGzipMinBytes = 16u << 10;
void gzip_response(Response& r);
[[nodiscard]] bool accepts_gzip(const Headers& h);

}  // namespace hawser::http
