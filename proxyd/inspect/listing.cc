// SPDX-License-Identifier: Apache-2.0
#include "proxyd/inspect/listing.h"

#include <algorithm>

#include <boost/json/array.hpp>
#include <sys/socket.h>

#include "proxyd/inspect/compare.h"
#include "proxyd/inspect/explain.h"

namespace hawser::proxy {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxDriftLines = 50;

json::array strings(const std::vector<std::string>& list) {
  json::array a;
  for (const auto& s : list) a.emplace_back(s);
  return a;
}

const char* reach_words(Reach r) {
  switch (r) {
    case Reach::kInternal:
      return "cluster";
    case Reach::kExternal:
      return "external";
    case Reach::kExternalLocal:
      return "external, Local";
  }
  return "";
}

// Keys that an earlier Service has: the kernel has that one's elements.
std::map<SideId, std::string> owners(const DesiredState& s) {
  std::map<SideId, std::string> r;
  for (const auto& service : s.services) {
    for (const Frontend& f : service->frontends) r.try_emplace(main_side(f), service->key);
  }
  return r;
}

// `f` in the kernel; `rules` is what the rules for it are made from.
Elements elements_of(const Frontend& f, const Frontend& rules, const Facts& facts) {
  Elements e = compare(rules, facts.kernel.found.image);
  if (!facts.ipvs) return e;
  for (const auto& key : keys_of(f, facts.ipvs->node)) append(compare(key, *facts.ipvs), e);
  return e;
}

// Of a Service of the state: the state that the rules are made of has the same ones.
const std::vector<Frontend>& rules_for(const Facts& f, const std::string& key) {
  return f.model.rules_state().services.find(key)->frontends;
}

json::object frontend_row(const Frontend& f, const Frontend& rules, const std::string& owner, const ServiceState& s,
                          const Facts& facts) {
  json::object row{{"key", key_words(main_side(f))}, {"reach", reach_words(f.reach)}};
  row["endpoints"] = f.targets.size();
  if (f.reach == Reach::kExternalLocal) row["local"] = f.local.size();
  if (f.affinity_seconds != 0) row["affinitySeconds"] = f.affinity_seconds;
  if (f.limited) {
    json::array ranges;
    for (const Cidr& c : f.sources) ranges.emplace_back(c.text());
    row["sourceRanges"] = std::move(ranges);
  }
  if (owner != s.key) {
    row["state"] = "claimed by " + owner;
    row["agree"] = true;
    return row;
  }
  const Elements e = elements_of(f, rules, facts);
  const bool reject = f.reach == Reach::kExternalLocal || f.when_empty == WhenEmpty::kReject;
  row["state"] = !f.targets.empty() ? "serving" : reject ? "refusing" : "dropping";
  row["wanted"] = strings(e.wanted);
  row["found"] = strings(e.found);
  row["agree"] = e.agree();
  return row;
}

std::pair<std::string, std::string> split(const std::string& key) {
  const auto slash = key.find('/');
  return {key.substr(0, slash), slash == key.npos ? "" : key.substr(slash + 1)};
}

std::string hint_words(const Hints& h, const NodeInfo& node) {
  if (!h.nodes.empty()) return fmt::format("hinted to node {}; this is {}", fmt::join(h.nodes, ", "), node.name);
  return fmt::format("hinted to zone {}; this node is in {}", fmt::join(h.zones, ", "),
                     node.zone.empty() ? "none" : node.zone);
}

struct Use {
  std::size_t share = 0, of = 0;  // of the frontend that most clients use
  bool local = false;             // of one with externalTrafficPolicy Local, by clients outside
  bool family = false;            // a frontend of its family exists
};

Use use_of(const Endpoint& e, const ServicePort& port, const ServiceState& s) {
  Use u;
  for (const Frontend& f : s.frontends) {
    const bool of_port =
        f.protocol == port.protocol && (f.is_node_port() ? f.port == port.node_port : f.port == port.port);
    if (!of_port || f.family != e.target.addr.family()) continue;
    u.local = u.local || std::ranges::find(f.local, e.target) != f.local.end();
    const auto n = static_cast<std::size_t>(std::ranges::count(f.targets, e.target));
    // Internal frontends come first, and may be narrowed to this node where the others are not.
    if (!u.family || u.share == 0) u = {n, f.targets.size(), u.local, true};
  }
  return u;
}

// Why an endpoint gets new connections or does not.
std::string why(const Endpoint& e, const Use& u, const Service& s, const NodeInfo& node) {
  const bool used = u.share > 0;
  if (!u.family) return "the Service has no address of this family";
  if (!e.ready && !e.serving) return "not ready";
  if (!e.ready && !e.terminating) return "not ready, though it serves";
  if (!e.ready) return used ? "terminating, but none is ready" : "terminating: keeps its flows, gets no new ones";
  if (used && e.weight == 0) return "weight 0, but so are all";
  if (used) return "ready";
  if (u.local) return "ready: for clients outside, by externalTrafficPolicy Local";
  if (e.weight == 0) return "weight 0: keeps its flows, gets no new ones";
  if (s.internal_local && !e.local) return "on another node, by internalTrafficPolicy Local";
  return e.hints ? hint_words(*e.hints, node) : "not chosen";
}

bool in_slice(const Slice& s, const Endpoint& e, const ServicePort& p) {
  const auto of_port = [&](const Slice::Port& x) {
    return x.name == p.name && x.protocol == p.protocol && x.port == e.target.port;
  };
  return std::ranges::any_of(s.ports, of_port) &&
         std::ranges::any_of(s.endpoints, [&](const Endpoint& x) { return x.target.addr == e.target.addr; });
}

json::object endpoint_row(Endpoint e, const ServicePort& port, const ServiceView& view, const ServiceState& s,
                          const NodeInfo& node) {
  for (const auto& w : view.service.weights) {
    if (w.addr == e.target.addr) e.weight = w.weight;
  }
  const Use u = use_of(e, port, s);
  std::vector<std::string> slices;
  for (const auto& [name, slice] : view.slices) {
    if (in_slice(slice, e, port)) slices.push_back(name);
  }
  return {{"address", e.target.addr.text()},
          {"port", e.target.port},
          {"portName", port.name},
          {"servicePort", port.port},
          {"protocol", protocol_name(port.protocol)},
          {"slices", strings(slices)},
          {"ready", e.ready},
          {"serving", e.serving},
          {"terminating", e.terminating},
          {"local", e.local},
          {"weight", e.weight},
          {"chosen", u.share > 0 || u.local},
          {"share", fmt::format("{}/{}", u.share, u.of)},
          {"why", why(e, u, view.service, node)}};
}

}  // namespace

json::object list_services(const Facts& f, std::string_view ns) {
  json::object out;
  put_generations(f, out);
  const auto owner = owners(*f.model.state);
  json::array rows;
  bool all = true;
  for (const auto& s : f.model.state->services) {
    const auto [space, name] = split(s->key);
    if (!ns.empty() && ns != space) continue;
    json::object row{{"namespace", space}, {"name", name}};
    json::array frontends;
    bool agree = true;
    for (std::size_t i = 0; i < s->frontends.size(); ++i) {
      const Frontend& fe = s->frontends[i];
      frontends.push_back(frontend_row(fe, rules_for(f, s->key)[i], owner.at(main_side(fe)), *s, f));
      agree = agree && frontends.back().at("agree").as_bool();
    }
    std::size_t endpoints = 0, ready = 0;
    if (const auto view = f.model.services.find(s->key); view != f.model.services.end()) {
      for (const auto& p : view->second.ports) {
        endpoints += p.endpoints.size();
        ready += static_cast<std::size_t>(std::ranges::count_if(p.endpoints, &Endpoint::ready));
      }
    }
    row["frontends"] = std::move(frontends);
    row["endpoints"] = endpoints;
    row["ready"] = ready;
    row["agree"] = agree;
    rows.push_back(std::move(row));
    all = all && agree;
  }
  out["services"] = std::move(rows);
  out["agree"] = all;
  return out;
}

json::object list_endpoints(const Facts& f, const std::string& key) {
  json::object out;
  put_generations(f, out);
  out["service"] = key;
  json::array rows;
  Elements elements;
  const ServiceStatePtr s = f.model.state->services.find(key);
  static const ServiceState kNone;
  const ServiceState& state = s ? *s : kNone;
  if (const auto view = f.model.services.find(key); view != f.model.services.end()) {
    for (const auto& [port, endpoints] : view->second.ports) {
      for (const Endpoint& e : endpoints) rows.push_back(endpoint_row(e, port, view->second, state, f.model.info));
    }
  }
  const auto owner = owners(*f.model.state);
  for (std::size_t i = 0; i < state.frontends.size(); ++i) {
    const Frontend& fe = state.frontends[i];
    if (owner.at(main_side(fe)) != key) continue;
    append(elements_of(fe, rules_for(f, key)[i], f), elements);
  }
  out["endpoints"] = std::move(rows);
  out["agree"] = elements.agree();
  out["wanted"] = strings(elements.wanted);
  out["found"] = strings(elements.found);
  return out;
}

json::object status(const Facts& f) {
  json::object out;
  put_generations(f, out);
  out["zone"] = f.model.info.zone;
  out["services"] = f.model.state->services.size();
  std::size_t frontends = 0;
  for (const auto& s : f.model.state->services) frontends += s->frontends.size();
  out["frontends"] = frontends;
  auto lines = drift(f);
  out["differences"] = lines.size();
  if (lines.size() > kMaxDriftLines) lines.resize(kMaxDriftLines);
  out["drift"] = strings(lines);
  out["agree"] = lines.empty();
  return out;
}

}  // namespace hawser::proxy
