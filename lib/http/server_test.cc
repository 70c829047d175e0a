// SPDX-License-Identifier: Apache-2.0
// Server and client together, over TLS and plain, on loopback and ports the kernel picks. What a client of ours would
// never send goes through a raw socket.
#include "lib/http/server.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "lib/base/clock.h"
#include "lib/base/endian.h"
#include "lib/http/client.h"
#include "lib/http/tls.h"
#include "lib/testing/fd_leak_check.h"

namespace hawser::http {
namespace {

using namespace std::chrono_literals;

struct Pki {
  PemPair ca = make_ca("test-ca").value();
  PemPair server =
      issue(ca, {.common_name = "server", .dns_names = {"localhost"}, .ip_addresses = {"127.0.0.1"}, .server = true})
          .value();
  PemPair alice = issue(ca, {.common_name = "alice", .organizations = {"dev", "ops"}}).value();
};
const Pki& pki() {
  static const Pki p;
  return p;
}

// Waits for a condition that another thread makes true.
class Flag {
 public:
  void set() {
    std::lock_guard l(mu_);
    set_ = true;
    cv_.notify_all();
  }
  bool wait() {
    std::unique_lock l(mu_);
    return cv_.wait_for(l, 20s, [&] { return set_; });
  }

 private:
  std::mutex mu_;
  std::condition_variable cv_;
  bool set_ = false;
};

// "/echo" answers what it got; "/who" the identity; "/big" 100 KiB; "/throw" throws; "/none" never answers; "/stream"
// counts.
void handle(const Request& r, Responder& out) {
  Response a;
  if (r.path() == "/echo") a.body = r.method + " " + r.target + " " + r.body;
  if (r.path() == "/len") a.body = std::to_string(r.body.size());
  if (r.path() == "/who") {
    a.body = r.peer.user;
    for (const auto& g : r.peer.groups) a.body += "," + g;
  }
  if (r.path() == "/big") a.body = std::string(100 << 10, 'x');
  if (r.path() == "/none") return;
  if (r.path() == "/throw") throw std::runtime_error("handler");
  if (r.path() == "/empty") a.status = 204;
  if (r.path() == "/stream") {
    auto s = out.stream({.body = "0\n"});
    for (int i = 1; i < 1000; i++) s->write(std::to_string(i) + "\n");
    return;
  }
  out.send(std::move(a));
}

class Fixture {
 public:
  explicit Fixture(bool tls, Handler h = handle, ServerOptions o = {})
      : server(o, tls ? TlsContext::server(pki().server, pki().ca.cert).value() : nullptr, std::move(h)) {
    port = server.listen("127.0.0.1", 0).value();
  }
  ClientOptions options(const PemPair& own = {}) const {
    return {.host = "127.0.0.1", .port = port, .tls = TlsContext::client(pki().ca.cert, own).value()};
  }
  ClientOptions plain() const { return {.host = "127.0.0.1", .port = port}; }
  Server server;
  std::uint16_t port = 0;
};

UniqueFd dial(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in a{.sin_family = AF_INET, .sin_port = be16(port).network(), .sin_addr = {be32(INADDR_LOOPBACK).network()}};
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  return fd;
}
void put(const UniqueFd& fd, std::string_view s) {
  (void)!::send(fd.get(), s.data(), s.size(), MSG_NOSIGNAL);
}
// Until the server closes.
std::string drain(const UniqueFd& fd) {
  std::string out;
  char buf[4096];
  for (;;) {
    pollfd p{fd.get(), POLLIN, 0};
    if (::poll(&p, 1, 20000) <= 0) return out + "<timeout>";
    ssize_t n = ::recv(fd.get(), buf, sizeof buf, 0);
    if (n <= 0) return out;
    out.append(buf, static_cast<std::size_t>(n));
  }
}
// One exchange with a server that closes after it.
std::string raw(std::uint16_t port, std::string_view request) {
  auto fd = dial(port);
  put(fd, request);
  return drain(fd);
}

TEST(HttpTest, AnswersOverTlsAndPlain) {
  testing::FdLeakCheck leaks;
  for (bool tls : {true, false}) {
    Fixture f(tls);
    Client c(tls ? f.options() : f.plain());
    for (int i = 0; i < 3; i++) {
      auto r = c.send({.method = "POST", .target = "/echo?a=b%20c", .body = "hello"});
      ASSERT_TRUE(r) << r.error().text;
      EXPECT_EQ(r->status, 200);
      EXPECT_EQ(r->body, "POST /echo?a=b%20c hello");
    }
    auto head = c.send({.method = "HEAD", .target = "/big"});
    ASSERT_TRUE(head) << head.error().text;
    EXPECT_EQ(head->body, "");
    EXPECT_EQ(head->headers.get("content-length"), std::to_string(100 << 10));
    auto empty = c.send({.target = "/empty"});
    ASSERT_TRUE(empty) << empty.error().text;
    EXPECT_EQ(empty->status, 204);
    auto stream = c.send({.target = "/stream"});
    ASSERT_TRUE(stream) << stream.error().text;
    EXPECT_TRUE(stream->body.starts_with("0\n1\n2\n"));
    EXPECT_TRUE(stream->body.ends_with("998\n999\n"));
  }
}

TEST(HttpTest, TakesIdentityFromTheVerifiedCertificateOnly) {
  Fixture f(true);
  Client alice(f.options(pki().alice));
  EXPECT_EQ(alice.send({.target = "/who"})->body, "alice,dev,ops");
  Client nobody(f.options());
  EXPECT_EQ(nobody.send({.target = "/who"})->body, "");
  // Same names, another CA: the connection stands, the identity does not.
  auto other = make_ca("test-ca").value();
  Client mallory(f.options(issue(other, {.common_name = "alice", .organizations = {"dev"}}).value()));
  auto r = mallory.send({.target = "/who"});
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_EQ(r->body, "");
  // A server certificate is no client certificate.
  Client server(f.options(pki().server));
  EXPECT_EQ(server.send({.target = "/who"})->body, "");
}

TEST(HttpTest, ClientChecksTheServer) {
  Fixture f(true);
  auto stranger = make_ca("other").value();
  Client c({.host = "127.0.0.1", .port = f.port, .tls = TlsContext::client(stranger.cert, {}).value()});
  auto r = c.send({.target = "/echo"});
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text.find("certificate"), std::string::npos) << r.error().text;
  auto wrong_name = f.options();
  wrong_name.server_name = "example.com";
  r = Client(wrong_name).send({.target = "/echo"});
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text.find("mismatch"), std::string::npos) << r.error().text;
  Client insecure({.host = "127.0.0.1", .port = f.port, .tls = TlsContext::client("", {}, true).value()});
  EXPECT_TRUE(insecure.send({.target = "/echo"}));
}

TEST(HttpTest, HandlerThatThrowsOrForgetsIsA500) {
  Fixture f(false);
  Client c(f.plain());
  EXPECT_EQ(c.send({.target = "/throw"})->status, 500);
  EXPECT_EQ(c.send({.target = "/none"})->status, 500);
  EXPECT_EQ(c.send({.target = "/echo"})->status, 200);
}

TEST(HttpTest, RefusesWhatIsTooLongOrBroken) {
  Fixture f(false, handle, {.max_body_bytes = 1000});
  struct Case {
    const char* name;
    std::string request;
    const char* want;
  };
  const Case cases[] = {
      {"body by length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + std::string(1001, 'b'),
       "HTTP/1.1 413"},
      {"chunked body",
       "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'b'),
       "HTTP/1.1 413"},
      {"headers", "GET /echo HTTP/1.1\r\nX: " + std::string(100 << 10, 'x'), "HTTP/1.1 431"},
      {"garbage", std::string("\x16\x03\x01\x02\0\x01garbage\r\n\r\n", 16), "HTTP/1.1 400"},
      {"version", "GET / HTTP/3.7\r\n\r\n", "HTTP/1.1 400"},
      {"target", "GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"},
      {"length", "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", "HTTP/1.1 400"},
      {"two lengths", "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "HTTP/1.1 400"},
      {"chunk size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"},
  };
  for (const auto& c : cases) {
    auto got = raw(f.port, c.request);
    EXPECT_TRUE(got.starts_with(c.want)) << c.name << ": " << got.substr(0, 200);
  }
}

TEST(HttpTest, SurvivesRandomBytes) {
  Fixture plain(false);
  Fixture tls(true);
  unsigned seed = 1;
  for (int i = 0; i < 200; i++) {
    std::string junk = i % 3 ? "" : "POST /echo HTTP/1.1\r\n";
    for (int n = 0; n < i; n++) junk += static_cast<char>((seed = seed * 1103515245 + 12345) >> 16);
    auto fd = dial(i % 2 ? plain.port : tls.port);
    put(fd, junk);
    ::shutdown(fd.get(), SHUT_WR);
    drain(fd);
  }
  EXPECT_EQ(Client(plain.plain()).send({.target = "/echo"})->status, 200);
  EXPECT_EQ(Client(tls.options()).send({.target = "/echo"})->status, 200);
}

TEST(HttpTest, PlainRequestToTlsPortIsToldSo) {
  Fixture f(true);
  EXPECT_NE(raw(f.port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").find("HTTP request to an HTTPS server"),
            std::string::npos);
}

TEST(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  Fixture f(false);
  std::string many;
  for (int i = 0; i < 200; i++) many += fmt::format("GET /echo?{} HTTP/1.1\r\nHost: a\r\n\r\n", i);
  many += "GET /stream HTTP/1.1\r\nHost: a\r\n\r\nGET /echo?last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  auto got = raw(f.port, many);
  std::size_t at = 0;
  for (int i = 0; i < 200; i++) {
    auto next = got.find(fmt::format("GET /echo?{} ", i), at);
    ASSERT_NE(next, std::string::npos) << i;
    at = next;
  }
  EXPECT_NE(got.find("GET /echo?last", at), std::string::npos);
}

TEST(HttpTest, Http10ClosesAndGetsNoChunks) {
  Fixture f(false);
  auto got = raw(f.port, "GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_EQ(got.find("chunked"), std::string::npos);
  EXPECT_TRUE(got.ends_with("\r\n998\n999\n") || got.ends_with("998\n999\n"));
}

TEST(HttpTest, AnswersExpectContinue) {
  Fixture f(false);
  auto fd = dial(f.port);
  put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
  char buf[64];
  ssize_t n = ::recv(fd.get(), buf, sizeof buf, 0);
  EXPECT_EQ(std::string_view(buf, static_cast<std::size_t>(n)), "HTTP/1.1 100 Continue\r\n\r\n");
  put(fd, "abc");
  EXPECT_TRUE(drain(fd).ends_with("POST /echo abc"));
}

TEST(HttpTest, GzipsLongBodiesForThoseWhoAccept) {
  Fixture f(false);
  Client c(f.plain());
  Request r{.target = "/big"};
  EXPECT_EQ(c.send(r)->body.size(), 100u << 10);
  r.headers.set("accept-encoding", "br, gzip");
  auto zipped = c.send(r).value();
  EXPECT_EQ(zipped.headers.get("Content-Encoding"), "gzip");
  ASSERT_LT(zipped.body.size(), 10u << 10);
  z_stream z{};
  ASSERT_EQ(inflateInit2(&z, 15 + 16), Z_OK);
  std::string plain(200 << 10, '\0');
  z.next_in = reinterpret_cast<Bytef*>(zipped.body.data());
  z.avail_in = static_cast<uInt>(zipped.body.size());
  z.next_out = reinterpret_cast<Bytef*>(plain.data());
  z.avail_out = static_cast<uInt>(plain.size());
  EXPECT_EQ(inflate(&z, Z_FINISH), Z_STREAM_END);
  EXPECT_EQ(z.total_out, 100u << 10);
  inflateEnd(&z);
}

TEST(HttpTest, LongBodiesGoBothWays) {
  for (bool tls : {true, false}) {
    Fixture f(tls);
    Client c(tls ? f.options() : f.plain());
    std::string body(3 << 20, 'y');
    auto r = c.send({.method = "PUT", .target = "/echo", .body = body});
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_EQ(r->body.size(), body.size() + std::string("PUT /echo ").size());
    body += 'y';
    r = c.send({.method = "PUT", .target = "/echo", .body = body});
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_EQ(r->status, 413);
  }
}

// A server whose handler keeps the stream, for tests that write to it.
struct StreamServer {
  explicit StreamServer(bool tls, ServerOptions o = {})
      : f(
            tls,
            [this](const Request&, Responder& out) {
              auto s = out.stream({});
              s->on_close([this] { closed.set(); });
              std::lock_guard l(mu);
              stream = std::move(s);
              begun.set();
            },
            o) {}
  std::mutex mu;
  std::shared_ptr<Stream> stream;
  Flag begun, closed;
  Fixture f;
};

TEST(HttpTest, StreamDeliversEachWriteAtOnce) {
  for (bool tls : {true, false}) {
    StreamServer s(tls);
    Client c(tls ? s.f.options() : s.f.plain());
    int next = 0;
    auto r = c.stream(
        {.target = "/watch"},
        [&](const Response& head) {
          EXPECT_EQ(head.status, 200);
          EXPECT_TRUE(s.begun.wait());
          return s.stream->write("event 0");
        },
        // Each write is only made after the one before has arrived: a write kept back anywhere would end in ETIMEDOUT.
        [&](std::string_view data) {
          EXPECT_EQ(data, fmt::format("event {}", next));
          if (++next == 100) return false;
          s.stream->write(fmt::format("event {}", next));
          return true;
        },
        5s, {});
    EXPECT_TRUE(r) << r.error().text;
    EXPECT_EQ(next, 100);
    EXPECT_TRUE(s.closed.wait());
    EXPECT_FALSE(s.stream->write("after"));
    EXPECT_FALSE(s.stream->open());
  }
}

TEST(HttpTest, StreamStopsWhenAsked) {
  StreamServer s(true);
  Client c(s.f.options());
  std::stop_source stop;
  std::jthread stopper([&] {
    s.begun.wait();
    stop.request_stop();
  });
  auto before = system_clock().now();
  auto r = c.stream(
      {.target = "/"}, [](const Response&) { return true; }, [](std::string_view) { return true; }, 60s,
      stop.get_token());
  EXPECT_TRUE(r) << r.error().text;
  EXPECT_LT(system_clock().now() - before, 10s);
  EXPECT_TRUE(s.closed.wait());
}

TEST(HttpTest, StreamEndsAtItsIdleTimeoutAndAtTheServersClose) {
  StreamServer s(false);
  Client c(s.f.plain());
  auto all = [](const Response&) { return true; };
  auto r = c.stream({.target = "/"}, all, [](std::string_view) { return true; }, 50ms, {});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ETIMEDOUT);
  std::string got;
  StreamServer closing(false);
  r = Client(closing.f.plain())
          .stream(
              {.target = "/"},
              [&](const Response&) {
                EXPECT_TRUE(closing.begun.wait());
                closing.stream->write("bye");
                closing.stream->close();
                return true;
              },
              [&](std::string_view d) {
                got += d;
                return true;
              },
              5s, {});
  EXPECT_TRUE(r) << r.error().text;
  EXPECT_EQ(got, "bye");
}

TEST(HttpTest, SlowReaderIsCut) {
  StreamServer s(false, {.stream_queue_bytes = 1 << 20});
  auto fd = dial(s.f.port);
  put(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(s.begun.wait());
  auto block = std::make_shared<const std::string>(64 << 10, 'z');
  int written = 0;
  while (s.stream->write(block)) ASSERT_LT(++written, 100000);
  EXPECT_TRUE(s.closed.wait());
}

TEST(HttpTest, ManyStreamsCostNoThreadEach) {
  ServerOptions o{.worker_threads = 2};
  std::mutex mu;
  std::vector<std::shared_ptr<Stream>> streams;
  Flag all;
  constexpr std::size_t kStreams = 200;
  Fixture f(
      false,
      [&](const Request&, Responder& out) {
        auto s = out.stream({});
        std::lock_guard l(mu);
        streams.push_back(std::move(s));
        if (streams.size() == kStreams) all.set();
      },
      o);
  std::vector<UniqueFd> fds;
  for (std::size_t i = 0; i < kStreams; i++) {
    fds.push_back(dial(f.port));
    put(fds.back(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  ASSERT_TRUE(all.wait());
  auto event = std::make_shared<const std::string>("event");
  {
    std::lock_guard l(mu);
    for (auto& s : streams) EXPECT_TRUE(s->write(event));
    streams.clear();  // ends each
  }
  for (auto& fd : fds) {
    ::shutdown(fd.get(), SHUT_WR);
    EXPECT_TRUE(drain(fd).ends_with("\r\n\r\n5\r\nevent\r\n0\r\n\r\n"));
  }
}

TEST(HttpTest, ClosesIdleAndDrippingConnections) {
  Fixture f(false, handle, {.idle_timeout_seconds = 1, .request_timeout_seconds = 1});
  EXPECT_EQ(raw(f.port, ""), "");
  EXPECT_EQ(raw(f.port, "GET / HT"), "");
}

// Reads that hang (here: all that may run, and more that wait) leave writes alone; more than the limit are told to come
// again.
TEST(HttpTest, LanesKeepReadsAndWritesApart) {
  Flag go;
  Fixture f(false,
            [&](const Request& r, Responder& out) {
              if (r.method == "GET") go.wait();
              out.send({.body = r.method});
            },
            {.worker_threads = 4, .max_reads = 5, .refusal = [](int status, std::string_view text) {
               return Response{.status = status, .body = "refused: " + std::string(text)};
             }});
  constexpr int kReads = 8;
  std::atomic<int> served = 0;
  std::atomic<int> refused = 0;
  std::vector<std::jthread> readers;
  for (int i = 0; i < kReads; i++) {
    readers.emplace_back([&] {
      Client c(f.plain());
      auto r = c.send({.target = "/"});
      if (!r) return;
      if (r->status == 200) served++;
      if (r->status != 429) return;
      refused++;
      EXPECT_EQ(r->headers.get("Retry-After"), "1");
      EXPECT_TRUE(r->body.starts_with("refused: too many requests"));
      if (refused == kReads - 5) go.set();
    });
  }
  Client c(f.plain());
  for (int i = 0; i < 3; i++) {
    auto w = c.send({.method = "PUT", .target = "/"});
    ASSERT_TRUE(w) << w.error().text;
    EXPECT_EQ(w->body, "PUT");
  }
  readers.clear();
  EXPECT_EQ(served, 5);
  EXPECT_EQ(refused, kReads - 5);
}

TEST(HttpTest, WaitingTooLongForAWorkerIsATimeout) {
  Fixture f(false, handle, {.request_timeout_seconds = 0});
  // With no time at all every request is late.
  EXPECT_TRUE(raw(f.port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 504 "));
}

TEST(HttpTest, DetachedAnswerComesFromAnotherThread) {
  std::vector<std::jthread> later;
  Fixture f(false,
            [&](const Request& r, Responder& out) {
              later.emplace_back([reply = out.detach(), path = std::string(r.path())] {
                if (path == "/answer") reply->send({.body = "later"});
                if (path == "/stream") reply->stream({.body = "a"})->write(std::string_view("b"));
              });
            },
            {.worker_threads = 1});
  Client c(f.plain());
  EXPECT_EQ(c.send({.target = "/answer"}).value().body, "later");
  EXPECT_EQ(c.send({.target = "/stream"}).value().body, "ab");
  EXPECT_EQ(c.send({.target = "/forget"}).value().status, 500);
}

TEST(HttpTest, StopEndsStreamsCleanlyAndWaitsForAnswers) {
  Flag begun;
  Flag go;
  auto f = std::make_unique<Fixture>(false, [&](const Request&, Responder& out) {
    begun.set();
    go.wait();
    out.send({.body = "late"});
  });
  Client c(f->plain());
  Result<Response> r = fail(0, "");
  std::thread t([&] { r = c.send({.target = "/"}); });
  ASSERT_TRUE(begun.wait());
  std::thread stopper([&] { f->server.stop(); });
  go.set();
  stopper.join();
  t.join();
  ASSERT_TRUE(r) << r.error().text;
  EXPECT_EQ(r->body, "late");

  StreamServer s(true);
  Client watcher(s.f.options());
  std::jthread ender([&] {
    s.begun.wait();
    s.f.server.stop();
  });
  auto ended = watcher.stream(
      {.target = "/"}, [](const Response&) { return true; }, [](std::string_view) { return true; }, 20s, {});
  EXPECT_TRUE(ended) << ended.error().text;
  EXPECT_FALSE(s.stream->write("x"));
}

TEST(HttpTest, ClientTriesAgainAfterTheServerRestarted) {
  auto f = std::make_unique<Fixture>(false);
  auto port = f->port;
  Client c(f->plain());
  ASSERT_TRUE(c.send({.target = "/echo"}));
  f.reset();
  auto away = c.send({.target = "/echo"});
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code, ECONNREFUSED) << away.error().text;
  EXPECT_TRUE(is_temporary(away.error()));
  Server again({}, nullptr, handle);
  auto listening = again.listen("127.0.0.1", port);
  ASSERT_TRUE(listening) << listening.error().text;
  EXPECT_TRUE(c.send({.target = "/echo"}));
}

TEST(HttpTest, BusyPortIsNamed) {
  Fixture f(false);
  Server second({}, nullptr, handle);
  auto r = second.listen("127.0.0.1", f.port);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, EADDRINUSE);
  EXPECT_NE(r.error().text.find(fmt::format("127.0.0.1:{}", f.port)), std::string::npos) << r.error().text;
  EXPECT_FALSE(second.listen("nowhere", 1));
}

TEST(HttpTest, AdoptsAListeningSocketOnly) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Server server({}, nullptr, handle);
  EXPECT_FALSE(server.adopt(UniqueFd(::dup(fd.get()))));
  ASSERT_EQ(::listen(fd.get(), 16), 0);
  sockaddr_in a{};
  socklen_t size = sizeof a;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a), &size);
  ASSERT_TRUE(server.adopt(std::move(fd)));
  Client c({.host = "127.0.0.1", .port = be16::from_network(a.sin_port).host()});
  EXPECT_EQ(c.send({.target = "/echo"})->body, "GET /echo ");
}

TEST(HttpTest, ManyClientsAtOnce) {
  Fixture f(true, handle, {.io_threads = 2});
  Client shared(f.options());
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; i++) {
        auto want = fmt::format("/echo?{}-{}", t, i);
        auto r = shared.send({.target = want});
        if (r && r->body == "GET " + want + " ") good++;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(good, 400);
}

TEST(ServerTest, APortCanBeGivenUpAndTakenAgain) {
  Server server({}, nullptr,
                [](const Request& r, Responder& out) { out.send({.body = std::to_string(r.local_port)}); });
  const auto kept = server.listen("127.0.0.1", 0).value();
  const auto given_up = server.listen("127.0.0.1", 0).value();
  for (auto port : {kept, given_up}) {
    Client client({.host = "127.0.0.1", .port = port});
    EXPECT_EQ(client.send({.target = "/"}).value().body, std::to_string(port));
  }
  server.unlisten(given_up);
  EXPECT_FALSE(Client({.host = "127.0.0.1", .port = given_up}).send({.target = "/"}));
  EXPECT_TRUE(Client({.host = "127.0.0.1", .port = kept}).send({.target = "/"}));
  EXPECT_EQ(server.listen("127.0.0.1", given_up).value(), given_up);
  EXPECT_TRUE(Client({.host = "127.0.0.1", .port = given_up}).send({.target = "/"}));
  server.unlisten(1);
}

}  // namespace
}  // namespace hawser::http
