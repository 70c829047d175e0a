// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/log_proxy.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "controlplane/apiserver/render.h"
#include "lib/http/client.h"

namespace hawser::apiserver {

namespace {

constexpr std::uint16_t kDefaultAgentPort = 10250;
constexpr auto kHeadTimeout = std::chrono::seconds(30);
// A follower of a silent container hears nothing for hours; the client's own hanging up ends it.
constexpr auto kIdleTimeout = std::chrono::hours(4);
constexpr std::size_t kMaxErrorBytes = 64u << 10;
// Each log being read has a thread.
constexpr std::size_t kMaxJobs = 256;
// A reader slower than the agent slows the agent down.
constexpr std::size_t kMaxQueuedBytes = 1u << 20;

// What the agent understands of PodLogOptions.
constexpr std::array<std::string_view, 8> kPassedOn = {"follow",     "previous",  "sinceSeconds", "sinceTime",
                                                       "timestamps", "tailLines", "limitBytes",   "stream"};

std::string node_address(const Object& node) {
  std::string fallback;
  for (auto& a : kube::arr(node, {"status", "addresses"})) {
    auto& o = kube::as_obj(a);
    if (kube::str(o, {"type"}) == "InternalIP") return std::string(kube::str(o, {"address"}));
    if (fallback.empty()) fallback = kube::str(o, {"address"});
  }
  return fallback;
}

const Kind& kind_of(std::string_view plural) {
  return *schema::find_resource("", "v1", plural);
}

}  // namespace

// One log on its way.
struct LogProxy::Job {
  std::thread thread;
  std::stop_source stop;
  std::atomic<bool> done = false;
};

namespace {

kube::Status refused_by_agent(const http::Response& head, const std::string& text, std::string_view pod) {
  if (head.status == 400) return kube::bad_request(text);
  if (head.status != 404) return kube::internal_error(text);
  auto s = kube::not_found("", "pods", pod);
  if (!text.empty()) s.message = text;
  return s;
}

}  // namespace

// On the job's thread.
void LogProxy::fetch(const Target& t, std::stop_source stop, http::Responder& out) const {
  auto context = http::TlsContext::client(tls_.ca_pem, tls_.own, tls_.insecure);
  if (!context) return out.send(render_status(kube::internal_error(context.error().text)));
  http::Client client({.host = t.host, .port = t.port, .tls = std::move(*context), .request_timeout = kHeadTimeout});
  http::Response reply;
  std::shared_ptr<http::Stream> to;
  auto on_head = [&](const http::Response& h) {
    reply = h;
    if (h.status != 200) return true;
    http::Response head;
    head.headers.set("Content-Type", "text/plain");
    head.headers.set("Cache-Control", "no-cache, private");
    to = out.stream(std::move(head));
    // Hanging up ends the exchange with the agent too.
    to->on_close([stop]() mutable { stop.request_stop(); });
    return true;
  };
  auto on_data = [&](std::string_view data) {
    if (to) return to->wait_below(kMaxQueuedBytes) && to->write(data);
    reply.body += data.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, reply.body.size()));
    return true;
  };
  auto ended = client.stream({.method = "GET", .target = t.path}, on_head, on_data, kIdleTimeout, stop.get_token());
  if (to) return to->close();
  if (ended) return out.send(render_status(refused_by_agent(reply, reply.body, t.pod)));
  auto why = fmt::format("Get \"https://{}:{}{}\": {}", t.host, t.port, t.path, ended.error().text);
  out.send(render_status(ended.error().code == ETIMEDOUT ? kube::timeout(why, 1) : kube::internal_error(why)));
}

LogProxy::LogProxy(Registry& registry, AgentTls tls) : registry_(registry), tls_(std::move(tls)) {}

LogProxy::~LogProxy() {
  stop();
}

void LogProxy::stop() {
  std::list<std::shared_ptr<Job>> jobs;
  {
    std::lock_guard l(mu_);
    stopping_ = true;
    jobs.swap(jobs_);
  }
  for (auto& j : jobs) j->stop.request_stop();
  for (auto& j : jobs) j->thread.join();
}

void LogProxy::reap() {
  std::list<std::shared_ptr<Job>> finished;
  {
    std::lock_guard l(mu_);
    for (auto it = jobs_.begin(); it != jobs_.end();) {
      auto next = std::next(it);
      if ((*it)->done) finished.splice(finished.end(), jobs_, it);
      it = next;
    }
  }
  for (auto& j : finished) j->thread.join();
}

Expected<std::string> log_container(const Object& pod, const std::string& asked) {
  std::vector<std::string> names;
  for (auto path : {"initContainers", "containers", "ephemeralContainers"}) {
    for (auto& c : kube::arr(pod, {"spec", path})) names.emplace_back(kube::str(kube::as_obj(c), {"name"}));
  }
  auto name = kube::name(pod);
  if (!asked.empty()) {
    if (std::ranges::find(names, asked) != names.end()) return asked;
    return std::unexpected(kube::bad_request(fmt::format("container {} is not valid for pod {}", asked, name)));
  }
  if (names.size() == 1) return names[0];
  std::vector<std::string> init, main;
  for (auto& c : kube::arr(pod, {"spec", "containers"})) main.emplace_back(kube::str(kube::as_obj(c), {"name"}));
  for (auto& c : kube::arr(pod, {"spec", "initContainers"})) init.emplace_back(kube::str(kube::as_obj(c), {"name"}));
  auto text =
      fmt::format("a container name must be specified for pod {}, choose one of: [{}]", name, fmt::join(main, " "));
  if (!init.empty()) text += fmt::format(" or one of the init containers: [{}]", fmt::join(init, " "));
  return std::unexpected(kube::bad_request(text));
}

Expected<std::optional<LogProxy::Target>> LogProxy::target(ObjectName at, const http::Request& r) {
  auto pod = registry_.get(kind_of("pods"), at);
  if (!pod) return std::unexpected(pod.error());
  auto container = log_container(*(*pod)->object, r.query("container"));
  if (!container) return std::unexpected(container.error());
  auto node_name = kube::str(*(*pod)->object, {"spec", "nodeName"});
  // Not scheduled yet: there is no log, and that is no error.
  if (node_name.empty()) return std::nullopt;
  auto node = registry_.get(kind_of("nodes"), {"", node_name});
  if (!node) return std::unexpected(node.error());
  Target t{.pod = std::string(at.name), .host = node_address(*(*node)->object)};
  if (t.host.empty())
    return std::unexpected(kube::internal_error(fmt::format("no address known for node \"{}\"", node_name)));
  auto port = kube::num(*(*node)->object, {"status", "daemonEndpoints", "kubeletEndpoint", "Port"}, kDefaultAgentPort);
  t.port = static_cast<std::uint16_t>(port);
  t.path = fmt::format("/containerLogs/{}/{}/{}", at.ns, at.name, http::percent_encode(*container));
  char joint = '?';
  for (auto name : kPassedOn) {
    auto value = r.query(name);
    if (value.empty()) continue;
    t.path += fmt::format("{}{}={}", joint, name, http::percent_encode(value));
    joint = '&';
  }
  return t;
}

void LogProxy::serve(ObjectName at, const http::Request& r, http::Responder& out) {
  reap();
  auto t = target(at, r);
  if (!t) return out.send(render_status(t.error()));
  if (!*t) return out.send(render_text(200, "", "text/plain"));
  std::lock_guard l(mu_);
  if (stopping_) return out.send(render_status(kube::service_unavailable("the server is shutting down")));
  if (jobs_.size() >= kMaxJobs)
    return out.send(render_status(kube::too_many_requests("too many logs are being read", 1)));
  auto job = jobs_.emplace_back(std::make_shared<Job>());
  job->thread = std::thread([this, job = job.get(), where = **t, reply = out.detach()]() mutable {
    fetch(where, job->stop, *reply);
    reply.reset();
    job->done = true;
  });
}

}  // namespace hawser::apiserver
