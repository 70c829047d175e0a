// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/etcd_client.h"

#include <charconv>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/base64.h"
#include "lib/kube/object.h"

namespace hawser::overlay {
namespace {

namespace json = boost::json;

// The gateway writes 64-bit numbers as texts and leaves out zeros.
std::int64_t number(const json::object& o, std::initializer_list<std::string_view> path) {
  auto text = kube::str(o, path);
  std::int64_t n = kube::num(o, path);
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

std::string decoded(const json::object& o, std::string_view field) {
  return base64_decode(kube::str(o, {field})).value_or(std::string());
}

EtcdKey parse_key(const json::object& kv) {
  return {.key = decoded(kv, "key"),
          .value = decoded(kv, "value"),
          .mod_revision = number(kv, {"mod_revision"}),
          .lease = number(kv, {"lease"})};
}

// The first key after all that begin with `prefix`.
std::string end_of(std::string prefix) {
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

Result<http::ClientOptions> parse_endpoint(const std::string& url) {
  http::ClientOptions o{.port = 2379};
  std::string_view rest = url;
  if (!rest.starts_with("http://") && !rest.starts_with("https://"))
    return fail(EINVAL, "--etcd-endpoints \"{}\": begins with neither http:// nor https://", url);
  rest.remove_prefix(rest.find("//") + 2);
  rest = rest.substr(0, rest.find('/'));
  const auto colon = rest.rfind(':');
  if (colon != rest.npos && rest.back() != ']') {
    const auto port = rest.substr(colon + 1);
    auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), o.port);
    if (ec != std::errc() || end != port.data() + port.size())
      return fail(EINVAL, "--etcd-endpoints \"{}\": the port is not a number", url);
    rest = rest.substr(0, colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty()) return fail(EINVAL, "--etcd-endpoints \"{}\": has no host", url);
  o.host = rest;
  return o;
}

Result<std::shared_ptr<http::TlsContext>> make_tls(const EtcdOptions& o) {
  http::PemPair own;
  std::string ca;
  for (auto [file, into] : {std::pair{&o.ca_file, &ca}, {&o.cert_file, &own.cert}, {&o.key_file, &own.key}}) {
    if (file->empty()) continue;
    auto text = read_file(*file);
    if (!text) return propagate(text);
    *into = std::move(*text);
  }
  return http::TlsContext::client(ca, own);
}

Result<json::object> parse_answer(const http::Response& r) {
  boost::system::error_code ec;
  auto v = json::parse(r.body, ec);
  if (ec || !v.is_object())
    return fail(r.status >= 400 ? r.status : EPROTO, "etcd answered {} without JSON: {}", r.status,
                r.body.substr(0, 100));
  auto& o = v.get_object();
  if (r.status >= 400) {
    auto why = kube::str(o, {"error"});
    return fail(r.status, "etcd: {}", why.empty() ? kube::str(o, {"message"}) : why);
  }
  return std::move(o);
}

}  // namespace

Result<std::unique_ptr<EtcdClient>> EtcdClient::make(const EtcdOptions& options) {
  std::unique_ptr<EtcdClient> c(new EtcdClient(options));
  std::shared_ptr<http::TlsContext> tls;
  for (const auto& url : options.endpoints) {
    auto o = parse_endpoint(url);
    if (!o) return propagate(o);
    if (url.starts_with("https") && !tls) {
      auto made = make_tls(options);
      if (!made) return propagate(made, "--etcd-cafile, --etcd-certfile, --etcd-keyfile");
      tls = std::move(*made);
    }
    if (url.starts_with("https")) o->tls = tls;
    c->endpoints_.push_back({url, std::make_unique<http::Client>(*o)});
  }
  if (c->endpoints_.empty()) return fail(EINVAL, "--etcd-endpoints: is empty");
  return c;
}

std::size_t EtcdClient::current() {
  std::lock_guard l(mu_);
  return at_;
}

std::string EtcdClient::token() {
  std::lock_guard l(mu_);
  return token_;
}

http::Request EtcdClient::request(const std::string& path, const json::object& body) {
  http::Request r{.method = "POST", .target = "/v3/" + path, .body = json::serialize(body)};
  r.headers.set("Content-Type", "application/json");
  std::lock_guard l(mu_);
  if (!token_.empty()) r.headers.set("Authorization", token_);
  return r;
}

Result<> EtcdClient::log_in(Endpoint& e) {
  if (options_.user.empty()) return fail(401, "etcd: asks for --etcd-username");
  {
    std::lock_guard l(mu_);
    token_.clear();  // one that ran out would be refused here too
  }
  auto r = e.client->send(request("auth/authenticate", {{"name", options_.user}, {"password", options_.password}}));
  if (!r) return propagate(r);
  auto o = parse_answer(*r);
  if (!o) return propagate(o, "log in as {}", options_.user);
  std::lock_guard l(mu_);
  token_ = kube::str(*o, {"token"});
  return {};
}

// With TLS etcd calls somebody without a name "permission denied", as it does a user without the right, so a user whose
// name we have logs in before the first call.
Result<json::object> EtcdClient::call_one(Endpoint& e, const std::string& path, const json::object& body) {
  if (!options_.user.empty() && token().empty()) {
    auto in = log_in(e);
    if (!in && !in.error().text.contains("authentication is not enabled")) return propagate(in);
  }
  auto r = e.client->send(request(path, body));
  if (!r) return propagate(r, "etcd {}", e.base);
  const bool unknown = r->status == 401 || (r->status >= 400 && r->body.contains("user name is empty"));
  if (unknown || (r->status == 403 && options_.user.empty())) {
    if (auto in = log_in(e); !in) return propagate(in);
    r = e.client->send(request(path, body));
    if (!r) return propagate(r, "etcd {}", e.base);
  }
  return parse_answer(*r);
}

Result<json::object> EtcdClient::call(const std::string& path, const json::object& body) {
  Result<json::object> last = fail(EHOSTUNREACH, "no endpoint");
  for (std::size_t i = 0; i < endpoints_.size(); i++) {
    const auto tried = current();
    last = call_one(endpoints_[tried], path, body);
    // What etcd refuses one endpoint refuses like the other; one that is away or has no leader may have a better peer.
    if (last || (last.error().code >= 400 && last.error().code < 500)) return last;
    std::lock_guard l(mu_);
    if (at_ == tried) at_ = (at_ + 1) % endpoints_.size();  // else another thread has gone on already
  }
  return last;
}

Result<EtcdRange> EtcdClient::range(const std::string& key, bool prefix) {
  json::object q{{"key", base64_encode(key)}};
  if (prefix) q["range_end"] = base64_encode(end_of(key));
  auto o = call("kv/range", q);
  if (!o) return propagate(o);
  EtcdRange r{.revision = number(*o, {"header", "revision"})};
  for (const auto& kv : kube::arr(*o, {"kvs"})) r.keys.push_back(parse_key(kube::as_obj(kv)));
  return r;
}

Result<bool> EtcdClient::put_if(const EtcdKey& wanted, std::int64_t expected) {
  const auto key = base64_encode(wanted.key);
  json::object put{{"key", key}, {"value", base64_encode(wanted.value)}};
  if (wanted.lease) put["lease"] = std::to_string(wanted.lease);
  json::object compare{
      {"key", key}, {"target", "MOD"}, {"result", "EQUAL"}, {"mod_revision", std::to_string(expected)}};
  auto o =
      call("kv/txn", {{"compare", json::array{compare}}, {"success", json::array{json::object{{"request_put", put}}}}});
  if (!o) return propagate(o);
  return kube::flag(*o, {"succeeded"});
}

Result<std::int64_t> EtcdClient::grant(std::int64_t ttl_seconds) {
  auto o = call("lease/grant", {{"TTL", std::to_string(ttl_seconds)}});
  if (!o) return propagate(o);
  return number(*o, {"ID"});
}

Result<std::int64_t> EtcdClient::keep_alive(std::int64_t lease) {
  auto o = call("lease/keepalive", {{"ID", std::to_string(lease)}});
  if (!o) return propagate(o);
  return number(*o, {"result", "TTL"});
}

Result<> EtcdClient::watch(const std::string& prefix, std::int64_t from_revision,
                           const std::function<bool(const std::vector<EtcdEvent>&, std::int64_t)>& on_events,
                           std::stop_token stop) {
  json::object create{{"key", base64_encode(prefix)},
                      {"range_end", base64_encode(end_of(prefix))},
                      {"start_revision", std::to_string(from_revision)}};
  std::string rest;
  Result<> ended;
  auto on_line = [&](std::string_view line) {
    boost::system::error_code ec;
    auto v = json::parse(line, ec);
    if (ec || !v.is_object()) return true;  // an empty line
    const auto& result = kube::obj(v.get_object(), {"result"});
    if (kube::flag(result, {"canceled"})) {
      bool compacted = number(result, {"compact_revision"}) > 0;
      ended = fail(compacted ? 410 : 503, "etcd ended the watch: {}",
                   compacted ? "compacted" : kube::str(result, {"cancel_reason"}));
      return false;
    }
    std::vector<EtcdEvent> events;
    for (const auto& e : kube::arr(result, {"events"})) {
      const auto& o = kube::as_obj(e);
      events.push_back({kube::str(o, {"type"}) == "DELETE", parse_key(kube::obj(o, {"kv"}))});
    }
    return events.empty() || on_events(events, number(result, {"header", "revision"}));
  };
  auto on_data = [&](std::string_view data) {
    rest += data;
    for (std::size_t end; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) {
      if (!on_line(std::string_view(rest).substr(0, end))) return false;
    }
    return true;
  };
  // Nothing may happen for long; a server that vanished without a word is noticed when the time is over.
  constexpr std::chrono::minutes kIdle{5};
  auto r = endpoints_[current()].client->stream(
      request("watch", {{"create_request", create}}), [&](const http::Response& head) { return head.status == 200; },
      on_data, kIdle, std::move(stop));
  if (!ended) return ended;
  return r || r.error().code == ETIMEDOUT ? Result<>() : Result<>(propagate(r, "watch"));
}

}  // namespace hawser::overlay
