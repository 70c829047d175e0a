// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/http_client.h"

#include <charconv>
#include <mutex>
#include <optional>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/random.h"
#include "lib/http/client.h"
#include "lib/kube/object.h"
#include "lib/kube/status.h"

namespace hawser::kube {
namespace {

using namespace std::chrono_literals;

constexpr int kPageSize = 500;
// A bound token is good for minutes after its replacement is written, so looking each minute is often enough.
constexpr Nanos kTokenAge = 60s;
constexpr std::size_t kMaxEventBytes = 32u << 20;

Result<Value> parse_json(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = 256;  // CustomResourceDefinitions nest deeper than the library's 32
  boost::system::error_code ec;
  Value v = boost::json::parse(text, ec, {}, options);
  if (ec) return fail(EPROTO, "the API server sent broken JSON: {}", ec.message());
  return v;
}

// The Error of an answer that is no success.
Error error_of(const http::Response& r) {
  if (auto v = parse_json(r.body); v && str(as_obj(*v), {"kind"}) == "Status") {
    Error e = Status::from_json(v->get_object()).to_error();
    e.code = r.status;
    return e;
  }
  // Not the API server itself: a proxy, or a load balancer without servers.
  std::string_view line = std::string_view(r.body).substr(0, r.body.find('\n'));
  return {r.status, fmt::format("the server answered {}: {}", r.status, line.substr(0, 200)), {}};
}

std::string collection(const Resource& r, std::string_view ns) {
  std::string out =
      r.group.empty() ? fmt::format("/api/{}", r.version) : fmt::format("/apis/{}/{}", r.group, r.version);
  if (r.namespaced && !ns.empty()) out += "/namespaces/" + http::percent_encode(ns);
  return out + "/" + std::string(r.plural);
}
std::string item(const Resource& r, std::string_view ns, std::string_view name, std::string_view subresource = "") {
  std::string out = collection(r, ns) + "/" + http::percent_encode(name);
  if (!subresource.empty()) out += "/" + std::string(subresource);
  return out;
}
std::string selectors(const ListOptions& o) {
  std::string out;
  if (!o.label_selector.empty()) out += "&labelSelector=" + http::percent_encode(o.label_selector);
  if (!o.field_selector.empty()) out += "&fieldSelector=" + http::percent_encode(o.field_selector);
  return out;
}

std::string api_version(const Resource& r) {
  return r.group.empty() ? std::string(r.version) : fmt::format("{}/{}", r.group, r.version);
}

// An object of a list or a watch as we keep it.
ObjectPtr slim(const Resource& r, const ListOptions& options, Object o) {
  if (!o.contains("kind")) o["kind"] = r.kind;
  if (!o.contains("apiVersion")) o["apiVersion"] = api_version(r);
  if (Value* meta = o.if_contains("metadata"); meta && meta->is_object()) meta->get_object().erase("managedFields");
  if (options.trim) options.trim(o);
  return std::make_shared<const Object>(std::move(o));
}

struct Origin {
  bool tls = true;
  std::string host;
  std::uint16_t port = 0;
  std::string prefix;  // path before "/api", without a final slash
};

Result<Origin> parse_server(std::string_view url) {
  Origin out;
  std::string_view rest = url;
  if (rest.starts_with("http://"))
    out.tls = false;
  else if (!rest.starts_with("https://"))
    return fail(EINVAL, "server \"{}\": must start with https:// or http://", url);
  rest.remove_prefix(out.tls ? 8 : 7);
  auto path = rest.find('/');
  if (path != rest.npos) out.prefix = rest.substr(path);
  while (out.prefix.ends_with('/')) out.prefix.pop_back();
  auto authority = rest.substr(0, path);
  auto colon = authority.rfind(':');
  if (colon != authority.npos && authority.find(']', colon) != authority.npos) colon = authority.npos;
  auto host = authority.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  out.host = host;
  out.port = out.tls ? 443 : 80;
  if (colon != authority.npos) {
    auto digits = authority.substr(colon + 1);
    auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
    if (ec != std::errc() || end != digits.data() + digits.size() || out.port == 0)
      return fail(EINVAL, "server \"{}\": port must be 1 to 65535", url);
  }
  if (out.host.empty()) return fail(EINVAL, "server \"{}\": no host", url);
  return out;
}

std::optional<EventType> event_type(std::string_view text) {
  if (text == "ADDED") return EventType::kAdded;
  if (text == "MODIFIED") return EventType::kModified;
  if (text == "DELETED") return EventType::kDeleted;
  if (text == "BOOKMARK") return EventType::kBookmark;
  return std::nullopt;
}

}  // namespace

struct HttpClient::Impl {
  Impl(http::ClientOptions o, const ClientConfig& c, Clock& k) : http(std::move(o)), config(c), clock(k) {}

  std::string token(bool fresh);
  void sign(http::Request& r, bool fresh_token);
  Result<http::Response> send(http::Request r);
  Result<Value> send_json(http::Request r);
  Result<ObjectPtr> send_object(http::Request r);
  Result<std::string> list_page(const Resource& r, const ListOptions& options, const std::string& query,
                                ObjectList& out);

  http::Client http;
  const ClientConfig config;
  Clock& clock;
  std::string prefix;
  std::string user_agent;
  std::mutex mu;
  std::string file_token;    // guarded by mu
  MonoTime file_token_at{};  // guarded by mu; when it was read
};

std::string HttpClient::Impl::token(bool fresh) {
  if (config.token_file.empty()) return config.token;
  std::lock_guard l(mu);
  if (!fresh && !file_token.empty() && clock.now() - file_token_at < kTokenAge) return file_token;
  // A file that is just being replaced, or gone: the old token may still do.
  if (auto text = read_file(config.token_file)) {
    while (!text->empty() && std::string_view(" \r\n").contains(text->back())) text->pop_back();
    file_token = std::move(*text);
    file_token_at = clock.now();
  }
  return file_token;
}

void HttpClient::Impl::sign(http::Request& r, bool fresh_token) {
  if (auto t = token(fresh_token); !t.empty()) r.headers.set("Authorization", "Bearer " + t);
}

Result<http::Response> HttpClient::Impl::send(http::Request r) {
  r.target = prefix + r.target;
  r.headers.set("User-Agent", user_agent);
  if (r.headers.get("Accept").empty()) r.headers.set("Accept", "application/json");
  if (!r.body.empty() && r.headers.get("Content-Type").empty()) r.headers.set("Content-Type", "application/json");
  sign(r, false);
  auto answer = http.send(r);
  if (answer && answer->status == 401 && !config.token_file.empty()) {
    sign(r, true);
    answer = http.send(r);
  }
  if (!answer) return answer;
  if (answer->status >= 400) return std::unexpected(error_of(*answer));
  return answer;
}

Result<Value> HttpClient::Impl::send_json(http::Request r) {
  auto answer = send(std::move(r));
  if (!answer) return propagate(answer);
  auto v = parse_json(answer->body);
  if (v && !v->is_object()) return fail(EPROTO, "the API server sent no object");
  return v;
}

Result<ObjectPtr> HttpClient::Impl::send_object(http::Request r) {
  auto v = send_json(std::move(r));
  if (!v) return propagate(v);
  return std::make_shared<const Object>(std::move(v->get_object()));
}

// Appends one page; returns the token of the next, "" after the last.
Result<std::string> HttpClient::Impl::list_page(const Resource& r, const ListOptions& options, const std::string& query,
                                                ObjectList& out) {
  auto v = send_json({.target = collection(r, options.ns) + "?" + query});
  if (!v) return propagate(v);
  Object& page = v->get_object();
  out.resource_version = str(page, {"metadata", "resourceVersion"});
  if (Value* items = page.if_contains("items"); items && items->is_array())
    for (Value& o : items->get_array())
      if (o.is_object()) out.items.push_back(slim(r, options, std::move(o.get_object())));
  return std::string(str(page, {"metadata", "continue"}));
}

Result<std::unique_ptr<HttpClient>> HttpClient::make(const ClientConfig& config, const std::string& program,
                                                     Clock& clock) {
  auto origin = parse_server(config.server);
  if (!origin) return propagate(origin);
  http::ClientOptions options{.host = origin->host, .port = origin->port, .server_name = config.server_name};
  if (origin->tls) {
    auto tls = http::TlsContext::client(config.ca_pem, config.own, config.insecure);
    if (!tls) return propagate(tls);
    options.tls = std::move(*tls);
  }
  auto impl = std::make_unique<Impl>(std::move(options), config, clock);
  impl->prefix = origin->prefix;
  impl->user_agent = program;
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(impl)));
}
HttpClient::HttpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpClient::~HttpClient() = default;

Result<http::Response> HttpClient::raw(http::Request r) {
  return impl_->send(std::move(r));
}

Result<ObjectPtr> HttpClient::get(const Resource& r, std::string_view ns, std::string_view name) {
  return impl_->send_object({.target = item(r, ns, name)});
}

Result<ObjectList> HttpClient::list(const Resource& r, const ListOptions& o) {
  ObjectList out;
  std::string next;
  do {
    std::string query = fmt::format("limit={}{}", kPageSize, selectors(o));
    if (!next.empty()) query += "&continue=" + http::percent_encode(next);
    auto page = impl_->list_page(r, o, query, out);
    if (!page && is_gone(page.error()) && !next.empty()) {
      // The pages' snapshot was compacted between two of them: read the whole at once instead.
      out.items.clear();
      page = impl_->list_page(r, o, "limit=0" + selectors(o), out);
    }
    if (!page) return propagate(page);
    next = std::move(*page);
  } while (!next.empty());
  return out;
}

Result<ObjectPtr> HttpClient::create(const Resource& r, std::string_view ns, const Object& o) {
  return impl_->send_object({.method = "POST", .target = collection(r, ns), .body = boost::json::serialize(o)});
}

Result<ObjectPtr> HttpClient::update(const Resource& r, const Object& o, std::string_view subresource) {
  return impl_->send_object(
      {.method = "PUT", .target = item(r, ns(o), name(o), subresource), .body = boost::json::serialize(o)});
}

Result<ObjectPtr> HttpClient::patch(const Resource& r, std::string_view ns, std::string_view name, PatchType type,
                                    const boost::json::value& body, std::string_view subresource) {
  http::Request request{
      .method = "PATCH", .target = item(r, ns, name, subresource), .body = boost::json::serialize(body)};
  std::string_view content = type == PatchType::kJson    ? "application/json-patch+json"
                             : type == PatchType::kMerge ? "application/merge-patch+json"
                                                         : "application/strategic-merge-patch+json";
  request.headers.set("Content-Type", content);
  return impl_->send_object(std::move(request));
}

Result<> HttpClient::remove(const Resource& r, std::string_view ns, std::string_view name, const DeleteOptions& o) {
  Object body{{"kind", "DeleteOptions"}, {"apiVersion", "v1"}};
  if (o.grace_period_seconds >= 0) body["gracePeriodSeconds"] = o.grace_period_seconds;
  if (!o.uid.empty()) ensure(body, {"preconditions"})["uid"] = o.uid;
  if (!o.resource_version.empty()) ensure(body, {"preconditions"})["resourceVersion"] = o.resource_version;
  if (!o.propagation.empty()) body["propagationPolicy"] = o.propagation;
  auto done = impl_->send({.method = "DELETE", .target = item(r, ns, name), .body = boost::json::serialize(body)});
  if (!done) return propagate(done);
  return {};
}

Result<ObjectPtr> HttpClient::create_sub(const Resource& r, std::string_view ns, std::string_view name,
                                         std::string_view subresource, const Object& o) {
  return impl_->send_object(
      {.method = "POST", .target = item(r, ns, name, subresource), .body = boost::json::serialize(o)});
}

namespace {

// Turns the body of a watch into events: one JSON object a line.
class WatchReader {
 public:
  WatchReader(const Resource& r, const ListOptions& options, const std::function<bool(const WatchEvent&)>& on_event)
      : resource_(r), options_(options), on_event_(on_event) {}
  // False to stop: the caller wants no more, or error() is set.
  bool feed(std::string_view data) {
    while (!data.empty()) {
      auto end = data.find('\n');
      if (line_.empty() && end != data.npos) {  // the usual case: no copy
        if (!deliver(data.substr(0, end))) return false;
      } else {
        line_ += data.substr(0, end);
        if (line_.size() > kMaxEventBytes) return failed({EPROTO, "watch event longer than 32 MiB", {}});
        if (end == data.npos) return true;
        bool more = deliver(line_);
        std::string().swap(line_);
        if (!more) return false;
      }
      data.remove_prefix(end + 1);
    }
    return true;
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  bool deliver(std::string_view line) {
    if (line.find_first_not_of(" \t\r") == line.npos) return true;
    auto v = parse_json(line);
    if (!v) return failed(std::move(v.error()));
    if (!v->is_object()) return failed({EPROTO, "the API server sent a watch event that is no object", {}});
    Object& event = v->get_object();
    auto type = str(event, {"type"});
    Value* object = event.if_contains("object");
    if (!object || !object->is_object())
      return failed({EPROTO, "the API server sent a watch event without an object", {}});
    if (type == "ERROR") return failed(Status::from_json(object->get_object()).to_error());
    auto known = event_type(type);
    if (!known) return true;  // from a newer server
    return on_event_({*known, slim(resource_, options_, std::move(object->get_object()))});
  }
  bool failed(Error e) {
    error_ = std::move(e);
    return false;
  }
  const Resource& resource_;
  const ListOptions& options_;
  const std::function<bool(const WatchEvent&)>& on_event_;
  std::string line_;  // the beginning of one whose end has not come
  std::optional<Error> error_;
};

}  // namespace

Result<> HttpClient::watch(const Resource& r, const WatchOptions& o,
                           const std::function<bool(const WatchEvent&)>& on_event, std::stop_token stop) {
  auto seconds = 300 + static_cast<int>(random_unit() * 300);
  http::Request request{.target = fmt::format("{}{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}{}",
                                              impl_->prefix, collection(r, o.ns), seconds, selectors(o))};
  if (!o.resource_version.empty()) request.target += "&resourceVersion=" + http::percent_encode(o.resource_version);
  request.headers.set("User-Agent", impl_->user_agent);
  request.headers.set("Accept", "application/json");
  WatchReader reader(r, o, on_event);
  http::Response answer;
  for (bool fresh_token : {false, true}) {
    impl_->sign(request, fresh_token);
    answer = {};
    auto on_head = [&](const http::Response& head) {
      answer.status = head.status;
      if (head.status == 200 && o.on_open) o.on_open();
      return true;
    };
    auto on_data = [&](std::string_view data) {
      if (answer.status == 200) return reader.feed(data);
      answer.body += data;
      return answer.body.size() < kMaxEventBytes;
    };
    // The server ends the watch by itself; if it does not, something between us has died.
    auto ended = impl_->http.stream(request, on_head, on_data, std::chrono::seconds(seconds + 30), stop);
    if (!ended) return ended;
    if (answer.status != 401 || impl_->config.token_file.empty()) break;
  }
  if (reader.error()) return std::unexpected(*reader.error());
  if (answer.status >= 400) return std::unexpected(error_of(answer));
  return {};
}

}  // namespace hawser::kube
