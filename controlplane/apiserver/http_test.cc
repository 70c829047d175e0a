// SPDX-License-Identifier: Apache-2.0
// The API over real TLS: what a client sees, request by request.
#include <thread>

#include "controlplane/apiserver/api_server.h"
#include "controlplane/apiserver/bootstrap.h"
#include "controlplane/apiserver/registry_fixture.h"
#include "lib/http/client.h"
#include "lib/http/server.h"

namespace hawser::apiserver {
namespace {

using http::Request;

struct Keys {
  http::PemPair ca = http::make_ca("test-ca").value();
  http::PemPair server =
      http::issue(ca, {.common_name = "kube-apiserver", .ip_addresses = {"127.0.0.1"}, .server = true}).value();
  http::PemPair admin = http::issue(ca, {.common_name = "admin", .organizations = {"system:masters"}}).value();
  http::PemPair agent = http::issue(ca, {.common_name = "node", .ip_addresses = {"127.0.0.1"}, .server = true}).value();
};

class HttpTest : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    api_ = std::make_unique<ApiServer>(
        parts_.registry, metrics_,
        ApiServerOptions{.advertise = "192.0.2.10:6443",
                         .agent_tls = {.ca_pem = keys_.ca.cert, .own = keys_.admin},
                         .checks = {{"ping", [] { return true; }}, {"late", [this] { return ready_.load(); }, true}}});
    server_ = std::make_unique<http::Server>(http::ServerOptions{.refusal = refusal},
                                             http::TlsContext::server(keys_.server, keys_.ca.cert).value(),
                                             [this](const Request& r, http::Responder& out) { api_->handle(r, out); });
    port_ = server_->listen("127.0.0.1", 0).value();
    client_ = make_client(keys_.admin);
  }
  void TearDown() override {
    api_->stop();
    server_.reset();
    api_.reset();
  }
  std::unique_ptr<http::Client> make_client(const http::PemPair& own) const {
    return std::make_unique<http::Client>(http::ClientOptions{
        .host = "127.0.0.1", .port = port_, .tls = http::TlsContext::client(keys_.ca.cert, own).value()});
  }
  http::Response send(std::string method, std::string target, std::string body = {},
                      std::vector<std::pair<std::string, std::string>> headers = {}) {
    Request r{.method = std::move(method), .target = std::move(target), .body = std::move(body)};
    if (!r.body.empty()) r.headers.set("Content-Type", "application/json");
    for (auto& [k, v] : headers) r.headers.set(k, v);
    auto reply = client_->send(r);
    EXPECT_TRUE(reply) << reply.error().text;
    return reply ? std::move(*reply) : http::Response{.status = 0};
  }
  Object send_json(std::string method, std::string target, std::string body = {},
                   std::vector<std::pair<std::string, std::string>> headers = {}) {
    auto reply = send(std::move(method), std::move(target), std::move(body), std::move(headers));
    boost::system::error_code ec;
    auto v = boost::json::parse(reply.body, ec);
    EXPECT_TRUE(!ec && v.is_object()) << reply.status << " " << reply.body;
    return v.is_object() ? v.get_object() : Object();
  }

  // The lines of a watch until `count` have come.
  std::vector<Object> watch(const std::string& target, std::size_t count, const std::function<void()>& act = {},
                            const std::string& accept = "application/json") {
    Request r{.target = target};
    r.headers.set("Accept", accept);
    std::vector<Object> events;
    std::string buffer;
    auto ok = client_->stream(
        r,
        [&](const http::Response& head) {
          EXPECT_EQ(head.status, 200);
          if (act) act();
          return head.status == 200;
        },
        [&](std::string_view data) {
          buffer += data;
          for (auto end = buffer.find('\n'); end != std::string::npos; end = buffer.find('\n')) {
            events.push_back(parse(buffer.substr(0, end)));
            buffer.erase(0, end + 1);
          }
          return events.size() < count;
        },
        std::chrono::seconds(20), {});
    EXPECT_TRUE(ok) << ok.error().text;
    return events;
  }

  Keys keys_;
  std::atomic<bool> ready_ = true;
  metrics::Registry metrics_;
  std::unique_ptr<ApiServer> api_;
  std::unique_ptr<http::Server> server_;
  std::uint16_t port_ = 0;
  std::unique_ptr<http::Client> client_;
};

TEST_F(HttpTest, Conformance) {
  create("configmaps", R"({"metadata":{"name":"m"}})");
  struct Case {
    int line;
    std::string method, target, body;
    int status;
    std::string_view contains;
    std::string accept = "application/json";
    std::string type = "application/json";
  };
  const std::string pod = "/api/v1/namespaces/default/pods";
  const std::string maps = "/api/v1/namespaces/default/configmaps";
  const Case cases[] = {
      {__LINE__, "GET", "/nothing", "", 404, "the server could not find the requested resource"},
      {__LINE__, "GET", "/api/v2", "", 404, "\"reason\":\"NotFound\""},
      {__LINE__, "GET", "/api/v1/widgets", "", 404, "the server could not find the requested resource"},
      {__LINE__, "GET", "/api/v1/pods/p", "", 404, "could not find"},
      {__LINE__, "GET", "/api/v1/namespaces/default/nodes", "", 404, "could not find"},
      {__LINE__, "GET", maps + "/m/status", "", 404, "could not find"},
      {__LINE__, "PUT", maps, "{}", 405, "\"reason\":\"MethodNotAllowed\""},
      {__LINE__, "POST", maps + "/m", "{}", 405, "the server does not allow this method on the requested resource"},
      {__LINE__, "POST", "/version", "{}", 405, "MethodNotAllowed"},
      {__LINE__, "OPTIONS", maps, "", 405, "MethodNotAllowed"},
      {__LINE__, "DELETE", pod + "/p/status", "", 405, "MethodNotAllowed"},
      {__LINE__, "GET", maps + "/m", "", 200, "\"kind\":\"ConfigMap\""},
      {__LINE__, "GET", maps + "/m/", "", 200, "\"kind\":\"ConfigMap\""},
      {__LINE__, "GET", maps + "/m", "", 406, "only the following media types are accepted",
       "application/vnd.kubernetes.protobuf"},
      {__LINE__, "GET", maps + "/m", "", 200, "\"ConfigMap\"", "application/vnd.kubernetes.protobuf, */*"},
      {__LINE__, "GET", maps + "/m", "", 200, "kind: ConfigMap\n", "application/yaml"},
      {__LINE__, "POST", maps, "x", 415, "unknown format", "application/json", "text/html"},
      {__LINE__, "POST", maps, "k8s", 400, "malformed protobuf", "application/json",
       "application/vnd.kubernetes.protobuf"},
      {__LINE__, "POST", maps, "{", 400, "\"reason\":\"BadRequest\""},
      {__LINE__, "POST", maps, "[]", 400, "BadRequest"},
      {__LINE__, "POST", maps, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yam}\n", 201, "\"name\":\"yam\"",
       "application/json", "application/yaml"},
      {__LINE__, "POST", maps + "?dryRun=Some", R"({"metadata":{"name":"d"}})", 422, "Unsupported value: \\\"Some\\\""},
      {__LINE__, "POST", maps + "?fieldValidation=Maybe", R"({"metadata":{"name":"d"}})", 422, "fieldValidation"},
      {__LINE__, "POST", maps + "?fieldValidation=Strict", R"({"metadata":{"name":"d"},"dato":{}})", 400,
       "unknown field \\\"dato\\\""},
      {__LINE__, "PATCH", maps + "/m", "{}", 415, "application/merge-patch+json"},
      {__LINE__, "PATCH", maps + "/m", R"({"data":{"a":"b"}})", 200, "\"a\":\"b\"", "application/json",
       "application/merge-patch+json"},
      {__LINE__, "PATCH", maps + "/m", R"([{"op":"test","path":"/data/a","value":"no"}])", 422, "Invalid",
       "application/json", "application/json-patch+json"},
      {__LINE__, "GET", maps + "?labelSelector=a%20b", "", 400, "BadRequest"},
      {__LINE__, "GET", maps + "?resourceVersion=x", "", 422, "invalid syntax"},
      {__LINE__, "GET", maps + "?limit=x", "", 400, "limit"},
      {__LINE__, "GET", maps + "?continue=x", "", 400, "continue key is not valid"},
      {__LINE__, "GET", maps + "?resourceVersionMatch=Exact", "", 422, "forbidden unless resourceVersion is provided"},
      {__LINE__, "GET", maps + "?resourceVersionMatch=Exact&resourceVersion=0", "", 422,
       "forbidden for resourceVersion"},
      {__LINE__, "GET", maps + "?watch=1&sendInitialEvents=true", "", 422, "resourceVersionMatch"},
      {__LINE__, "GET", maps + "?resourceVersion=99999999", "", 504, "ResourceVersionTooLarge"},
      {__LINE__, "DELETE", maps + "/m", R"({"propagationPolicy":"Never"})", 422, "propagationPolicy"},
      {__LINE__, "DELETE", maps + "/none", "", 404, "configmaps \\\"none\\\" not found"},
      {__LINE__, "GET", pod + "/none/log", "", 404, "pods \\\"none\\\" not found"},
  };
  for (auto& c : cases) {
    auto reply = send(c.method, c.target, c.body, {{"Accept", c.accept}, {"Content-Type", c.type}});
    EXPECT_EQ(reply.status, c.status) << "case at line " << c.line << ": " << reply.body;
    EXPECT_TRUE(reply.body.contains(c.contains)) << "case at line " << c.line << ": " << reply.body;
  }
}

TEST_F(HttpTest, EveryErrorIsAStatus) {
  auto o = send_json("GET", "/api/v1/namespaces/default/pods/none");
  EXPECT_EQ(boost::json::value(o),
            boost::json::parse(R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
    "message":"pods \"none\" not found","reason":"NotFound","details":{"name":"none","kind":"pods"},"code":404})"));
}

TEST_F(HttpTest, AnonymousSeesHealthAndVersionOnly) {
  client_ = make_client({});
  for (auto* path : {"/api", "/apis", "/api/v1/namespaces", "/metrics", "/openapi/v2", "/", "/nothing"}) {
    auto reply = send("GET", path);
    EXPECT_EQ(reply.status, 401) << path;
    EXPECT_TRUE(reply.body.contains("\"reason\":\"Unauthorized\"")) << path;
  }
  for (auto* path : {"/healthz", "/livez", "/readyz", "/version", "/healthz/ping"})
    EXPECT_EQ(send("GET", path).status, 200) << path;
}

TEST_F(HttpTest, StrangersCertificateIsRefused) {
  auto other = http::make_ca("other").value();
  client_ = make_client(http::issue(other, {.common_name = "admin", .organizations = {"system:masters"}}).value());
  auto reply = client_->send({.target = "/api/v1/namespaces"});
  EXPECT_TRUE(!reply || reply->status == 401);
}

TEST_F(HttpTest, HealthChecks) {
  EXPECT_EQ(send("GET", "/readyz").body, "ok");
  EXPECT_EQ(send("GET", "/readyz?verbose").body, "[+]ping ok\n[+]late ok\nreadyz check passed\n");
  ready_ = false;
  auto bad = send("GET", "/readyz");
  EXPECT_EQ(bad.status, 500);
  EXPECT_EQ(bad.body, "[+]ping ok\n[-]late failed: reason withheld\nreadyz check failed\n");
  EXPECT_EQ(send("GET", "/livez").status, 200);
  EXPECT_EQ(send("GET", "/readyz?exclude=late").status, 200);
  EXPECT_EQ(send("GET", "/readyz/late").status, 500);
  EXPECT_EQ(send("GET", "/readyz/none").status, 404);
}

TEST_F(HttpTest, VersionIsWhatClientsParse) {
  auto v = send_json("GET", "/version");
  EXPECT_EQ(kube::str(v, {"major"}), "1");
  EXPECT_EQ(kube::str(v, {"minor"}), "33");
  EXPECT_TRUE(kube::str(v, {"gitVersion"}).starts_with("v1.33."));
}

TEST_F(HttpTest, LegacyAndAggregatedDiscovery) {
  EXPECT_EQ(kube::str(send_json("GET", "/api"), {"kind"}), "APIVersions");
  EXPECT_EQ(kube::str(send_json("GET", "/apis"), {"kind"}), "APIGroupList");
  EXPECT_EQ(kube::str(send_json("GET", "/apis/apps"), {"preferredVersion", "groupVersion"}), "apps/v1");
  auto list = send_json("GET", "/api/v1");
  std::map<std::string, Object> by_name;
  for (auto& r : kube::arr(list, {"resources"}))
    by_name[std::string(kube::str(kube::as_obj(r), {"name"}))] = r.as_object();
  EXPECT_EQ(boost::json::serialize(by_name.at("pods").at("shortNames")), R"(["po"])");
  for (auto* name :
       {"pods/status", "pods/log", "pods/binding", "pods/eviction", "namespaces/finalize", "nodes/status"}) {
    EXPECT_TRUE(by_name.contains(name)) << name;
  }
  EXPECT_EQ(kube::str(by_name.at("pods/eviction"), {"group"}), "policy");
  for (std::string version : {"v2", "v2beta1"}) {
    auto accept =
        fmt::format("application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json", version);
    auto reply = send("GET", "/apis", "", {{"Accept", accept}});
    EXPECT_TRUE(reply.headers.get("Content-Type").contains("v=" + version));
    auto o = parse(reply.body);
    EXPECT_EQ(kube::str(o, {"apiVersion"}), "apidiscovery.k8s.io/" + version);
    auto again =
        send("GET", "/apis", "", {{"Accept", accept}, {"If-None-Match", std::string(reply.headers.get("ETag"))}});
    EXPECT_EQ(again.status, 304);
  }
}

TEST_F(HttpTest, TablesAndPartialObjects) {
  create("pods", R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}})");
  const std::string pods = "/api/v1/namespaces/default/pods";
  for (std::string version : {"v1", "v1beta1"}) {
    auto accept = fmt::format("application/json;as=Table;v={};g=meta.k8s.io,application/json", version);
    auto t = send_json("GET", pods, "", {{"Accept", accept}});
    EXPECT_EQ(kube::str(t, {"kind"}), "Table");
    EXPECT_EQ(kube::str(t, {"apiVersion"}), "meta.k8s.io/" + version);
    EXPECT_FALSE(kube::str(t, {"metadata", "resourceVersion"}).empty());
    auto& row = kube::as_obj(kube::arr(t, {"rows"}).at(0));
    EXPECT_EQ(kube::arr(row, {"cells"}).at(0), "p");
    EXPECT_EQ(kube::str(row, {"object", "kind"}), "PartialObjectMetadata");
  }
  auto list =
      send_json("GET", pods, "", {{"Accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}});
  EXPECT_EQ(kube::str(list, {"kind"}), "PartialObjectMetadataList");
  auto one =
      send_json("GET", pods + "/p", "", {{"Accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}});
  EXPECT_EQ(kube::name(one), "p");
  EXPECT_FALSE(one.contains("spec"));
  EXPECT_EQ(send("GET", pods + "?includeObject=Some", "", {{"Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"}})
                .status,
            422);
}

TEST_F(HttpTest, UnknownFieldsAreWarnedAbout) {
  auto reply = send("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Warn",
                    R"({"metadata":{"name":"w"},"dato":{}})");
  EXPECT_EQ(reply.status, 201);
  EXPECT_TRUE(reply.headers.get("Warning").starts_with("299 - \"unknown field \\\"dato\\\""))
      << reply.headers.get("Warning");
}

TEST_F(HttpTest, DeleteAnswers) {
  create("configmaps", R"({"metadata":{"name":"m"}})");
  create("pods", R"({"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}})");
  auto status = send_json("DELETE", "/api/v1/namespaces/default/configmaps/m");
  EXPECT_EQ(kube::str(status, {"status"}), "Success");
  EXPECT_EQ(kube::str(status, {"details", "kind"}), "configmaps");
  auto pod = send_json("DELETE", "/api/v1/namespaces/default/pods/p", R"({"gracePeriodSeconds":7})");
  EXPECT_EQ(kube::num(pod, {"metadata", "deletionGracePeriodSeconds"}), 7);
  pod = send_json("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0");
  EXPECT_EQ(kube::name(pod), "p");
  EXPECT_EQ(send("GET", "/api/v1/namespaces/default/pods/p").status, 404);
}

TEST_F(HttpTest, OversizedBody) {
  auto reply = send("POST", "/api/v1/namespaces/default/configmaps", std::string(4u << 20, ' '));
  EXPECT_EQ(reply.status, 413);
  EXPECT_TRUE(reply.body.contains(R"("reason":"RequestEntityTooLarge")")) << reply.body;
}

TEST_F(HttpTest, WatchStreamsEvents) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  auto rv = store_->revision();
  auto events = watch(fmt::format("/api/v1/configmaps?watch=1&resourceVersion={}", rv), 2, [&] {
    create("configmaps", R"({"metadata":{"name":"b"}})");
    EXPECT_TRUE(remove("configmaps", "a"));
  });
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(kube::str(events[0], {"type"}), "ADDED");
  EXPECT_EQ(kube::str(events[0], {"object", "metadata", "resourceVersion"}), std::to_string(rv + 1));
  EXPECT_EQ(kube::str(events[1], {"type"}), "DELETED");
  EXPECT_EQ(kube::str(events[1], {"object", "metadata", "resourceVersion"}), std::to_string(rv + 2));
}

TEST_F(HttpTest, WatchFromTooLongAgoIsAnErrorEvent) {
  for (int i = 0; i < 1100; ++i) {
    ASSERT_TRUE(i == 0 ? try_create("configmaps", R"({"metadata":{"name":"m"}})")
                       : merge("configmaps", "m", fmt::format(R"({{"data":{{"n":"{}"}}}})", i)));
  }
  auto events = watch("/api/v1/configmaps?watch=1&resourceVersion=3", 1);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(kube::str(events[0], {"type"}), "ERROR");
  EXPECT_EQ(kube::num(events[0], {"object", "code"}), 410);
  EXPECT_EQ(kube::str(events[0], {"object", "reason"}), "Expired");
}

TEST_F(HttpTest, WatchEndsAtItsTimeoutWithABookmarkBefore) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  auto rv = std::to_string(store_->revision());
  auto events = watch("/api/v1/secrets?watch=1&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion=" + rv, 100);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(kube::str(events[0], {"type"}), "BOOKMARK");
  EXPECT_EQ(kube::str(events[0], {"object", "kind"}), "Secret");
  EXPECT_EQ(kube::str(events[0], {"object", "metadata", "resourceVersion"}), rv);
}

TEST_F(HttpTest, WatchList) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  auto events = watch(
      "/api/v1/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
      2);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(kube::str(events[0], {"type"}), "ADDED");
  EXPECT_EQ(kube::str(events[1], {"object", "metadata", "annotations", "k8s.io/initial-events-end"}), "true");
}

TEST_F(HttpTest, WatchAsTable) {
  create("configmaps", R"({"metadata":{"name":"a"}})");
  auto events = watch(
      "/api/v1/configmaps?watch=1", 2, [&] { create("configmaps", R"({"metadata":{"name":"b"}})"); },
      "application/json;as=Table;v=v1;g=meta.k8s.io");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_FALSE(kube::arr(events[0], {"object", "columnDefinitions"}).empty());
  EXPECT_TRUE(kube::arr(events[1], {"object", "columnDefinitions"}).empty());
  EXPECT_EQ(kube::arr(kube::as_obj(kube::arr(events[1], {"object", "rows"}).at(0)), {"cells"}).at(0), "b");
}

TEST_F(HttpTest, LogsComeFromThePodsNode) {
  std::string asked, user;
  http::Server agent({}, http::TlsContext::server(keys_.agent, keys_.ca.cert).value(),
                     [&](const Request& r, http::Responder& out) {
                       asked = r.target;
                       user = r.peer.user;
                       if (r.target.contains("missing")) return out.send({.status = 404, .body = "no such container"});
                       auto s = out.stream({.body = "line 1\n"});
                       s->write(std::string_view("line 2\n"));
                       s->close();
                     });
  auto port = agent.listen("127.0.0.1", 0).value();
  create(
      "nodes",
      fmt::format(R"({{"metadata":{{"name":"n"}},"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],
    "daemonEndpoints":{{"kubeletEndpoint":{{"Port":{}}}}}}}}})",
                  port),
      "");
  create(
      "pods",
      R"({"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"},{"name":"missing","image":"i"}]}})");
  const std::string log = "/api/v1/namespaces/default/pods/p/log";
  EXPECT_EQ(send("GET", log + "?container=c&follow=true&tailLines=5").body, "line 1\nline 2\n");
  EXPECT_EQ(asked, "/containerLogs/default/p/c?follow=true&tailLines=5");
  EXPECT_EQ(user, "admin");
  EXPECT_EQ(send("GET", log + "?container=missing").status, 404);
  auto unclear = send_json("GET", log);
  EXPECT_EQ(kube::str(unclear, {"message"}),
            "a container name must be specified for pod p, choose one of: [c missing]");
  EXPECT_EQ(kube::str(send_json("GET", log + "?container=x"), {"message"}), "container x is not valid for pod p");
  agent.stop();
  auto away = send_json("GET", log + "?container=c");
  EXPECT_EQ(kube::num(away, {"code"}), 500);
}

// Nine agents that take a request and never answer, and nine clients that want their logs: everybody else goes on.
TEST_F(HttpTest, SilentAgentsHoldNobodyUp) {
  http::Server agent({}, http::TlsContext::server(keys_.agent, keys_.ca.cert).value(), [](const Request&, auto& out) {
    static std::vector<std::shared_ptr<http::Responder>> kept;
    static std::mutex mu;
    std::lock_guard l(mu);
    kept.push_back(out.detach());
    if (kept.size() == 9) kept.clear();  // answers all, with 500
  });
  auto port = agent.listen("127.0.0.1", 0).value();
  create(
      "nodes",
      fmt::format(R"({{"metadata":{{"name":"n"}},"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],
    "daemonEndpoints":{{"kubeletEndpoint":{{"Port":{}}}}}}}}})",
                  port),
      "");
  create("pods", R"({"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}})");
  const std::string log = "/api/v1/namespaces/default/pods/p/log";
  std::vector<std::jthread> readers;
  auto read_log = [&] {
    auto reply = make_client(keys_.admin)->send({.target = log});
    EXPECT_TRUE(reply && reply->status == 500);
  };
  for (int i = 0; i < 8; ++i) readers.emplace_back(read_log);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(send("GET", "/api/v1/namespaces/default/pods/p").status, 200);
  read_log();
}

TEST_F(HttpTest, UnknownKindsAreNoCustomResources) {
  const std::string path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  auto list = send_json("GET", path + "?limit=500");
  EXPECT_EQ(kube::str(list, {"kind"}), "CustomResourceDefinitionList");
  EXPECT_TRUE(kube::arr(list, {"items"}).empty());
  EXPECT_EQ(send("POST", path, "{}").status, 405);
  EXPECT_EQ(send("GET", path + "?watch=1").status, 405);
  EXPECT_FALSE(send("GET", "/apis").body.contains("apiextensions"));
}

TEST_F(HttpTest, AllNamespacesTogetherAreReadOnly) {
  create("configmaps", R"({"metadata":{"name":"c"}})");
  EXPECT_EQ(send("DELETE", "/api/v1/configmaps").status, 405);
  EXPECT_EQ(send("POST", "/api/v1/configmaps", R"({"metadata":{"name":"d","namespace":"default"}})").status, 405);
  EXPECT_TRUE(get("configmaps", "c"));
  EXPECT_EQ(send("DELETE", "/api/v1/namespaces/default/configmaps").status, 200);
}

TEST_F(HttpTest, PrettyOnRequest) {
  create("configmaps", R"({"metadata":{"name":"p"},"data":{"k":"a \"{[,:]}\" \\","e":""}})");
  const std::string path = "/api/v1/namespaces/default/configmaps/p";
  auto pretty = send("GET", path + "?pretty=true").body;
  EXPECT_TRUE(pretty.starts_with("{\n  \"kind\": \"ConfigMap\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {\n    \""))
      << pretty;
  EXPECT_TRUE(pretty.ends_with("\n  }\n}\n")) << pretty;
  EXPECT_EQ(boost::json::parse(pretty), boost::json::parse(send("GET", path + "?pretty=false").body));
  EXPECT_TRUE(send("GET", "/api/v1/pods?pretty=1").body.ends_with("\"items\": []\n}\n"));
}

TEST_F(HttpTest, SmallBodiesInYaml) {
  create("configmaps", R"({"metadata":{"name":"c"}})");
  create("nodes", R"({"metadata":{"name":"n"}})", "");
  create("pods", R"({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}})");
  const std::string ns = "/api/v1/namespaces/default";
  EXPECT_EQ(send("DELETE", ns + "/configmaps/c", "kind: DeleteOptions\npreconditions: {uid: other}\n",
                 {{"Content-Type", "application/yaml"}})
                .status,
            409);
  EXPECT_EQ(
      send("POST", ns + "/pods/p/binding", "target: {kind: Node, name: n1}\n", {{"Content-Type", "application/yaml"}})
          .status,
      201);
  EXPECT_EQ(kube::str(*(*get("pods", "p"))->object, {"spec", "nodeName"}), "n1");
}

TEST_F(HttpTest, PatchesMakeNoMalformedObject) {
  create("configmaps", R"({"metadata":{"name":"c"},"data":{"k":"v"}})");
  const std::string path = "/api/v1/namespaces/default/configmaps/c";
  auto patch = [&](const std::string& query, const std::string& body) {
    return send("PATCH", path + query, body, {{"Content-Type", "application/merge-patch+json"}});
  };
  for (auto* mode : {"Ignore", "Warn", "Strict"}) {
    auto query = fmt::format("?fieldValidation={}", mode);
    EXPECT_EQ(patch(query, R"({"data":{"k":5}})").status, 400) << mode;
    EXPECT_EQ(patch(query, R"({"kind":"Pod"})").status, 400) << mode;
    EXPECT_EQ(patch(query, R"({"data":{"k":1e400}})").status, 400) << mode;
  }
  auto ignored = patch("?fieldValidation=Ignore", R"({"wrong":1,"data":{"k":"w"}})");
  EXPECT_EQ(ignored.status, 200);
  EXPECT_FALSE(ignored.body.contains("wrong"));
  EXPECT_EQ(ignored.headers.get("Warning"), "");
  EXPECT_EQ(patch("", R"({"data":{"k":"x","k":"y"}})").headers.get("Warning"), R"(299 - "duplicate field \"data.k\"")");
  EXPECT_EQ(patch("?fieldValidation=Strict", R"({"data":{"k":"x","k":"y"}})").status, 400);
}

TEST_F(HttpTest, EventsAreSelectedByTheirSource) {
  create("events", R"({"metadata":{"name":"a"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},
    "source":{"component":"scheduler"},"reason":"false"})");
  create("events", R"({"metadata":{"name":"b"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},
    "source":{"component":"agent"}})");
  auto names = [&](const std::string& selector) {
    std::string out;
    auto list = send_json("GET", "/api/v1/events?fieldSelector=" + selector);
    for (auto& e : kube::arr(list, {"items"})) out += kube::name(kube::as_obj(e));
    return out;
  };
  EXPECT_EQ(names("source=agent"), "b");
  EXPECT_EQ(names("source!=agent"), "a");
  EXPECT_EQ(names("reason=false"), "a");  // not those without a reason
}

TEST_F(HttpTest, BootstrapObjectsAreKeptRight) {
  BootstrapOptions o{.service_ip = parts_.allocator.first_address(), .advertise_address = "192.0.2.10"};
  auto ok = ensure_bootstrap_objects(parts_.client, o);
  ASSERT_TRUE(ok) << ok.error().text;
  auto revision = store_->revision();
  ASSERT_TRUE(ensure_bootstrap_objects(parts_.client, o));
  EXPECT_EQ(store_->revision(), revision);
  auto service = send_json("GET", "/api/v1/namespaces/default/services/kubernetes");
  EXPECT_EQ(kube::str(service, {"spec", "clusterIP"}), "10.96.0.1");
  o.advertise_address = "192.0.2.11";
  ASSERT_TRUE(ensure_bootstrap_objects(parts_.client, o));
  auto endpoints = send_json("GET", "/api/v1/namespaces/default/endpoints/kubernetes");
  EXPECT_TRUE(boost::json::serialize(endpoints).contains("192.0.2.11"));
  for (auto* ns : {"kube-system", "kube-public", "kube-node-lease"}) EXPECT_TRUE(get("namespaces", ns));
}

TEST_F(HttpTest, MetricsCountRequests) {
  send("GET", "/api/v1/pods");
  auto text = send("GET", "/metrics").body;
  EXPECT_TRUE(
      text.contains(R"(apiserver_request_total{verb="list",group="",resource="pods",subresource="",code="200"} 1)"))
      << text;
  // Nobody fills the memory with labels of their own.
  auto lines = std::ranges::count(text, '\n');
  for (int i = 0; i < 20; ++i) {
    send(fmt::format("VERB{}", i), fmt::format("/apis/group{}/v1/things", i));
    send("GET", fmt::format("/apis/group{}/v1/things", i));
  }
  EXPECT_LT(std::ranges::count(send("GET", "/metrics").body, '\n'), lines + 60);
}

}  // namespace
}  // namespace hawser::apiserver
