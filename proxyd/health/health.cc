// SPDX-License-Identifier: Apache-2.0
#include "proxyd/health/health.h"

#include <charconv>

#include "lib/base/ip.h"
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

Result<std::unique_ptr<http::Server>> serve(std::string_view flag, const std::string& bind,
                                            std::function<http::Response(std::string_view)> answer) {
  if (bind.empty()) return nullptr;
  auto address = parse_bind(flag, bind);
  if (!address) return propagate(address);
  auto server = std::make_unique<http::Server>(
      http::ServerOptions{.worker_threads = 1}, nullptr,
      [answer = std::move(answer)](const http::Request& r, http::Responder& out) { out.send(answer(r.path())); });
  auto port = server->listen(address->host, address->port);
  if (!port) return propagate(port, "{}", flag);
  return server;
}

}  // namespace

ProxyHealth::ProxyHealth(Clock& clock, Nanos limit) : clock_(clock), limit_(limit) {}

void ProxyHealth::queued() {
  std::lock_guard l(mu_);
  if (!waiting_since_) waiting_since_ = clock_.now();
}
void ProxyHealth::synced(std::uint64_t generation) {
  std::lock_guard l(mu_);
  waiting_since_.reset();
  generation_ = generation;
  last_synced_ = clock_.wall();
}
void ProxyHealth::set_node_eligible(bool eligible) {
  std::lock_guard l(mu_);
  eligible_ = eligible;
}
bool ProxyHealth::alive_locked() const {
  return generation_ && (!waiting_since_ || clock_.now() - *waiting_since_ <= limit_);
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

ProxyMetrics::ProxyMetrics(metrics::Registry& r)
    : sync_duration(r.histogram("kubeproxy_sync_proxy_rules_duration_seconds", "One sync, state to kernel.",
                                metrics::exponential_buckets(0.001, 2, 15))
                        .with()),
      programming_duration(r.histogram("kubeproxy_network_programming_duration_seconds",
                                       "From the change of an endpoint to its rules in this kernel.",
                                       metrics::exponential_buckets(0.001, 2, 18))
                               .with()),
      last_queued(r.gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "When a sync was last asked for.")
                      .with()),
      last_synced(r.gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When a sync last succeeded.").with()),
      service_changes(
          r.counter("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services seen.").with()),
      endpoint_changes(
          r.counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices seen.").with()),
      service_changes_pending(
          r.gauge("kubeproxy_sync_proxy_rules_service_changes_pending", "Not in the kernel yet.").with()),
      endpoint_changes_pending(
          r.gauge("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "Not in the kernel yet.").with()),
      sync_failures(
          r.counter("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "Syncs the kernel refused.").with()),
      generation(r.gauge("hawser_proxyd_generation", "Generation of the state that the kernel serves.").with()),
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
                              std::string_view mode) {
  if (path == "/metrics") return text(200, registry.text(), metrics::kContentType);
  if (path == "/proxyMode") return text(200, std::string(mode));
  if (path == "/healthz") return answer_healthz(path, health);
  return text(404, "there are /metrics, /proxyMode and /healthz\n");
}

Result<std::unique_ptr<HealthServers>> HealthServers::start(const HealthServerOptions& o, const ProxyHealth& health,
                                                            const metrics::Registry& registry) {
  auto out = std::make_unique<HealthServers>();
  auto healthz = serve("--healthz-bind-address", o.healthz_bind,
                       [&health](std::string_view path) { return answer_healthz(path, health); });
  if (!healthz) return propagate(healthz);
  auto metrics =
      serve("--metrics-bind-address", o.metrics_bind, [&health, &registry, mode = o.mode](std::string_view path) {
        return answer_metrics(path, health, registry, mode);
      });
  if (!metrics) return propagate(metrics);
  out->healthz_ = std::move(*healthz);
  out->metrics_ = std::move(*metrics);
  return out;
}

}  // namespace hawser::proxy
