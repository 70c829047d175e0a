// SPDX-License-Identifier: Apache-2.0
#include "lib/http/wire.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <ctime>

#include <zlib.h>

#include "lib/base/clock.h"

namespace hawser::http {
namespace {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 413:
      return "Request Entity Too Large";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Entity";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

// RFC 9110 section 5.6.7; the names must not depend on the locale, so strftime is no use.
std::string http_date() {
  static constexpr std::array<std::string_view, 7> kDays{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array<std::string_view, 12> kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  auto now = std::chrono::floor<std::chrono::seconds>(system_clock().wall()).time_since_epoch().count();
  thread_local std::int64_t cached_at = -1;
  thread_local std::string cached;
  if (now == cached_at) return cached;
  auto seconds = static_cast<std::time_t>(now);
  std::tm t{};
  gmtime_r(&seconds, &t);
  cached = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[static_cast<std::size_t>(t.tm_wday)], t.tm_mday,
                       kMonths[static_cast<std::size_t>(t.tm_mon)], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
  cached_at = now;
  return cached;
}

// A value with a line break would let data become headers.
bool is_safe(std::string_view s) {
  return s.find_first_of(std::string_view("\r\n\0", 3)) == s.npos;
}

// Where a message ends is ours to say: a second, different statement is how requests are smuggled past a proxy.
bool is_ours(std::string_view name) {
  constexpr std::array<std::string_view, 3> kOurs{"content-length", "host", "transfer-encoding"};
  return std::ranges::any_of(kOurs, [&](std::string_view ours) {
    return std::ranges::equal(name, ours, {}, [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  });
}

void append_headers(std::string& out, const Headers& h) {
  for (const auto& [name, value] : h.all())
    if (is_safe(name) && is_safe(value) && !is_ours(name))
      fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
}

}  // namespace

std::string response_head(const Response& r, const HeadOptions& o) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n", r.status, reason_phrase(r.status), http_date());
  append_headers(out, r.headers);
  if (o.framing == Framing::kLength) fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", o.body_bytes);
  if (o.framing == Framing::kChunked) out += "Transfer-Encoding: chunked\r\n";
  if (!o.keep_alive) out += "Connection: close\r\n";
  out += "\r\n";
  return out;
}

std::string request_text(const Request& r, std::string_view host) {
  std::string out = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\n", r.method, is_safe(r.target) ? r.target : "/", host);
  append_headers(out, r.headers);
  if (!r.body.empty() || r.method == "POST" || r.method == "PUT" || r.method == "PATCH")
    fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", r.body.size());
  out += "\r\n";
  out += r.body;
  return out;
}

void append_chunk(std::string& out, std::string_view data) {
  if (data.empty()) return;  // an empty chunk would end the body
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", data.size());
  out += data;
  out += "\r\n";
}

bool accepts_gzip(const Headers& h) {
  std::string_view v = h.get("Accept-Encoding");
  auto at = v.find("gzip");
  if (at == v.npos) return false;
  auto rest = v.substr(at + 4);
  rest = rest.substr(0, rest.find(','));
  return !rest.contains("q=0") || rest.contains("q=0.");
}

void gzip_response(Response& r) {
  if (r.body.size() <= kGzipMinBytes || !r.headers.get("Content-Encoding").empty()) return;
  z_stream z{};
  // Level 1: on a cluster's network the cheapest level wins; 16 more bits of window make it gzip rather than zlib.
  if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return;
  std::string out(deflateBound(&z, r.body.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(r.body.data());
  z.avail_in = static_cast<uInt>(r.body.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  bool ok = deflate(&z, Z_FINISH) == Z_STREAM_END;
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  if (!ok) return;
  out.shrink_to_fit();
  r.body = std::move(out);
  r.headers.set("Content-Encoding", "gzip");
  r.headers.add("Vary", "Accept-Encoding");
}

}  // namespace hawser::http
