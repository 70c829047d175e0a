// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/api_server.h"

#include <algorithm>
#include <array>

#include <boost/json/serialize.hpp>

namespace hawser::apiserver {

namespace {

constexpr std::string_view kJson = "application/json";
// Asked for with '@', which is no legal character in a media type, so the answer is named with '.', as Kubernetes does:
// Go clients fail to parse the other.
constexpr std::string_view kProtoV2Asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
constexpr std::string_view kProtoV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
// Clients judge version skew and features by these; kubectl 1.20 to 1.34 accept them.
constexpr std::string_view kMajor = "1";
constexpr std::string_view kMinor = "33";
constexpr std::string_view kGitVersion = "v1.33.0+hawser1";

// Lets the one answer through, made pretty if asked for, and tells its status.
class ObservedResponder final : public http::Responder {
 public:
  ObservedResponder(http::Responder& next, bool pretty, std::function<void(int status)> answered)
      : next_(next), pretty_(pretty), answered_(std::move(answered)) {}
  ObservedResponder(std::shared_ptr<http::Responder> own, const ObservedResponder& from)
      : own_(std::move(own)), next_(*own_), pretty_(from.pretty_), answered_(from.answered_) {}
  void send(http::Response r) override {
    answered_(r.status);
    if (pretty_ && r.headers.get("Content-Type").starts_with(kJson)) r.body = pretty_json(r.body);
    next_.send(std::move(r));
  }
  std::shared_ptr<http::Stream> stream(http::Response r) override {
    answered_(r.status);
    return next_.stream(std::move(r));
  }
  std::shared_ptr<http::Responder> detach() override {
    return std::make_shared<ObservedResponder>(next_.detach(), *this);
  }

 private:
  const std::shared_ptr<http::Responder> own_;  // of a detached one
  http::Responder& next_;
  const bool pretty_;
  const std::function<void(int)> answered_;
};

bool wants_pretty(const http::Request& r) {
  auto v = r.query("pretty");
  return r.has_query("pretty") && v != "false" && v != "0";
}

// As a label: what clients send is unbounded.
std::string_view known_method(std::string_view method) {
  constexpr std::array<std::string_view, 7> kMethods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
  return std::ranges::find(kMethods, method) == kMethods.end() ? "other" : method;
}

kube::Status no_such_path() {
  return {.code = 404, .reason = "NotFound", .message = "the server could not find the requested resource"};
}

kube::Status no_such_method() {
  return {.code = 405,
          .reason = "MethodNotAllowed",
          .message = "the server does not allow this method on the requested resource"};
}

http::Response etagged(const http::Request& r, std::string body, const std::string& type, const std::string& etag) {
  auto out = render_text(200, std::move(body), type);
  out.headers.set("ETag", etag);
  out.headers.set("Vary", "Accept");
  out.headers.set("Cache-Control", "public");
  if (r.headers.get("If-None-Match") == etag) {
    out.status = 304;
    out.body.clear();
  }
  return out;
}

std::string index_document() {
  kube::Array paths{"/api", "/api/v1", "/apis"};
  std::string last;
  for (auto& k : schema::kinds()) {
    auto gv = "/apis/" + k.group_version();
    if (k.group.empty() || gv == last) continue;
    last = gv;
    paths.emplace_back("/apis/" + std::string(k.group));
    paths.emplace_back(gv);
  }
  for (auto* p : {"/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"})
    paths.emplace_back(p);
  return boost::json::serialize(Object{{"paths", std::move(paths)}});
}

// kubectl 1.27 and later ask whether a kind it does not know is a custom one. There are none, and none can be made, so
// the group is not in the discovery documents.
std::string no_custom_resources() {
  return boost::json::serialize(Object{{"kind", "CustomResourceDefinitionList"},
                                       {"apiVersion", "apiextensions.k8s.io/v1"},
                                       {"metadata", Object{{"resourceVersion", "1"}}},
                                       {"items", kube::Array()}});
}

}  // namespace

std::string version_document() {
  return boost::json::serialize(Object{{"major", kMajor},
                                       {"minor", kMinor},
                                       {"gitVersion", kGitVersion},
                                       {"gitCommit", ""},
                                       {"gitTreeState", "clean"},
                                       {"buildDate", "1970-01-01T00:00:00Z"},
                                       {"goVersion", "none"},
                                       {"compiler", "g++"},
                                       {"platform", "linux/amd64"}});
}

ApiServer::ApiServer(Registry& registry, metrics::Registry& metrics, ApiServerOptions options)
    : registry_(registry),
      metrics_(metrics),
      requests_(metrics.counter("apiserver_request_total", "Requests by verb, resource and HTTP status.",
                                {"verb", "group", "resource", "subresource", "code"})),
      latency_(metrics.histogram("apiserver_request_duration_seconds", "Time to answer, watches and logs apart.",
                                 {0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30}, {"verb", "resource"})),
      discovery_(options.advertise),
      health_(std::move(options.checks)),
      watches_(registry, registry.clock()),
      logs_(registry, std::move(options.agent_tls)),
      resources_(registry, watches_, logs_) {
  auto& watchers = metrics.gauge("apiserver_longrunning_requests", "Open watches.", {"verb"});
  metrics.on_collect([this, &watchers] { watchers.with({"watch"}).set(static_cast<double>(watches_.size())); });
  auto& objects = metrics.gauge("apiserver_storage_objects", "Objects by resource.", {"resource"});
  metrics.on_collect([this, &objects] {
    for (auto& k : schema::kinds()) {
      auto label = k.group.empty() ? std::string(k.plural) : fmt::format("{}.{}", k.plural, k.group);
      objects.with({label}).set(static_cast<double>(registry_.cache().of(k).size()));
    }
  });
}

ApiServer::~ApiServer() {
  stop();
}

void ApiServer::stop() {
  watches_.stop();
  logs_.stop();
}

http::Response ApiServer::openapi(const http::Request& r, const Route& route) {
  if (route.type == Route::Type::kOpenapiV2) {
    auto accept = r.headers.get("Accept");
    bool proto = accepts(accept, kProtoV2Asked) || accepts(accept, kProtoV2);
    auto& body = proto ? schema::openapi_v2_protobuf() : schema::openapi_v2_json();
    return render_text(200, body, proto ? kProtoV2 : kJson);
  }
  auto body = route.rest.empty() ? schema::openapi_v3_index() : schema::openapi_v3(route.rest);
  if (body.empty()) return render_status(no_such_path());
  auto out = render_text(200, std::move(body), kJson);
  // The hash in the query names one content for good.
  if (r.has_query("hash")) out.headers.set("Cache-Control", "public, immutable");
  return out;
}

http::Response ApiServer::discovery(const http::Request& r, const Route& route) {
  bool core = route.type == Route::Type::kCoreVersions;
  if (core || route.type == Route::Type::kGroups) {
    if (auto version = aggregated_discovery(r.headers.get("Accept"))) {
      auto& a = discovery_.aggregated(core, *version);
      return etagged(r, a.body,
                     fmt::format("application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList", *version),
                     a.etag);
    }
  }
  auto accepted = negotiate(r.headers.get("Accept"), false);
  if (!accepted) return render_status(accepted.error());
  auto body = core                                 ? discovery_.core_versions()
              : route.type == Route::Type::kGroups ? discovery_.groups()
              : route.type == Route::Type::kGroup  ? discovery_.group(route.group)
                                                   : discovery_.resources(route.group, route.version);
  return body.empty() ? render_status(no_such_path()) : render_text(200, std::move(body), kJson);
}

http::Response ApiServer::answer(const http::Request& r, const Route& route) {
  using Type = Route::Type;
  if (route.type == Type::kUnknown) return render_status(no_such_path());
  if (r.method != "GET" && r.method != "HEAD") return render_status(no_such_method());
  switch (route.type) {
    case Type::kIndex:
      return render_text(200, index_document(), kJson);
    case Type::kVersion:
      return render_text(200, version_document(), kJson);
    case Type::kHealth:
      return health_.answer(r, route.rest, route.check);
    case Type::kMetrics:
      return render_text(200, metrics_.text(), metrics::kContentType);
    case Type::kCustomResources:
      if (r.has_query("watch")) return render_status(no_such_method());
      return render_text(200, no_custom_resources(), kJson);
    case Type::kOpenapiV2:
    case Type::kOpenapiV3:
      return openapi(r, route);
    default:
      return discovery(r, route);
  }
}

void ApiServer::handle(const http::Request& r, http::Responder& out) {
  auto found = route(r.path());
  bool resource = found.type == Route::Type::kResource;
  auto verb = resource ? ResourceHandler::verb(r, found) : known_method(r.method);
  auto count = [this, started = registry_.clock().now(), verb = std::string(verb), kind = found.kind,
                sub = found.subresource](int status) {
    std::string group(kind ? kind->group : "");
    std::string plural(kind ? kind->plural : "");
    requests_.with({verb, group, plural, sub, std::to_string(status)}).add();
    if (verb == "watch" || sub == "log") return;
    auto took = registry_.clock().now() - started;
    latency_.with({verb, plural}).observe(std::chrono::duration<double>(took).count());
  };
  ObservedResponder observed(out, wants_pretty(r), std::move(count));
  // Probes carry no certificate; everything else needs one (docs/decisions/0005).
  bool open_to_all = found.type == Route::Type::kHealth || found.type == Route::Type::kVersion;
  if (r.peer.user.empty() && !open_to_all) {
    observed.send(render_status(kube::unauthorized()));
  } else if (resource && verb.empty()) {
    observed.send(render_status(no_such_method()));
  } else if (resource) {
    resources_.serve(r, found, verb, observed);
  } else {
    observed.send(answer(r, found));
  }
}

http::Response refusal(int status, std::string_view text) {
  switch (status) {
    case 413:
      return render_status(kube::too_large(text));
    case 429:
      return render_status(kube::too_many_requests(text, 1));
    case 500:
      return render_status(kube::internal_error(text));
    case 504:
      return render_status(kube::timeout(text, 1));
    default:
      return render_status({.code = status, .reason = "BadRequest", .message = std::string(text)});
  }
}

}  // namespace hawser::apiserver
