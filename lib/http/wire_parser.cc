// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "lib/http/wire.h"

namespace hawser::http {
namespace {

namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using beast::error_code;
using beast::string_view;

std::string_view view(string_view s) {
  return {s.data(), s.size()};
}

// Beast's parser, its results put into our own values.
template <bool IsRequest>
class Parser final : public bhttp::basic_parser<IsRequest> {
 public:
  Request request;
  Response response;
  std::function<bool(std::string_view)> on_body;
  bool old_version = false;

  // Whether what comes next is a chunk's header, or the end of the message.
  [[nodiscard]] bool between_chunks() const {
    return this->is_header_done() && this->chunked() && chunk_bytes_left_ == 0;
  }

 private:
  void on_request_impl(bhttp::verb, string_view method, string_view target, int version, error_code&) override {
    request.method = view(method);
    request.target = view(target);
    old_version = version < 11;
  }
  void on_response_impl(int code, string_view, int version, error_code&) override {
    response.status = code;
    old_version = version < 11;
  }
  void on_field_impl(bhttp::field, string_view name, string_view value, error_code&) override {
    (IsRequest ? request.headers : response.headers).add(view(name), view(value));
  }
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(boost::optional<std::uint64_t> const& size, error_code&) override {
    if (IsRequest && size) request.body.reserve(static_cast<std::size_t>(*size));
  }
  std::size_t take_body(string_view data, error_code& ec) {
    if (on_body) {
      if (!on_body(view(data))) ec = make_error_code(boost::system::errc::operation_canceled);
    } else {
      request.body.append(data.data(), data.size());
    }
    return data.size();
  }
  std::size_t on_body_impl(string_view data, error_code& ec) override { return take_body(data, ec); }
  void on_chunk_header_impl(std::uint64_t size, string_view, error_code&) override { chunk_bytes_left_ = size; }
  std::size_t on_chunk_body_impl(std::uint64_t left, string_view data, error_code& ec) override {
    chunk_bytes_left_ = left - data.size();
    return take_body(data, ec);
  }
  void on_finish_impl(error_code&) override {}

  std::uint64_t chunk_bytes_left_ = 0;
};

int status_of(const error_code& ec) {
  if (ec == bhttp::error::body_limit) return 413;
  if (ec == bhttp::error::header_limit) return 431;
  if (ec == boost::system::errc::operation_canceled) return ECANCELED;
  return 400;
}

template <class P>
Result<std::size_t> feed_parser(P& p, std::string_view bytes) {
  // "0\r\n\r\n". With less of it, after the "0\r\n", Beast ends the program by an assertion: we wait until it can be
  // whole.
  constexpr std::size_t kShortestEnd = 5;
  std::size_t used = 0;
  while (used < bytes.size() && !p.is_done()) {
    if (p.between_chunks() && bytes.size() - used < kShortestEnd) break;
    error_code ec;
    std::size_t n = p.put(boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), ec);
    used += n;
    if (ec == bhttp::error::need_more) break;
    if (ec) return fail(status_of(ec), "malformed HTTP message: {}", ec.message());
    if (n == 0) break;
  }
  // Beast applies its limit only to whole lines; an endless first line is caught here.
  if (!p.is_header_done() && bytes.size() - used > kMaxHeaderBytes)
    return fail(431, "header longer than {} bytes", kMaxHeaderBytes);
  return used;
}

bool lists_token(std::string_view value, std::string_view token) {
  return std::ranges::search(value, token, [](unsigned char a, unsigned char b) {
           return std::tolower(a) == b;
         }).begin() != value.end();
}

}  // namespace

struct RequestParser::Impl {
  Parser<true> p;
};
RequestParser::RequestParser(std::size_t max_body_bytes) : impl_(std::make_unique<Impl>()) {
  impl_->p.header_limit(kMaxHeaderBytes);
  impl_->p.body_limit(max_body_bytes);
  impl_->p.eager(true);
}
RequestParser::~RequestParser() = default;
Result<std::size_t> RequestParser::feed(std::string_view bytes) {
  auto used = feed_parser(impl_->p, bytes);
  if (!used || !impl_->p.is_header_done()) return used;
  // Proxies' absolute form; everything behind us works on paths. "*" is OPTIONS' own form.
  auto& target = impl_->p.request.target;
  if (target.starts_with("http://") || target.starts_with("https://")) {
    auto slash = target.find('/', target.find("//") + 2);
    target = slash == std::string::npos ? "/" : target.substr(slash);
  }
  if (!target.starts_with('/') && target != "*") return fail(400, "malformed request target");
  return used;
}
bool RequestParser::header_done() const {
  return impl_->p.is_header_done();
}
bool RequestParser::done() const {
  return impl_->p.is_done();
}
Request RequestParser::take() {
  return std::move(impl_->p.request);
}
bool RequestParser::keep_alive() const {
  return impl_->p.is_header_done() && impl_->p.keep_alive();
}
bool RequestParser::http_1_0() const {
  return impl_->p.old_version;
}
bool RequestParser::expects_continue() const {
  return !impl_->p.old_version && lists_token(impl_->p.request.headers.get("Expect"), "100-continue");
}

struct ResponseParser::Impl {
  Parser<false> p;
};
ResponseParser::ResponseParser(bool head_request, std::function<bool(std::string_view)> on_body)
    : impl_(std::make_unique<Impl>()) {
  impl_->p.on_body = std::move(on_body);
  impl_->p.header_limit(kMaxHeaderBytes);
  impl_->p.body_limit(boost::none);
  impl_->p.skip(head_request);
  // Not eager: the caller looks at the head before any body is delivered.
}
ResponseParser::~ResponseParser() = default;
Result<std::size_t> ResponseParser::feed(std::string_view bytes) {
  if (impl_->p.is_header_done()) impl_->p.eager(true);
  bool had_header = impl_->p.is_header_done();
  if (had_header) return feed_parser(impl_->p, bytes);
  error_code ec;
  std::size_t used = impl_->p.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (ec && ec != bhttp::error::need_more) return fail(EPROTO, "malformed HTTP response: {}", ec.message());
  return used;
}
Result<> ResponseParser::feed_end() {
  error_code ec;
  if (!impl_->p.is_header_done()) return fail(ECONNRESET, "connection closed before an answer");
  impl_->p.put_eof(ec);
  if (ec || !impl_->p.is_done()) return fail(ECONNRESET, "connection closed in the middle of an answer");
  return {};
}
bool ResponseParser::header_done() const {
  return impl_->p.is_header_done();
}
bool ResponseParser::done() const {
  return impl_->p.is_done();
}
bool ResponseParser::keep_alive() const {
  return impl_->p.is_header_done() && impl_->p.keep_alive();
}
Response& ResponseParser::head() {
  return impl_->p.response;
}

}  // namespace hawser::http
