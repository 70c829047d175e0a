// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/endpoint_slice_cache.h"

#include <algorithm>

namespace hawser::proxy {
namespace {

// Order of usefulness among doubles: a slice that is behind must not take away what a newer one says works.
int usefulness(const Endpoint& e) {
  if (e.ready) return 3;
  if (e.serving && e.terminating) return 2;
  return e.serving ? 1 : 0;
}

}  // namespace

bool EndpointSliceCache::update(const std::string& name, Slice slice) {
  if (slice.service.empty()) return !remove(name).empty();
  if (const std::string before = service_of(name); !before.empty() && before != slice.service) remove(name);
  const bool added = service_of_.try_emplace(name, slice.service).second;
  Slice& there = by_service_[slice.service][name];
  if (!added && there == slice) return false;
  there = std::move(slice);
  return true;
}

std::string EndpointSliceCache::service_of(const std::string& name) const {
  const auto it = service_of_.find(name);
  return it == service_of_.end() ? std::string() : it->second;
}

std::string EndpointSliceCache::remove(const std::string& name) {
  const auto it = service_of_.find(name);
  if (it == service_of_.end()) return {};
  std::string service = std::move(it->second);
  service_of_.erase(it);
  const auto s = by_service_.find(service);
  s->second.erase(name);
  if (s->second.empty()) by_service_.erase(s);
  return service;
}

std::vector<Endpoint> EndpointSliceCache::endpoints(const std::string& service, const ServicePort& port) const {
  std::vector<Endpoint> r;
  const auto it = by_service_.find(service);
  if (it == by_service_.end()) return r;
  for (const auto& [name, slice] : it->second) {
    for (const auto& p : slice.ports) {
      if (p.name != port.name || p.protocol != port.protocol) continue;
      for (Endpoint e : slice.endpoints) {
        e.target.port = p.port;
        r.push_back(std::move(e));
      }
    }
  }
  std::ranges::sort(r, [](const Endpoint& a, const Endpoint& b) {
    if (a.target != b.target) return a.target < b.target;
    return usefulness(a) > usefulness(b);
  });
  const auto doubles = std::ranges::unique(r, {}, &Endpoint::target);
  r.erase(doubles.begin(), doubles.end());
  return r;
}

std::map<std::string, Slice> EndpointSliceCache::slices(const std::string& service) const {
  const auto it = by_service_.find(service);
  return it == by_service_.end() ? std::map<std::string, Slice>() : it->second;
}

}  // namespace hawser::proxy
