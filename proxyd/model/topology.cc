// SPDX-License-Identifier: Apache-2.0
#include "proxyd/model/topology.h"

#include <algorithm>
#include <numeric>

namespace hawser::proxy {
namespace {

using Refs = std::vector<const Endpoint*>;

bool names(const std::vector<std::string>& list, const std::string& x) {
  return std::ranges::find(list, x) != list.end();
}

// The endpoints whose hints of one sort name `value`; empty if any endpoint has no hint of that sort.
Refs hinted(const Refs& ready, std::vector<std::string> Hints::*sort, const std::string& value) {
  if (value.empty()) return {};
  Refs r;
  for (const Endpoint* e : ready) {
    if (!e->hints || ((*e->hints).*sort).empty()) return {};
    if (names((*e->hints).*sort, value)) r.push_back(e);
  }
  return r;
}

Refs narrowed_by_hints(const Refs& ready, const NodeInfo& node) {
  if (Refs same_node = hinted(ready, &Hints::nodes, node.name); !same_node.empty()) return same_node;
  if (Refs same_zone = hinted(ready, &Hints::zones, node.zone); !same_zone.empty()) return same_zone;
  return ready;
}

constexpr std::uint32_t kMaxWeighted = 1024;  // entries of one list whose weights are not all alike

std::vector<Target> targets(const Refs& refs) {
  std::uint32_t divisor = 0, sum = 0;
  for (const Endpoint* e : refs) {
    divisor = std::gcd(divisor, e->weight);
    sum += e->weight;
  }
  std::vector<Target> r;
  r.reserve(refs.size());
  // All 0: the endpoints are all there is, so they share alike.
  if (divisor == 0) divisor = 1;
  // Rounded up, so that nobody who has a weight loses it.
  const std::uint32_t scale = std::max(divisor, (sum + kMaxWeighted - 1) / kMaxWeighted);
  for (const Endpoint* e : refs) {
    const std::uint32_t times = sum == 0 ? 1 : (e->weight + scale - 1u) / scale;
    r.insert(r.end(), times, e->target);
  }
  return r;
}

std::vector<Target> draining(const Refs& ending, const Refs& ready) {
  std::vector<Target> r;
  for (const Endpoint* e : ending) r.push_back(e->target);
  for (const Endpoint* e : ready) {
    if (e->weight == 0) r.push_back(e->target);
  }
  std::ranges::sort(r);
  return r;
}

}  // namespace

Selection select_endpoints(std::span<const Endpoint> endpoints, const NodeInfo& node, int family) {
  Refs ready, ready_local, ending, ending_local;
  for (const Endpoint& e : endpoints) {
    if (e.target.addr.family() != family) continue;
    if (e.ready) {
      ready.push_back(&e);
      if (e.local) ready_local.push_back(&e);
    } else if (e.serving && e.terminating) {
      ending.push_back(&e);
      if (e.local) ending_local.push_back(&e);
    }
  }
  Selection s;
  s.cluster = targets(ready.empty() ? ending : narrowed_by_hints(ready, node));
  s.local = targets(ready_local.empty() ? ending_local : ready_local);
  s.draining = draining(ending, ready);
  return s;
}

WhenEmpty when_empty(const Selection& s, bool local_policy) {
  return local_policy && !s.cluster.empty() ? WhenEmpty::kDrop : WhenEmpty::kReject;
}

}  // namespace hawser::proxy
