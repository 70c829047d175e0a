// SPDX-License-Identifier: Apache-2.0
#include "lib/http/message.h"

#include <gtest/gtest.h>

#include "lib/http/tls.h"
#include "lib/http/wire.h"

namespace hawser::http {
namespace {

TEST(MessageTest, HeadersCompareWithoutCase) {
  Headers h;
  h.add("Accept", "a");
  h.add("ACCEPT", "b");
  EXPECT_EQ(h.get("accept"), "a");
  h.set("accept", "c");
  ASSERT_EQ(h.all().size(), 1u);
  EXPECT_EQ(h.get("Accept"), "c");
  EXPECT_EQ(h.get("Other"), "");
}

TEST(MessageTest, ReadsTargets) {
  Request r{.target = "/api/v1/a%2Fb?watch=1&labelSelector=app%3Dweb%2Ctier+x&flag&dup=1&dup=2&bad=%zz&cut=%2"};
  EXPECT_EQ(r.path(), "/api/v1/a%2Fb");
  EXPECT_EQ(r.query("labelSelector"), "app=web,tier x");
  EXPECT_EQ(r.query("dup"), "1");
  EXPECT_EQ(r.query("bad"), "%zz");
  EXPECT_EQ(r.query("cut"), "%2");
  EXPECT_TRUE(r.has_query("flag"));
  EXPECT_FALSE(r.has_query("fla"));
  EXPECT_FALSE(Request{.target = "/"}.has_query("flag"));
}

TEST(MessageTest, PercentCodingIsItsOwnInverse) {
  std::string all;
  for (int c = 0; c < 256; c++) all += static_cast<char>(c);
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_encode("a-b_c.~/ "), "a-b_c.~%2F%20");
}

TEST(WireTest, DataCannotBecomeHeaders) {
  Response r;
  r.headers.set("X-Safe", "1");
  r.headers.set("X-Evil", "1\r\nSet-Cookie: x");
  auto head = response_head(r, {.body_bytes = 3});
  EXPECT_NE(head.find("X-Safe: 1\r\n"), std::string::npos);
  EXPECT_EQ(head.find("Set-Cookie"), std::string::npos);
  EXPECT_NE(head.find("Content-Length: 3\r\n"), std::string::npos);
}

TEST(WireTest, FramingIsStatedOnce) {
  Request r{.method = "POST", .target = "/a", .body = "abc"};
  for (const char* name : {"host", "Content-Length", "TRANSFER-ENCODING"}) r.headers.add(name, "chunked");
  r.headers.add("X", "1");
  EXPECT_EQ(request_text(r, "h"), "POST /a HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 3\r\n\r\nabc");
}

TEST(WireTest, ParsersTakeAnySplit) {
  std::string request =
      "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;e=1\r\ndefg\r\n0\r\n\r\n";
  for (std::size_t step = 1; step < request.size(); step++) {
    RequestParser p(1000);
    std::string unread;
    for (std::size_t at = 0; at < request.size(); at += step) {
      unread += request.substr(at, step);
      auto used = p.feed(unread);
      ASSERT_TRUE(used) << used.error().text;
      unread.erase(0, *used);
    }
    ASSERT_TRUE(p.done()) << step;
    EXPECT_EQ(p.take().body, "abcdefg");
    EXPECT_EQ(unread, "");
  }
}

TEST(WireTest, EmptyChunkedBodyMayDribbleIn) {
  RequestParser p(1000);
  std::string unread = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const char* more : {"0\r\n", "\r", "\n"}) {
    EXPECT_FALSE(p.done());
    unread += more;
    auto used = p.feed(unread);
    ASSERT_TRUE(used) << used.error().text;
    unread.erase(0, *used);
  }
  ASSERT_TRUE(p.done());
  EXPECT_EQ(p.take().body, "");
  EXPECT_EQ(unread, "");
}

TEST(WireTest, AcceptsGzip) {
  auto accepts = [](std::string_view v) {
    Headers h;
    h.set("Accept-Encoding", v);
    return accepts_gzip(h);
  };
  EXPECT_TRUE(accepts("gzip"));
  EXPECT_TRUE(accepts("deflate, gzip;q=0.5"));
  EXPECT_FALSE(accepts("gzip;q=0, br"));
  EXPECT_FALSE(accepts("br"));
}

TEST(TlsTest, BadInputIsAnError) {
  EXPECT_FALSE(TlsContext::client("no pem", {}));
  EXPECT_FALSE(TlsContext::server({"x", "y"}, ""));
  auto a = make_ca("a").value();
  auto b = make_ca("b").value();
  auto r = TlsContext::server({a.cert, b.key}, "");
  ASSERT_FALSE(r);
  EXPECT_FALSE(issue(a, {.common_name = "x", .ip_addresses = {"not an address"}}));
  EXPECT_FALSE(issue({"", ""}, {.common_name = "x"}));
}

}  // namespace
}  // namespace hawser::http
