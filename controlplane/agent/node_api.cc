// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/node_api.h"

#include <algorithm>
#include <charconv>

#include <boost/json/serialize.hpp>

#include "controlplane/agent/cri_log.h"
#include "lib/base/time_text.h"
#include "lib/kube/object.h"

namespace hawser::agent {
namespace {

using kube::Object;

constexpr std::size_t kMaxQueuedBytes = 256 << 10;
constexpr std::chrono::milliseconds kFollowLook{1000};

void answer(http::Responder& out, int status, std::string body, std::string_view type = "text/plain; charset=utf-8") {
  http::Response r;
  r.status = status;
  r.headers.set("Content-Type", type);
  r.body = std::move(body);
  out.send(std::move(r));
}

Result<std::int64_t> number(const http::Request& r, const char* name) {
  const std::string text = r.query(name);
  std::int64_t v = 0;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (err != std::errc() || end != text.data() + text.size() || v < 0)
    return fail(400, "{}: Invalid value: {:?}: must be a number, 0 or greater", name, text);
  return v;
}
bool is_true(const http::Request& r, const char* name) {
  const std::string v = r.query(name);
  return v == "true" || v == "1";
}

Result<LogOptions> log_options(const http::Request& r, WallTime now) {
  LogOptions o;
  o.follow = is_true(r, "follow");
  o.timestamps = is_true(r, "timestamps");
  if (r.has_query("tailLines")) {
    auto v = number(r, "tailLines");
    if (!v) return propagate(v);
    o.tail_lines = *v;
  }
  if (r.has_query("limitBytes")) {
    auto v = number(r, "limitBytes");
    if (!v) return propagate(v);
    o.limit_bytes = *v;
  }
  if (r.has_query("sinceSeconds")) {
    auto v = number(r, "sinceSeconds");
    if (!v) return propagate(v);
    o.since = now - std::chrono::seconds(*v);
  }
  if (r.has_query("sinceTime")) {
    auto t = parse_rfc3339(r.query("sinceTime"));
    if (!t) return fail(400, "sinceTime: Invalid value: {:?}: must be an RFC 3339 time", r.query("sinceTime"));
    o.since = *t;
  }
  return o;
}

// The instance of a container whose log is asked for.
struct Target {
  std::string path, container_id;
};

// Why a container has no log yet, from its published status; the wording is the kubelet's.
Result<Target> no_log(const PodView& v, std::string_view container) {
  for (const char* list : {"containerStatuses", "initContainerStatuses"}) {
    for (const auto& s : kube::arr(v.status, {list})) {
      const Object& status = kube::as_obj(s);
      if (kube::str(status, {"name"}) != container) continue;
      const auto reason = kube::str(status, {"state", "waiting", "reason"});
      const std::string_view text = reason == "ErrImagePull"       ? "trying and failing to pull image"
                                    : reason == "ImagePullBackOff" ? "image can't be pulled"
                                    : reason.empty()               ? "ContainerCreating"
                                                                   : reason;
      return fail(400, "container \"{}\" in pod \"{}\" is waiting to start: {}", container, v.spec->name, text);
    }
  }
  return fail(400, "container \"{}\" in pod \"{}\" is not available", container, v.spec->name);
}

Result<Target> log_target(const PodView& v, const NodeSettings& node, const std::string& container, bool previous) {
  if (!v.spec->container(container))
    return fail(404, "container \"{}\" not found in pod \"{}\"", container, v.spec->name);
  PodState state;
  state.containers = v.containers;
  const Container* c = previous ? state.previous(container) : state.latest(container);
  if (!c && previous)
    return fail(400, "previous terminated container \"{}\" in pod \"{}\" not found", container, v.spec->name);
  if (!c) return no_log(v, container);
  return Target{fmt::format("{}/{}/{}.log", pod_log_dir(node, *v.spec), container, c->attempt), c->id};
}

}  // namespace

int authorize(const http::PeerIdentity& peer) {
  if (peer.user.empty()) return 401;
  if (peer.user == "kube-apiserver-kubelet-client") return 0;
  return std::ranges::find(peer.groups, "system:masters") != peer.groups.end() ? 0 : 403;
}

void NodeApi::handle(const http::Request& r, http::Responder& out) {
  if (const int refused = authorize(r.peer); refused == 401)
    return answer(out, 401, "Unauthorized");
  else if (refused != 0)
    return answer(out, refused, fmt::format("Forbidden (user={}, verb={}, path={})", r.peer.user, r.method, r.path()));
  if (r.method != "GET" && r.method != "HEAD") return answer(out, 405, "Method Not Allowed");
  const auto path = r.path();
  if (path == "/healthz") return answer(out, 200, "ok");
  if (path == "/metrics") return answer(out, 200, ctx_.metrics.text(), metrics::kContentType);
  if (path == "/pods" || path == "/runningpods/" || path == "/runningpods") return pods(out);
  if (path.starts_with("/containerLogs/")) return container_logs(r, out);
  answer(out, 404, "404 page not found");
}

void NodeApi::pods(http::Responder& out) {
  kube::Array items;
  for (const auto& v : ctx_.views()) {
    Object pod = *v->spec->object;
    pod["status"] = v->status;
    items.push_back(std::move(pod));
  }
  const Object list{{"kind", "PodList"}, {"apiVersion", "v1"}, {"metadata", Object{}}, {"items", std::move(items)}};
  answer(out, 200, boost::json::serialize(list), "application/json");
}

void NodeApi::container_logs(const http::Request& r, http::Responder& out) {
  // /containerLogs/NAMESPACE/POD/CONTAINER
  std::vector<std::string> parts;
  for (std::string_view rest = r.path().substr(1); !rest.empty();) {
    const auto slash = rest.find('/');
    parts.push_back(http::percent_decode(rest.substr(0, slash)));
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
  }
  if (parts.size() != 4) return answer(out, 404, "404 page not found");
  const auto view = ctx_.view(parts[1], parts[2]);
  if (!view) return answer(out, 404, fmt::format("pod \"{}\" does not exist on this node", parts[2]));
  auto options = log_options(r, ctx_.clock.wall());
  if (!options) return answer(out, options.error().code, options.error().text);
  auto target = log_target(*view, ctx_.node, parts[3], is_true(r, "previous"));
  if (!target) return answer(out, target.error().code, target.error().text);
  auto reader = std::make_shared<LogReader>(target->path, *options);
  // The first piece decides between an answer and an error.
  std::string first;
  std::shared_ptr<http::Stream> stream;
  http::Response head;
  head.headers.set("Content-Type", "text/plain");
  const auto write = [&](std::string_view text) {
    if (stream) return stream->write(text) && stream->wait_below(kMaxQueuedBytes);
    first += text;
    if (first.size() > kMaxQueuedBytes / 2)
      stream = out.stream(http::Response{.status = 200, .headers = head.headers, .body = std::move(first)});
    return true;
  };
  auto more = reader->read(write);
  if (!more && !stream) return answer(out, is_not_found(more.error()) ? 404 : 500, more.error().text);
  if (!stream && !options->follow) {
    head.body = std::move(first);
    return out.send(std::move(head));
  }
  if (!stream) stream = out.stream(http::Response{.status = 200, .headers = head.headers, .body = std::move(first)});
  if (!more || !*more || !options->follow) return stream->close();
  ctx_.slow.submit([view = ctx_.view, reader, stream, ns = parts[1], pod = parts[2], id = target->container_id] {
    const auto runs = [&] {
      const auto v = view(ns, pod);
      return v && std::ranges::any_of(v->containers, [&](const Container& c) {
               return c.id == id && c.state == ContainerState::kRunning;
             });
    };
    while (stream->open()) {
      const bool last = !runs();  // asked before the read, so that its last words are read too
      auto go_on = reader->read(
          [&](std::string_view text) { return stream->write(text) && stream->wait_below(kMaxQueuedBytes); });
      if (last || !go_on || !*go_on) break;
      if (!reader->wait_for_more(kFollowLook)) break;
    }
    stream->close();
  });
}

}  // namespace hawser::agent
