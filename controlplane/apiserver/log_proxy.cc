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

// One log on its way. The job's thread talks to the agent; the handler waits for `head` only.
struct LogProxy::Job {
  std::thread thread;
  std::stop_source stop;
  std::atomic<bool> done = false;

  std::mutex mu;
  std::condition_variable cv;
  bool answered = false;              // guarded by mu: the agent's head is here, or the failure
  bool given_up = false;              // guarded by mu: the handler no longer waits
  http::Response head;                // guarded by mu
  std::string failure;                // guarded by mu
  std::string error_body;             // job's thread only, until answered
  std::shared_ptr<http::Stream> out;  // guarded by mu: set by the handler once it has the head

  void answer(http::Response r, std::string why) {
    std::lock_guard l(mu);
    if (answered) return;
    head = std::move(r);
    failure = std::move(why);
    answered = true;
    cv.notify_all();
  }
  // The client's stream; null if it is not wanted any more.
  std::shared_ptr<http::Stream> sink() {
    std::unique_lock l(mu);
    cv.wait(l, [&] { return out || given_up; });
    return out;
  }
  void fetch(const Target& t, const AgentTls& tls);
};

void LogProxy::Job::fetch(const Target& t, const AgentTls& tls) {
  auto context = http::TlsContext::client(tls.ca_pem, tls.own, tls.insecure);
  if (!context) return answer({}, context.error().text);
  http::Client client({.host = t.host, .port = t.port, .tls = std::move(*context)});
  http::Request request{.method = "GET", .target = t.path};
  http::Response reply;
  std::shared_ptr<http::Stream> to;
  auto on_head = [&](const http::Response& h) {
    reply = h;
    if (h.status == 200) {
      answer(h, {});
      to = sink();
      return to != nullptr;
    }
    return true;
  };
  auto on_data = [&](std::string_view data) {
    if (to) return to->wait_below(kMaxQueuedBytes) && to->write(data);
    reply.body += data.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, reply.body.size()));
    return true;
  };
  auto done_or = client.stream(request, on_head, on_data, kIdleTimeout, stop.get_token());
  if (to) to->close();
  if (!done_or)
    return answer({}, fmt::format("Get \"https://{}:{}{}\": {}", t.host, t.port, t.path, done_or.error().text));
  answer(std::move(reply), {});
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
  Target t{.host = node_address(*(*node)->object)};
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
  std::shared_ptr<Job> job;
  {
    std::lock_guard l(mu_);
    if (stopping_) return out.send(render_status(kube::service_unavailable("the server is shutting down")));
    job = jobs_.emplace_back(std::make_shared<Job>());
    job->thread = std::thread([this, job = job.get(), where = **t] {
      job->fetch(where, tls_);
      job->done = true;
    });
  }
  std::unique_lock l(job->mu);
  auto& clock = registry_.clock();
  bool in_time = clock.wait_until(l, job->cv, clock.now() + kHeadTimeout, [&] { return job->answered; });
  if (in_time && job->failure.empty() && job->head.status == 200) {
    http::Response head;
    head.headers.set("Content-Type", "text/plain");
    head.headers.set("Cache-Control", "no-cache, private");
    job->out = out.stream(std::move(head));
    // Hanging up ends the exchange with the agent too.
    job->out->on_close([stop = job->stop]() mutable { stop.request_stop(); });
    job->cv.notify_all();
    return;
  }
  job->given_up = true;
  job->cv.notify_all();
  job->stop.request_stop();
  if (!in_time) return out.send(render_status(kube::timeout("the agent did not answer", 1)));
  if (!job->failure.empty()) return out.send(render_status(kube::internal_error(job->failure)));
  auto status = job->head.status == 404 ? kube::not_found("", "pods", at.name) : kube::internal_error(job->head.body);
  if (job->head.status == 400) status = kube::bad_request(job->head.body);
  if (job->head.status == 404 && !job->head.body.empty()) status.message = job->head.body;
  out.send(render_status(status));
}

}  // namespace hawser::apiserver
