// SPDX-License-Identifier: Apache-2.0
#include "proxyd/health/health.h"

#include <algorithm>
#include <charconv>

#include <boost/json/serialize.hpp>

#include "lib/base/ip.h"
#include "lib/base/log.h"
#include "lib/base/time_text.h"

namespace hawser::proxy {
namespace {

http::Response text(int status, std::string body, std::string_view type = "text/plain; charset=utf-8") {
  http::Response r{.status = status, .headers = {}, .body = std::move(body)};
  r.headers.set("Content-Type", type);
  r.headers.set("X-Content-Type-Options", "nosniff");
  return r;
}

struct BindAddress {
  std::string host;
  std::uint16_t port = 0;
};

// "0.0.0.0:10256" or "[::]:10256".
Result<BindAddress> parse_bind(std::string_view flag, std::string_view s) {
  auto colon = s.rfind(':');
  std::uint16_t port = 0;
  if (colon != s.npos) {
    auto [end, ec] = std::from_chars(s.data() + colon + 1, s.data() + s.size(), port);
    auto host = s.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (ec == std::errc() && end == s.data() + s.size() && IpAddr::parse(host))
      return BindAddress{std::string(host), port};
  }
  return fail(EINVAL, "{} \"{}\": want ADDRESS:PORT", flag, s);
}

// kube-proxy's buckets: fine below a minute, where it should be, and coarse up to five.
std::vector<double> programming_buckets() {
  std::vector<double> out = {0.25, 0.5};
  for (int i = 1; i < 60; ++i) out.push_back(i);
  for (int i = 60; i < 120; i += 5) out.push_back(i);
  for (int i = 120; i <= 300; i += 30) out.push_back(i);
  return out;
}

}  // namespace

ProxyHealth::ProxyHealth(Clock& clock, Nanos limit) : clock_(clock), limit_(limit) {}

void ProxyHealth::queued() {
  std::lock_guard l(mu_);
  if (!waiting_since_) waiting_since_ = clock_.now();
}
void ProxyHealth::syncing() {
  std::lock_guard l(mu_);
  // After a failure the older ones still wait.
  if (!syncing_since_) syncing_since_ = waiting_since_;
  waiting_since_.reset();
}
void ProxyHealth::synced(std::uint64_t generation, Revisions revisions) {
  std::lock_guard l(mu_);
  syncing_since_.reset();
  generation_ = generation;
  revisions_ = std::move(revisions);
  last_synced_ = clock_.wall();
}
void ProxyHealth::set_node_eligible(bool eligible) {
  std::lock_guard l(mu_);
  eligible_ = eligible;
}
bool ProxyHealth::alive_locked() const {
  const auto late = [&](const std::optional<MonoTime>& since) { return since && clock_.now() - *since > limit_; };
  return generation_ && !late(waiting_since_) && !late(syncing_since_);
}
bool ProxyHealth::alive() const {
  std::lock_guard l(mu_);
  return alive_locked();
}
bool ProxyHealth::healthy() const {
  std::lock_guard l(mu_);
  return alive_locked() && eligible_;
}
std::optional<std::uint64_t> ProxyHealth::generation() const {
  std::lock_guard l(mu_);
  return generation_;
}
std::string ProxyHealth::body() const {
  std::lock_guard l(mu_);
  return fmt::format(R"({{"lastUpdated": "{}","currentTime": "{}","nodeEligible": {}}})", rfc3339(last_synced_),
                     rfc3339(clock_.wall()), eligible_);
}

std::string ProxyHealth::status(std::string_view node, const ModeStatus& mode, std::string_view localhost) const {
  std::lock_guard l(mu_);
  boost::json::object revisions;
  for (const auto& [kind, version] : revisions_) revisions[kind] = std::to_string(version);
  boost::json::object o{{"node", node}, {"mode", mode.current}, {"ready", generation_.has_value()}};
  o["healthy"] = alive_locked() && eligible_;
  o["generation"] = generation_.value_or(0);
  o["pending"] = waiting_since_ || syncing_since_;
  o["lastUpdated"] = rfc3339_micro(last_synced_);
  o["resourceVersions"] = std::move(revisions);
  if (!mode.step.empty() || !mode.problem.empty()) {
    o["modeSwitch"] = boost::json::object{
        {"to", mode.wanted}, {"step", mode.step}, {"draining", mode.draining}, {"problem", mode.problem}};
  }
  o["localhostNodePorts"] = localhost;
  return boost::json::serialize(o) + "\n";
}

ProxyMetrics::ProxyMetrics(metrics::Registry& r)
    : sync_duration(r.histogram("kubeproxy_sync_proxy_rules_duration_seconds", "One sync, state to kernel.",
                                metrics::exponential_buckets(0.001, 2, 15), {"ip_family"})),
      full_sync_duration(r.histogram("kubeproxy_sync_full_proxy_rules_duration_seconds",
                                     "Syncs that read the kernel back.", metrics::exponential_buckets(0.001, 2, 15),
                                     {"ip_family"})),
      partial_sync_duration(r.histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds",
                                        "Syncs that wrote a change alone.", metrics::exponential_buckets(0.001, 2, 15),
                                        {"ip_family"})),
      programming_duration(r.histogram("kubeproxy_network_programming_duration_seconds",
                                       "From the change of an endpoint to its rules in this kernel.",
                                       programming_buckets(), {"ip_family"})),
      last_queued(r.gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "When a sync was last asked for.",
                          {"ip_family"})),
      last_synced(
          r.gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When a sync last succeeded.", {"ip_family"})),
      service_changes(
          r.counter("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services seen.").with()),
      endpoint_changes(
          r.counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices seen.").with()),
      service_changes_pending(
          r.gauge("kubeproxy_sync_proxy_rules_service_changes_pending", "Not in the kernel yet.").with()),
      endpoint_changes_pending(
          r.gauge("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "Not in the kernel yet.").with()),
      sync_failures(r.counter("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "Syncs the kernel refused.",
                              {"ip_family"})),
      no_local_endpoints(r.gauge("kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                                 "Ports of Services with a Local policy whose endpoints are all on other nodes.",
                                 {"traffic_policy", "ip_family"})),
      generation(r.gauge("hawser_proxyd_generation", "Generation of the state that the kernel serves.").with()),
      revision(r.gauge("hawser_proxyd_resource_version", "Newest resourceVersion that the kernel serves.", {"kind"})),
      repairs(r.counter("hawser_proxyd_repairs_total", "Times rules changed by others were put right.").with()) {}

http::Response answer_healthz(std::string_view path, const ProxyHealth& health) {
  if (path == "/healthz") return text(health.healthy() ? 200 : 503, health.body(), "application/json");
  if (path == "/livez") return text(health.alive() ? 200 : 503, health.body(), "application/json");
  if (path == "/readyz") {
    auto generation = health.generation();
    return generation ? text(200, fmt::format("ok: the kernel serves generation {}\n", *generation))
                      : text(503, "not ready: nothing is in the kernel yet\n");
  }
  return text(404, "there are /healthz, /livez and /readyz\n");
}

http::Response answer_metrics(std::string_view path, const ProxyHealth& health, const metrics::Registry& registry,
                              const HealthServerOptions& o) {
  if (path == "/metrics") return text(200, registry.text(), metrics::kContentType);
  if (path == "/proxyMode") return text(200, o.mode().current);
  if (path == "/configz") return text(200, o.configz, "application/json");
  if (path == "/status")
    return text(200, health.status(o.node, o.mode(), o.localhost_node_ports ? o.localhost_node_ports() : "off"),
                "application/json");
  if (path == "/healthz") return answer_healthz(path, health);
  return text(404, "there are /metrics, /proxyMode, /configz, /status and /healthz\n");
}

Result<> HealthServers::open(Endpoint& e) {
  auto address = parse_bind(e.flag, e.bind);
  if (!address) return propagate(address);
  auto server = std::make_unique<http::Server>(
      http::ServerOptions{.worker_threads = 1}, nullptr,
      [answer = e.answer](const http::Request& r, http::Responder& out) { out.send(answer(r)); });
  auto port = server->listen(address->host, address->port);
  if (!port) return propagate(port, "{}", e.flag);
  e.server = std::move(server);
  return {};
}

bool HealthServers::retry() {
  bool all = true;
  for (auto& e : endpoints_) {
    if (e.server) continue;
    auto opened = open(e);
    if (opened) {
      if (!e.problem.empty()) log::info("{} {} is served now", e.flag, e.bind);
      continue;
    }
    all = false;
    if (e.problem != opened.error().text) log::error("{}; trying again", opened.error().text);
    e.problem = opened.error().text;
  }
  return all;
}

Result<std::unique_ptr<HealthServers>> HealthServers::start(const HealthServerOptions& o, const ProxyHealth& health,
                                                            metrics::Registry& registry) {
  auto out = std::make_unique<HealthServers>();
  auto& healthz = registry.counter("kubeproxy_proxy_healthz_total", "Answers of /healthz.", {"code"});
  auto& livez = registry.counter("kubeproxy_proxy_livez_total", "Answers of /livez.", {"code"});
  out->endpoints_.push_back({"--healthz-bind-address", o.healthz_bind,
                             [&health, &healthz, &livez](const http::Request& request) {
                               const auto path = request.path();
                               auto r = answer_healthz(path, health);
                               if (path == "/healthz") healthz.with({std::to_string(r.status)}).add();
                               if (path == "/livez") livez.with({std::to_string(r.status)}).add();
                               return r;
                             },
                             nullptr, ""});
  out->endpoints_.push_back({"--metrics-bind-address", o.metrics_bind,
                             [&health, &registry, o](const http::Request& request) {
                               if (o.more) {
                                 if (auto r = o.more(request)) return std::move(*r);
                               }
                               return answer_metrics(request.path(), health, registry, o);
                             },
                             nullptr, ""});
  std::erase_if(out->endpoints_, [](const Endpoint& e) { return e.bind.empty(); });
  for (auto& e : out->endpoints_) {
    if (auto address = parse_bind(e.flag, e.bind); !address) return propagate(address);
    if (!o.hard_fail) continue;
    if (auto r = open(e); !r) return propagate(r);
  }
  out->retry();
  return out;
}

}  // namespace hawser::proxy
