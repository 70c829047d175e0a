// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 parsers. The first byte says how the rest, the bytes of a connection, is cut into pieces: wherever they are
// cut, the same message comes out; and a request that was read and is written again reads the same.
#include <memory>
#include <optional>

#include "lib/http/wire.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace hawser;
using fuzz::check;

constexpr std::size_t kMaxBody = 4096;

// Feeds `bytes` in pieces of `piece`. True: the parser has the whole message; false: it wants more; error: as it said.
template <class Parser>
Result<bool> feed(Parser& p, std::string_view bytes, std::size_t piece) {
  std::string unread;
  for (std::size_t at = 0; at < bytes.size() && !p.done();) {
    auto more = bytes.substr(at, piece);
    at += more.size();
    unread += more;
    for (;;) {
      auto used = p.feed(unread);
      if (!used) return propagate(used);
      check(*used <= unread.size(), "used more than there was");
      unread.erase(0, *used);
      if (*used == 0 || unread.empty() || p.done()) break;
    }
  }
  return p.done();
}

bool same(const http::Request& a, const http::Request& b) {
  return a.method == b.method && a.target == b.target && a.headers.all() == b.headers.all() && a.body == b.body;
}

void check_request(std::string_view bytes, std::size_t piece) {
  http::RequestParser whole(kMaxBody);
  http::RequestParser cut(kMaxBody);
  auto a = feed(whole, bytes, bytes.size());
  auto b = feed(cut, bytes, piece);
  if (!a) check(a.error().code >= 400 && a.error().code < 600, a.error().text);
  check((a && *a) == (b && *b), "cutting changed the outcome");
  if (!a || !*a) return;
  check(whole.keep_alive() == cut.keep_alive() && whole.http_1_0() == cut.http_1_0());
  auto request = whole.take();
  check(same(request, cut.take()), "cutting changed the request");
  check(request.body.size() <= kMaxBody);

  http::RequestParser again(kMaxBody);
  auto text = http::request_text(request, "host");
  auto c = feed(again, text, text.size());
  check(c && *c, "what we write is not readable: " + text);
  auto copy = again.take();
  check(copy.method == request.method && copy.target == request.target && copy.body == request.body, text);
}

void check_response(std::string_view bytes, std::size_t piece) {
  std::string body_whole;
  std::string body_cut;
  http::ResponseParser whole(false, [&](std::string_view s) { return body_whole += s, true; });
  http::ResponseParser cut(false, [&](std::string_view s) { return body_cut += s, true; });
  auto a = feed(whole, bytes, bytes.size());
  auto b = feed(cut, bytes, piece);
  check((a && *a) == (b && *b), "cutting changed the outcome");
  if (!a || !b) return;
  check(whole.header_done() == cut.header_done());
  if (!whole.header_done()) return;
  check(whole.head().status == cut.head().status && whole.head().headers.all() == cut.head().headers.all());
  check(body_whole == body_cut, "cutting changed the body");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  std::size_t piece = 1 + data[0] % 16;
  std::string_view bytes = fuzz::Input(data + 1, size - 1).rest();
  if (bytes.starts_with("HTTP"))
    check_response(bytes, piece);
  else
    check_request(bytes, piece);
  return 0;
}
