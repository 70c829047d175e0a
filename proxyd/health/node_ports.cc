// SPDX-License-Identifier: Apache-2.0
#include "proxyd/health/node_ports.h"

#include <algorithm>

#include <boost/json/serialize.hpp>

#include "lib/base/log.h"

namespace hawser::proxy {
namespace {

constexpr std::string_view kServiceLabel = "kubernetes.io/service-name";

std::string json_text(std::string_view s) {
  return boost::json::serialize(boost::json::string(s));
}

// 0: no health check is asked for.
std::uint16_t health_port(const kube::Object& o) {
  if (kube::str(o, {"spec", "type"}) != "LoadBalancer" || kube::str(o, {"spec", "externalTrafficPolicy"}) != "Local")
    return 0;
  const std::int64_t port = kube::num(o, {"spec", "healthCheckNodePort"});
  return port > 0 && port <= 65535 ? static_cast<std::uint16_t>(port) : std::uint16_t{0};
}

bool is_ready(const kube::Object& endpoint) {
  const auto* conditions = endpoint.if_contains("conditions");
  if (!conditions || !conditions->is_object()) return true;
  const auto* ready = conditions->get_object().if_contains("ready");
  return !ready || !ready->is_bool() || ready->get_bool();
}

}  // namespace

bool LocalEndpointCounts::on_service(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  const std::uint16_t port = current ? health_port(*current) : std::uint16_t{0};
  const std::string key = kube::key(current ? *current : *old);
  std::lock_guard l(mu_);
  if (port == 0) return ports_.erase(key) > 0;
  return std::exchange(ports_[key], port) != port;
}

bool LocalEndpointCounts::on_slice(const kube::ObjectPtr& old, const kube::ObjectPtr& current) {
  LocalSlice now;
  if (current) {
    const auto name = kube::str(*current, {"metadata", "labels", kServiceLabel});
    if (!name.empty()) now.service = fmt::format("{}/{}", kube::ns(*current), name);
    for (const auto& v : kube::arr(*current, {"endpoints"})) {
      const auto& e = kube::as_obj(v);
      if (kube::str(e, {"nodeName"}) != node_ || !is_ready(e)) continue;
      const auto& addresses = kube::arr(e, {"addresses"});
      if (!addresses.empty() && addresses.front().is_string()) now.addresses.emplace(addresses.front().get_string());
    }
  }
  const std::string key = kube::key(current ? *current : *old);
  std::lock_guard l(mu_);
  bool changed = !now.addresses.empty();
  if (const auto was = slices_.find(key); was != slices_.end()) {
    changed = was->second.service != now.service || was->second.addresses != now.addresses;
    auto& keys = slices_of_[was->second.service];
    keys.erase(key);
    if (keys.empty()) slices_of_.erase(was->second.service);
    slices_.erase(was);
  }
  if (now.service.empty() || now.addresses.empty()) return changed;
  slices_of_[now.service].insert(key);
  slices_.emplace(key, std::move(now));
  return changed;
}

HealthChecks LocalEndpointCounts::checks() const {
  std::lock_guard l(mu_);
  HealthChecks out;
  for (const auto& [service, port] : ports_) {
    // An endpoint may stand in two slices for a moment.
    std::set<std::string_view> addresses;
    if (const auto keys = slices_of_.find(service); keys != slices_of_.end())
      for (const auto& key : keys->second)
        addresses.insert(slices_.at(key).addresses.begin(), slices_.at(key).addresses.end());
    out.emplace(service, HealthCheck{port, addresses.size()});
  }
  return out;
}

http::Response answer_health_check(std::string_view service, std::size_t local_endpoints, bool alive) {
  const auto slash = service.find('/');
  http::Response r{.status = local_endpoints > 0 && alive ? 200 : 503, .headers = {}, .body = {}};
  r.headers.set("Content-Type", "application/json");
  r.headers.set("X-Content-Type-Options", "nosniff");
  r.headers.set("X-Load-Balancing-Endpoint-Weight", std::to_string(local_endpoints));
  r.body = fmt::format(
      "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": "
      "{},\n\t\"serviceProxyHealthy\": {}\n}}",
      json_text(service.substr(0, slash)), json_text(service.substr(slash + 1)), local_endpoints, alive);
  return r;
}

struct HealthCheckNodePorts::State {
  explicit State(const ProxyHealth& h) : health(h) {}
  const ProxyHealth& health;
  std::mutex mu;
  std::map<std::uint16_t, std::pair<std::string, std::size_t>> by_port;  // guarded by mu
};

HealthCheckNodePorts::HealthCheckNodePorts(const ProxyHealth& health,
                                           std::function<void(const std::string&, const std::string&)> report)
    : report_(std::move(report)), state_(std::make_shared<State>(health)) {}
HealthCheckNodePorts::~HealthCheckNodePorts() = default;

std::string HealthCheckNodePorts::open(std::uint16_t port, const std::vector<IpAddr>& addresses) {
  if (!server_) {
    server_ = std::make_unique<http::Server>(
        http::ServerOptions{.worker_threads = 1}, nullptr,
        [state = state_](const http::Request& r, http::Responder& out) {
          std::pair<std::string, std::size_t> found;
          {
            std::lock_guard l(state->mu);
            if (const auto at = state->by_port.find(static_cast<std::uint16_t>(r.local_port));
                at != state->by_port.end())
              found = at->second;
          }
          if (found.first.empty())
            return out.send({.status = 404, .headers = {}, .body = "no Service has this port\n"});
          out.send(answer_health_check(found.first, found.second, state->health.alive()));
        });
  }
  if (addresses.empty()) {
    // One socket for both families, or where there is no IPv6 the one that there is.
    auto both = server_->listen("::", port);
    if (both) return {};
    auto v4 = server_->listen("0.0.0.0", port);
    return v4 ? std::string() : v4.error().text;
  }
  std::string problem;
  for (const IpAddr& a : addresses)
    if (auto r = server_->listen(fmt::format("{}", a), port); !r) problem = r.error().text;
  return problem;
}

void HealthCheckNodePorts::apply(const HealthChecks& wanted, const std::vector<IpAddr>& addresses) {
  std::map<std::uint16_t, std::pair<std::string, std::size_t>> by_port;
  for (const auto& [service, check] : wanted) by_port.try_emplace(check.port, service, check.local_endpoints);
  for (auto it = opened_.begin(); it != opened_.end();) {
    const auto want = by_port.find(it->first);
    if (want != by_port.end() && it->second.addresses == addresses && it->second.problem.empty()) {
      ++it;
      continue;
    }
    server_->unlisten(it->first);
    // A problem is kept so that the same one is not told again.
    it = want == by_port.end() || it->second.problem.empty() ? opened_.erase(it) : std::next(it);
  }
  {
    std::lock_guard l(state_->mu);
    state_->by_port = by_port;
  }
  for (const auto& [port, want] : by_port) {
    auto& o = opened_[port];
    const bool open_already = o.problem.empty() && !o.service.empty();
    const std::string before = o.service == want.first ? o.problem : "";
    o.service = want.first;
    if (open_already) continue;
    o.addresses = addresses;
    o.problem = open(port, addresses);
    if (!o.problem.empty() && o.problem != before)
      report_(want.first, fmt::format("spec.healthCheckNodePort {}: {}", port, o.problem));
  }
}

}  // namespace hawser::proxy
