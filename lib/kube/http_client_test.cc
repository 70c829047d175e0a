// SPDX-License-Identifier: Apache-2.0
// HttpClient and kubeconfigs against a small server of the test's own, over TLS on loopback.
#include "lib/kube/http_client.h"

#include <condition_variable>
#include <mutex>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include "lib/base/atomic_file.h"
#include "lib/http/server.h"
#include "lib/kube/informer.h"
#include "lib/kube/kubeconfig.h"
#include "lib/kube/object.h"
#include "lib/kube/status.h"
#include "lib/testing/temp_dir.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

// Answers by a table the test fills, and remembers the requests.
class ApiServer {
 public:
  ApiServer()
      : server_({},
                http::TlsContext::server(issue({.common_name = "api", .ip_addresses = {"127.0.0.1"}, .server = true}),
                                         ca.cert)
                    .value(),
                [this](const http::Request& r, http::Responder& out) { handle(r, out); }) {
    port_ = server_.listen("127.0.0.1", 0).value();
  }
  http::PemPair issue(const http::CertRequest& r) { return http::issue(ca, r).value(); }
  ClientConfig config() {
    return {.server = fmt::format("https://127.0.0.1:{}", port_),
            .ca_pem = ca.cert,
            .own = issue({.common_name = "alice", .organizations = {"dev"}})};
  }
  using Answer = std::function<void(const http::Request&, http::Responder&)>;
  void on(const std::string& method_and_path, Answer a) {
    std::lock_guard l(mu_);
    answers_[method_and_path] = std::move(a);
  }
  void on(const std::string& method_and_path, int status, std::string body) {
    on(method_and_path,
       [=](const http::Request&, http::Responder& out) { out.send({.status = status, .body = body}); });
  }
  http::Request last() {
    std::lock_guard l(mu_);
    return last_;
  }
  const http::PemPair ca = http::make_ca("test").value();

 private:
  void handle(const http::Request& r, http::Responder& out) {
    Answer a;
    {
      std::lock_guard l(mu_);
      last_ = r;
      auto it = answers_.find(r.method + " " + std::string(r.path()));
      if (it != answers_.end()) a = it->second;
    }
    if (a) return a(r, out);
    out.send({.status = 404, .body = "no such page\nat all"});
  }
  std::mutex mu_;
  std::map<std::string, Answer> answers_;  // guarded by mu_
  http::Request last_;                     // guarded by mu_
  std::uint16_t port_ = 0;
  http::Server server_;
};

Object parse(std::string_view s) {
  return boost::json::parse(s).as_object();
}
std::string text(const Status& s) {
  return boost::json::serialize(s.to_json());
}

TEST(HttpClientTest, VerbsHaveTheirPathsAndBodies) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "hawser-test/1").value();
  const std::string pod = R"({"kind":"Pod","metadata":{"name":"p","namespace":"ns","resourceVersion":"5"}})";
  api.on("GET /api/v1/namespaces/ns/pods/p", 200, pod);
  auto got = client->get(kPods, "ns", "p");
  ASSERT_TRUE(got) << got.error().text;
  EXPECT_EQ(name(**got), "p");
  EXPECT_EQ(api.last().peer.user, "alice");
  EXPECT_EQ(api.last().headers.get("User-Agent"), "hawser-test/1");

  api.on("POST /apis/apps/v1/namespaces/ns/deployments", 201, R"({"metadata":{"name":"d"}})");
  ASSERT_TRUE(client->create(kDeployments, "ns", parse(R"({"metadata":{"name":"d"}})")));
  EXPECT_EQ(api.last().headers.get("Content-Type"), "application/json");

  api.on("PUT /api/v1/namespaces/ns/pods/p/status", 200, pod);
  ASSERT_TRUE(client->update(kPods, parse(pod), "status"));
  EXPECT_EQ(parse(api.last().body), parse(pod));

  api.on("PATCH /api/v1/nodes/n", 200, R"({"metadata":{"name":"n"}})");
  ASSERT_TRUE(client->patch(kNodes, "", "n", PatchType::kMerge, parse(R"({"a":1})")));
  EXPECT_EQ(api.last().headers.get("Content-Type"), "application/merge-patch+json");

  api.on("DELETE /api/v1/namespaces/ns/pods/p", 200, R"({"kind":"Status","status":"Success"})");
  ASSERT_TRUE(client->remove(kPods, "ns", "p", {.grace_period_seconds = 0, .uid = "u", .propagation = "Background"}));
  EXPECT_EQ(
      parse(api.last().body),
      parse(
          R"({"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"u"},"propagationPolicy":"Background"})"));

  api.on("POST /api/v1/namespaces/ns/pods/p/binding", 201, R"({"kind":"Status","status":"Success"})");
  ASSERT_TRUE(client->create_sub(kPods, "ns", "p", "binding", parse(R"({"target":{"name":"n"}})")));
}

TEST(HttpClientTest, ErrorsCarryTheStatus) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "t").value();
  api.on("GET /api/v1/namespaces/ns/pods/p", 404, text(not_found("", "pods", "p")));
  auto r = client->get(kPods, "ns", "p");
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error(), (Error{404, "pods \"p\" not found", "NotFound"}));
  api.on("POST /api/v1/namespaces/ns/pods", 409, text(already_exists("", "pods", "p")));
  EXPECT_TRUE(is_exists(client->create(kPods, "ns", {}).error()));
  auto foreign = client->get(kPods, "ns", "other");
  EXPECT_EQ(foreign.error(), (Error{404, "the server answered 404: no such page", ""}));
  api.on("GET /api/v1/nodes/n", 200, "{broken");
  EXPECT_FALSE(client->get(kNodes, "", "n"));
  auto away = api.config();
  away.server = "https://127.0.0.1:1";
  EXPECT_TRUE(is_temporary(HttpClient::make(away, "t").value()->get(kPods, "ns", "p").error()));
  for (const char* bad : {"127.0.0.1:6443", "https://", "https://h:0", "https://h:x", "https://h:65536"}) {
    away.server = bad;
    EXPECT_FALSE(HttpClient::make(away, "t")) << bad;
  }
}

TEST(HttpClientTest, ListsInPagesAndStartsOverWhenTheyAreGone) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "t").value();
  bool gone = false;
  api.on("GET /api/v1/pods", [&](const http::Request& r, http::Responder& out) {
    EXPECT_EQ(r.query("labelSelector"), "app=web");
    auto token = r.query("continue");
    if (token.empty() && r.query("limit") == "500")
      return out.send(
          {.body =
               R"({"metadata":{"resourceVersion":"10","continue":"a/b=="},"items":[{"metadata":{"name":"p1","managedFields":[1]}}]})"});
    if (token == "a/b==" && gone)
      return out.send({.status = 410, .body = text(expired("the continue token has expired"))});
    EXPECT_TRUE(token == "a/b==" || r.query("limit") == "0");
    out.send({.body = R"({"metadata":{"resourceVersion":"11"},"items":[{"metadata":{"name":"p2"}}]})"});
  });
  auto list = client->list(kPods, {.label_selector = "app=web"});
  ASSERT_TRUE(list) << list.error().text;
  ASSERT_EQ(list->items.size(), 2u);
  EXPECT_EQ(list->resource_version, "11");
  EXPECT_EQ(*list->items[0], parse(R"({"metadata":{"name":"p1"},"kind":"Pod","apiVersion":"v1"})"));
  gone = true;
  list = client->list(kPods, {.label_selector = "app=web"});
  ASSERT_TRUE(list) << list.error().text;
  ASSERT_EQ(list->items.size(), 1u);
  EXPECT_EQ(name(*list->items[0]), "p2");
}

std::string event(std::string_view type, std::string_view name, int version) {
  return fmt::format(R"({{"type":"{}","object":{{"metadata":{{"name":"{}","resourceVersion":"{}"}}}}}})", type, name,
                     version) +
         "\n";
}

TEST(HttpClientTest, WatchesAcrossAnySplitOfTheBytes) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "t").value();
  const std::string body =
      event("ADDED", "a", 1) + event("BOOKMARK", "", 2) + event("NEWTYPE", "x", 3) + "\n" + event("DELETED", "a", 4);
  for (std::size_t piece : {1, 7, 1000}) {
    api.on("GET /api/v1/pods", [&](const http::Request& r, http::Responder& out) {
      EXPECT_EQ(r.query("watch"), "true");
      EXPECT_EQ(r.query("allowWatchBookmarks"), "true");
      EXPECT_EQ(r.query("resourceVersion"), "0");
      auto s = out.stream({});
      for (std::size_t at = 0; at < body.size(); at += piece) s->write(std::string_view(body).substr(at, piece));
    });
    std::vector<EventType> got;
    bool opened = false;
    WatchOptions o{{}, "0", [&] { opened = true; }};
    auto ended = client->watch(kPods, o,
                               [&](const WatchEvent& e) {
                                 got.push_back(e.type);
                                 return true;
                               },
                               {});
    EXPECT_TRUE(ended) << ended.error().text;
    EXPECT_TRUE(opened);
    EXPECT_EQ(got, (std::vector{EventType::kAdded, EventType::kBookmark, EventType::kDeleted}));
  }
}

TEST(HttpClientTest, WatchErrorsKeepTheirCode) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "t").value();
  auto watch = [&] { return client->watch(kPods, {}, [](const WatchEvent&) { return true; }, {}); };
  api.on("GET /api/v1/pods", 200,
         R"({"type":"ERROR","object":)" + text(expired("too old resource version: 1 (9)")) + "}\n");
  EXPECT_TRUE(is_gone(watch().error()));
  api.on("GET /api/v1/pods", 410, text(expired("too old")));
  EXPECT_TRUE(is_gone(watch().error()));
  api.on("GET /api/v1/pods", 403, text(forbidden("", "pods", "", "no")));
  EXPECT_EQ(watch().error().code, 403);
  api.on("GET /api/v1/pods", 200, "not json\n");
  EXPECT_FALSE(watch());
  api.on("GET /api/v1/pods", 200,
         R"({"type":"ADDED"})"
         "\n");
  EXPECT_FALSE(watch());
}

TEST(HttpClientTest, RereadsATokenThatWasRotated) {
  ApiServer api;
  testing::TempDir dir;
  ASSERT_TRUE(write_file(dir.file("token"), "old\n"));
  auto config = api.config();
  config.own = {};
  config.token_file = dir.file("token");
  FakeClock clock;
  auto client = HttpClient::make(config, "t", clock).value();
  std::string valid = "Bearer old";
  std::mutex mu;
  api.on("GET /version", [&](const http::Request& r, http::Responder& out) {
    std::lock_guard l(mu);
    bool ok = r.headers.get("Authorization") == valid;
    out.send({.status = ok ? 200 : 401, .body = ok ? "{}" : text(unauthorized())});
  });
  EXPECT_TRUE(client->raw({.target = "/version"}));
  ASSERT_TRUE(write_file(dir.file("token"), "new"));
  EXPECT_TRUE(client->raw({.target = "/version"})) << "the old one is still good and not read again";
  {
    std::lock_guard l(mu);
    valid = "Bearer new";
  }
  EXPECT_TRUE(client->raw({.target = "/version"})) << "a 401 makes it look at the file";
  ASSERT_TRUE(write_file(dir.file("token"), "newer"));
  {
    std::lock_guard l(mu);
    valid = "Bearer newer";
  }
  clock.advance(61s);
  EXPECT_TRUE(client->raw({.target = "/version"}));
  {
    std::lock_guard l(mu);
    valid = "Bearer unknown";
  }
  EXPECT_EQ(client->raw({.target = "/version"}).error().code, 401);
}

TEST(HttpClientTest, FeedsAnInformer) {
  ApiServer api;
  auto client = HttpClient::make(api.config(), "t").value();
  std::mutex mu;
  std::condition_variable cv;
  std::vector<std::string> seen;
  std::shared_ptr<http::Stream> stream;
  api.on("GET /api/v1/pods", [&](const http::Request& r, http::Responder& out) {
    if (!r.has_query("watch"))
      return out.send(
          {.body =
               R"({"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a","resourceVersion":"5"}}]})"});
    EXPECT_EQ(r.query("resourceVersion"), "7");
    auto s = out.stream({});
    s->write(event("ADDED", "b", 8));
    std::lock_guard l(mu);
    stream = std::move(s);
  });
  Informer informer(*client, kPods);
  informer.start({.on_change = [&](const ObjectPtr&, const ObjectPtr& current) {
    std::lock_guard l(mu);
    seen.emplace_back(name(*current));
    cv.notify_all();
  }});
  std::unique_lock l(mu);
  EXPECT_TRUE(cv.wait_for(l, 20s, [&] { return seen.size() == 2; }));
  EXPECT_EQ(seen, (std::vector<std::string>{"a", "b"}));
  l.unlock();
  informer.stop();
  std::lock_guard again(mu);
  stream.reset();
}

TEST(KubeconfigTest, WritesWhatItReads) {
  testing::TempDir dir;
  ClientConfig c{.server = "https://192.0.2.10:6443",
                 .ca_pem = "CA\n",
                 .own = {"CERT", "KEY"},
                 .token = "quo\"te\\\n",
                 .server_name = "api",
                 .ns = "team",
                 .insecure = true};
  ASSERT_TRUE(write_kubeconfig(dir.file("config"), c, "hawser", "admin"));
  auto back = load_kubeconfig(dir.file("config"));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(back->server, c.server);
  EXPECT_EQ(back->ca_pem, c.ca_pem);
  EXPECT_EQ(back->own.cert, "CERT");
  EXPECT_EQ(back->own.key, "KEY");
  EXPECT_EQ(back->token, c.token);
  EXPECT_EQ(back->server_name, "api");
  EXPECT_EQ(back->ns, "team");
  EXPECT_TRUE(back->insecure);
}

constexpr char kFiles[] = R"(
apiVersion: v1
kind: Config
current-context: main
contexts:
- {name: main, context: {cluster: c, user: u}}
- {name: nobody, context: {cluster: c}}
- {name: broken, context: {cluster: absent, user: u}}
- {name: plugin, context: {cluster: c, user: p}}
- {name: half, context: {cluster: c, user: h}}
clusters:
- {name: c, cluster: {server: "https://a:1", certificate-authority: ca.pem}}
users:
- {name: u, user: {tokenFile: token}}
- {name: p, user: {exec: {command: aws}}}
- {name: h, user: {client-certificate-data: Q0VSVA==}}
)";

TEST(KubeconfigTest, ReadsFilesBesideItAndNamesWhatIsWrong) {
  testing::TempDir dir;
  ASSERT_TRUE(write_file(dir.file("config"), kFiles));
  auto missing = load_kubeconfig(dir.file("config"));
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().text.find("certificate-authority"), std::string::npos) << missing.error().text;
  ASSERT_TRUE(write_file(dir.file("ca.pem"), "PEM"));
  auto good = load_kubeconfig(dir.file("config"));
  ASSERT_TRUE(good) << good.error().text;
  EXPECT_EQ(good->ca_pem, "PEM");
  EXPECT_EQ(good->token_file, dir.file("token"));
  EXPECT_TRUE(load_kubeconfig(dir.file("config"), "nobody"));
  struct Case {
    const char* context;
    const char* want;
  };
  for (const auto& c :
       {Case{"broken", "absent"}, Case{"plugin", "exec"}, Case{"half", "client-key"}, Case{"none", "none"}}) {
    auto r = load_kubeconfig(dir.file("config"), c.context);
    ASSERT_FALSE(r) << c.context;
    EXPECT_NE(r.error().text.find(c.want), std::string::npos) << r.error().text;
  }
  for (const char* bad : {"", "[1,2]", "a: [", "current-context: x", "just text"})
    EXPECT_FALSE(parse_kubeconfig(bad, ".")) << bad;
  EXPECT_NE(load_kubeconfig(dir.file("absent")).error().text.find(dir.file("absent")), std::string::npos);
}

TEST(KubeconfigTest, InClusterNeedsItsEnvironment) {
  testing::TempDir dir;
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_FALSE(in_cluster_config(dir.path()));
  ::setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_FALSE(in_cluster_config(dir.path()));
  ASSERT_TRUE(write_file(dir.file("ca.crt"), "CA"));
  ASSERT_TRUE(write_file(dir.file("token"), "T"));
  auto c = in_cluster_config(dir.path());
  ASSERT_TRUE(c) << c.error().text;
  EXPECT_EQ(c->server, "https://[fd00::1]:443");
  EXPECT_EQ(c->token_file, dir.file("token"));
  ::unsetenv("KUBERNETES_SERVICE_HOST");
}

// A pod's view: address from the environment, CA and token from the mounted folder, TLS, and a token that the kubelet
// replaces while a watch is to be opened.
TEST(HttpClientTest, WorksInAPodWhoseTokenIsRotated) {
  ApiServer api;
  testing::TempDir dir;
  const auto server = api.config().server;
  ::setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", server.substr(server.rfind(':') + 1).c_str(), 1);
  ASSERT_TRUE(write_file(dir.file("ca.crt"), api.ca.cert));
  ASSERT_TRUE(write_file(dir.file("token"), "first\n"));
  auto config = in_cluster_config(dir.path());
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  ASSERT_TRUE(config) << config.error().text;
  auto client = HttpClient::make(*config, "t").value();
  std::mutex mu;
  std::string valid = "Bearer first";
  api.on("GET /api/v1/services", [&](const http::Request& r, http::Responder& out) {
    std::lock_guard l(mu);
    if (r.headers.get("Authorization") != valid) return out.send({.status = 401, .body = text(unauthorized())});
    if (r.has_query("watch"))
      return out.send(
          {.body = R"({"type":"ADDED","object":{"metadata":{"name":"a","namespace":"d","resourceVersion":"8"}}})"
                   "\n"});
    out.send({.body = R"({"metadata":{"resourceVersion":"7"},"items":[]})"});
  });
  EXPECT_TRUE(client->list(kServices, {}));
  {
    std::lock_guard l(mu);
    valid = "Bearer second";
  }
  EXPECT_EQ(client->list(kServices, {}).error().code, 401);
  ASSERT_TRUE(write_file(dir.file("token"), "second\n"));
  std::string seen;
  WatchOptions from;
  from.resource_version = "7";
  auto watched = client->watch(kServices, from,
                               [&](const WatchEvent& e) {
                                 seen = name(*e.object);
                                 return false;
                               },
                               {});
  EXPECT_TRUE(watched);
  EXPECT_EQ(seen, "a");
}

}  // namespace
}  // namespace hawser::kube
