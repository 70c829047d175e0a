// SPDX-License-Identifier: Apache-2.0
#include "proxyd/inspect/explain.h"

#include <algorithm>
#include <map>

#include <boost/json/array.hpp>
#include <netinet/in.h>

#include "proxyd/inspect/compare.h"

namespace hawser::proxy {
namespace {

namespace json = boost::json;

std::string lower_protocol(std::uint8_t number) {
  std::string s(protocol_name(number));
  std::ranges::transform(s, s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

json::array strings(const std::vector<std::string>& list) {
  json::array a;
  for (const auto& s : list) a.emplace_back(s);
  return a;
}

// "10.244.1.2:8080, 10.244.1.3:8080 (2 of 3)": shares where they differ.
std::string targets_words(const std::vector<Target>& targets) {
  std::map<Target, std::size_t> shares;
  for (const Target& t : targets) ++shares[t];
  std::string r;
  for (const auto& [t, n] : shares) {
    if (!r.empty()) r += ", ";
    r += target_words(t);
    if (shares.size() != targets.size()) r += fmt::format(" ({} of {})", n, targets.size());
  }
  return r;
}

// ---- one sentence a step, of either walk ----

std::string say_frontend(const Walk& w) {
  switch (w.match) {
    case Match::kFrontend: {
      SideId id = w.id;
      id.local = false;
      return key_words(id);
    }
    case Match::kClusterIp:
      return "a cluster IP, but no port of its Service";
    case Match::kServiceRange:
      return "in the Services' range, but no Service has it";
    case Match::kNone:
      break;
  }
  return "no Service: the packet goes on unchanged";
}

std::string say_sources(const Walk& w) {
  if (!w.limited) return "not limited";
  return w.range ? "in " + w.range->text() : "in no range: dropped";
}

std::string say_policy(const Walk& w) {
  if (!w.local_lookup) return "all endpoints of the frontend";
  if (!w.kept_local && !w.scheduler.empty())
    return "externalTrafficPolicy Local, from a pod or this node: IPVS has one list, of this node's endpoints if there "
           "are any";
  return w.kept_local ? "externalTrafficPolicy Local, from outside: only this node's endpoints"
                      : "externalTrafficPolicy Local, from a pod or this node: all endpoints";
}

std::string say_affinity(const Walk& w) {
  return w.affinity_seconds == 0 ? "none" : fmt::format("by client, {} s", w.affinity_seconds);
}

std::string say_endpoints(const Walk& w) {
  if (!w.damage.empty()) return w.damage + "; left: " + (w.targets.empty() ? "none" : targets_words(w.targets));
  switch (w.fate) {
    case Fate::kEndpoints:
      return targets_words(w.targets) + (w.scheduler.empty() ? "" : " by " + w.scheduler);
    case Fate::kReject:
      return "none: refused";
    case Fate::kDrop:
      return "none here: dropped";
    case Fate::kPass:
      break;
  }
  return "none";
}

std::string say_masquerade(const Walk& w) {
  if (w.masquerade) return "the source becomes this node's address";
  return w.hairpin ? "the source is kept, unless it is chosen itself (hairpin)" : "the source is kept";
}

std::string say_verdict(const Walk& w) {
  std::string to;
  switch (w.fate) {
    case Fate::kPass:
      return "goes on unchanged";
    case Fate::kReject:
      return "refused";
    case Fate::kDrop:
      return "dropped";
    case Fate::kEndpoints:
      break;
  }
  if (!w.damage.empty()) return "uncertain: " + w.damage;
  const auto& t = w.targets;
  const bool one = std::ranges::adjacent_find(t, std::not_equal_to()) == t.end();
  return fmt::format("to {}, {}", one ? target_words(t.front()) : "one of " + targets_words(t), say_masquerade(w));
}

// ---- steps ----

class Explainer {
 public:
  Explainer(const Query& q, const Facts& f)
      : q_(q),
        f_(f),
        hit_(find_frontend(q, f.model.rules_state(), f.model.options, f.kernel.addresses)),
        real_(find_frontend(q, *f.model.state, f.model.options, f.kernel.addresses).frontend),
        model_(walk_model(q, f)),
        kernel_(walk_kernel(q, f)) {
    if (hit_.frontend != nullptr) sides_ = sides_of(*hit_.frontend);
  }

  json::object answer() {
    frontend();
    const bool either = model_.match == Match::kFrontend || kernel_.match == Match::kFrontend;
    if (either && (model_.limited || kernel_.limited)) sources();
    const bool goes_on = !(model_.limited && !model_.range && kernel_.limited && !kernel_.range);
    if (either && goes_on) {
      policy();
      if (model_.affinity_seconds != 0 || kernel_.affinity_seconds != 0) affinity();
      endpoints();
      if (model_.fate == Fate::kEndpoints || kernel_.fate == Fate::kEndpoints) masquerade();
    }
    if (!f_.kernel.flows.empty()) conntrack();
    rules();
    json::object out;
    out["query"] = {{"source", q_.source.text()},
                    {"destination", q_.destination.text()},
                    {"port", q_.port},
                    {"protocol", lower_protocol(q_.protocol)}};
    put_generations(f_, out);
    if (hit_.service != nullptr) out["service"] = hit_.service->key;
    out["steps"] = std::move(steps_);
    const std::string model = say_verdict(model_), kernel = say_verdict(kernel_);
    out["verdict"] = {{"model", model}, {"kernel", kernel}};
    out["agree"] = agree_ && model == kernel;
    return out;
  }

 private:
  struct Step {
    std::string name, object, model, kernel;
    Elements elements = {};
    bool fault = false;  // beyond what differs
  };

  void put(Step s) {
    const bool agree = s.model == s.kernel && s.elements.agree() && !s.fault;
    agree_ = agree_ && agree;
    steps_.push_back(json::object{{"step", s.name},
                                  {"object", s.object},
                                  {"model", s.model},
                                  {"kernel", s.kernel},
                                  {"wanted", strings(s.elements.wanted)},
                                  {"found", strings(s.elements.found)},
                                  {"agree", agree}});
  }

  [[nodiscard]] std::string service() const { return hit_.service == nullptr ? "" : "Service " + hit_.service->key; }

  // Of the keys that the packet meets.
  [[nodiscard]] Elements elements(Part part, bool main = true, bool local = true) const {
    Elements r;
    const SideId& at = model_.match == Match::kFrontend ? model_.id : kernel_.id;
    for (const bool is_local : {false, true}) {
      if (is_local ? !local : !main) continue;
      SideId id = at;
      id.local = is_local;
      const auto side = std::ranges::find(sides_, id, [](const auto& s) { return s.first; });
      const Elements e = compare(id, side == sides_.end() ? nullptr : &side->second, f_.kernel.found.image, part);
      r.wanted.insert(r.wanted.end(), e.wanted.begin(), e.wanted.end());
      r.found.insert(r.found.end(), e.found.begin(), e.found.end());
    }
    return r;
  }

  void frontend() {
    Elements e;
    const bool frontend = model_.match == Match::kFrontend || kernel_.match == Match::kFrontend;
    if (frontend) e = elements(Part::kFrontend, true, false);
    const std::string ip =
        element_words(set_name(SetRole::kClusterIps, q_.destination.family()), {.key = nft::Bytes::ip(q_.destination)});
    if (model_.match == Match::kClusterIp) e.wanted.push_back(ip);
    if (kernel_.match == Match::kClusterIp ||
        (model_.match == Match::kClusterIp && f_.kernel.found.image.cluster_ips.contains(q_.destination)))
      e.found.push_back(ip);
    put({"frontend", service(), say_frontend(model_), say_frontend(kernel_), std::move(e)});
  }

  void sources() {
    put({"source-ranges", service(), say_sources(model_), say_sources(kernel_), elements(Part::kSources, true, false)});
  }

  void policy() {
    std::string object = service();
    const auto view = hit_.service == nullptr ? f_.model.services.end() : f_.model.services.find(hit_.service->key);
    const bool inside = hit_.frontend != nullptr && hit_.frontend->reach == Reach::kInternal;
    if (inside && view != f_.model.services.end() && view->second.service.internal_local)
      object += ", internalTrafficPolicy Local: its frontend has only this node's endpoints";
    put({"policy", object, say_policy(model_), say_policy(kernel_), elements(Part::kFrontend, false, true)});
  }

  void affinity() {
    Step s{"affinity", service(), say_affinity(model_), say_affinity(kernel_), elements(Part::kAffinity, true, false)};
    SideId key = model_.id;
    key.local = false;
    for (const Remembered& r : f_.kernel.remembered) {
      if (r.client != q_.source || r.frontend != key) continue;
      const bool current = std::ranges::find(model_.targets, r.target) != model_.targets.end();
      // A client may be remembered for an endpoint that the other look-up chose; that is its element all the same.
      const bool known = real_ != nullptr && (has(real_->targets, r.target) || has(real_->local, r.target));
      const std::string words = fmt::format("; remembered: {}", target_words(r.target));
      s.kernel += words + (current || known ? "" : ", which is no endpoint any more");
      s.model += words;
      s.fault = s.fault || !known;
    }
    put(std::move(s));
  }

  void endpoints() {
    Step s{"endpoints", "", say_endpoints(model_), say_endpoints(kernel_),
           elements(Part::kEndpoints, !model_.kept_local, model_.kept_local)};
    if (f_.ipvs) append(compare({q_.protocol, q_.destination, q_.port}, *f_.ipvs), s.elements);
    for (const auto& slice : slices_with(model_.targets))
      s.object += (s.object.empty() ? "EndpointSlice " : ", ") + slice;
    put(std::move(s));
  }

  void masquerade() {
    Elements e;
    const auto hairpin = element_words(set_name(SetRole::kHairpin, q_.source.family()), hairpin_element(q_.source));
    if (model_.hairpin) e.wanted.push_back(hairpin);
    if (kernel_.hairpin) e.found.push_back(hairpin);
    const auto side = std::ranges::find(sides_, model_.id, [](const auto& s) { return s.first; });
    const bool picks = side != sides_.end() && side->second.pick;
    put({"masquerade", picks ? "chain " + chain_name(*side->second.pick) : "", say_masquerade(model_),
         say_masquerade(kernel_), std::move(e)});
  }

  // Flows that are there already do not ask the rules again.
  void conntrack() {
    const Frontend* fe = real_;
    for (const netlink::Flow& flow : f_.kernel.flows) {
      const Target to{flow.answers_from.addr, flow.answers_from.port};
      const bool translated = flow.answers_from != flow.destination;
      const bool current = fe != nullptr && (has(fe->targets, to) || has(fe->local, to));
      const bool draining = fe != nullptr && has(fe->draining, to);
      Step s{"conntrack", "", "",
             fmt::format("from port {}: {}", flow.source.port,
                         translated ? "goes to " + target_words(to) : "is not translated")};
      s.model = s.kernel;
      if (current) s.model = s.kernel += ", a current endpoint";
      if (draining && !current) s.model = s.kernel += ", which ends but may finish";
      if (fe != nullptr && !current && !draining) {
        s.fault = flows_are_removed(q_.protocol);
        s.kernel += translated ? ", no endpoint any more" : ", though there is a Service";
        s.model = s.fault ? "from port " + std::to_string(flow.source.port) + ": no such flow" : s.kernel;
      }
      put(std::move(s));
    }
  }

  // The chains and sets that belong to no Service.
  void rules() {
    std::vector<std::string> wrong;
    const auto& chains = f_.kernel.found.table.chains;
    std::map<std::string, std::vector<std::string>> want;
    for (const nft::Chain& c : fixed_chains()) want[c.name];
    for (const nft::Rule& r : fixed_rules(f_.model.options)) want[r.chain].push_back(nft::fingerprint(r));
    for (const auto& [name, rules] : want) {
      const auto there = chains.find(name);
      const bool same =
          there != chains.end() && std::ranges::equal(there->second.rules, rules, {}, &nft::RuleState::fingerprint);
      if (!same) wrong.push_back(name);
    }
    Step s{"rules", fmt::format("table inet {}", kTable), "as this version writes them", "as this version writes them"};
    if (!f_.kernel.found.table.exists) {
      s.kernel = "there is no table";
    } else if (!wrong.empty()) {
      s.kernel = fmt::format("changed in chain {}", fmt::join(wrong, ", "));
    }
    put(std::move(s));
  }

  static bool has(const std::vector<Target>& list, const Target& t) { return std::ranges::find(list, t) != list.end(); }

  [[nodiscard]] std::vector<std::string> slices_with(const std::vector<Target>& targets) const {
    std::vector<std::string> r;
    if (hit_.service == nullptr) return r;
    const auto view = f_.model.services.find(hit_.service->key);
    if (view == f_.model.services.end()) return r;
    for (const auto& [name, slice] : view->second.slices) {
      if (std::ranges::any_of(slice.endpoints, [&](const Endpoint& e) {
            return std::ranges::any_of(targets, [&](const Target& t) { return t.addr == e.target.addr; });
          })) {
        r.push_back(name);
      }
    }
    return r;
  }

  const Query& q_;
  const Facts& f_;
  const Hit hit_;         // in what the rules are made from
  const Frontend* real_;  // the same one with the Service's endpoints
  const Walk model_, kernel_;
  std::vector<std::pair<SideId, WantedSide>> sides_;
  json::array steps_;
  bool agree_ = true;
};

}  // namespace

std::string target_words(const Target& t) {
  return t.addr.is_v6() ? fmt::format("[{}]:{}", t.addr, t.port) : fmt::format("{}:{}", t.addr, t.port);
}

std::string key_words(const SideId& id) {
  const std::string protocol = lower_protocol(id.protocol);
  if (id.node_port()) return fmt::format("node port {}/{}", id.port, protocol);
  return target_words({id.addr, id.port}) + "/" + protocol;
}

void put_generations(const Facts& f, json::object& out) {
  out["node"] = f.model.node;
  out["mode"] = f.ipvs ? "ipvs" : "nftables";
  out["generation"] = f.model.state->generation;
  out["applied"] = f.model.applied ? json::value(*f.model.applied) : json::value();
  out["ruleset"] = f.kernel.ruleset;
  out["settled"] = f.model.settled();
}

json::object explain(const Query& q, const Facts& f) {
  return Explainer(q, f).answer();
}

}  // namespace hawser::proxy
