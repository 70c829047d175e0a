// SPDX-License-Identifier: Apache-2.0
#include "controlplane/scheduler/pod_spec.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "lib/kube/quantity.h"

namespace hawser::scheduler {
namespace {

// Kubernetes' own values for pods without requests.
constexpr std::int64_t kDefaultMilliCpu = 100;
constexpr std::int64_t kDefaultMemoryBytes = 200LL << 20;

std::string str(const Object& o, std::string_view field) {
  return std::string(kube::str(o, {field}));
}

// A quantity is a JSON string or, where the writer was lazy, a number.
std::optional<std::int64_t> amount(std::string_view resource, const Value& v) {
  std::string number;
  std::string_view s;
  if (v.is_string())
    s = v.get_string();
  else if (v.is_int64())
    s = number = std::to_string(v.get_int64());
  else if (v.is_double())
    s = number = std::to_string(v.get_double());
  auto q = kube::Quantity::parse(s);
  if (!q) return std::nullopt;
  return resource == "cpu" ? q->milli_value() : q->value();
}

Resources read_resources(const Object& list) {
  Resources out;
  for (const auto& [k, v] : list)
    if (const auto n = amount(k, v)) out[std::string(std::string_view(k))] = *n;
  return out;
}

void add(Resources& to, const Resources& more) {
  for (const auto& [k, n] : more) {
    std::int64_t& sum = to[k];
    sum = sum > std::numeric_limits<std::int64_t>::max() - n ? std::numeric_limits<std::int64_t>::max() : sum + n;
  }
}

void raise(Resources& to, const Resources& least) {
  for (const auto& [k, n] : least) to[k] = std::max(to[k], n);
}

std::int64_t at(const Resources& r, std::string_view key) {
  const auto it = r.find(key);
  return it == r.end() ? 0 : it->second;
}

// Containers run together; init containers one after the other before them, except that one that restarts always stays.
void read_requests(const Object& spec, PodSpec& out) {
  Resources running;
  for (const Value& c : kube::arr(spec, {"containers"})) {
    const Resources r = read_resources(kube::obj(kube::as_obj(c), {"resources", "requests"}));
    add(running, r);
    out.score_cpu += r.contains("cpu") ? at(r, "cpu") : kDefaultMilliCpu;
    out.score_memory += r.contains("memory") ? at(r, "memory") : kDefaultMemoryBytes;
  }
  Resources stay, peak;
  for (const Value& c : kube::arr(spec, {"initContainers"})) {
    const Resources r = read_resources(kube::obj(kube::as_obj(c), {"resources", "requests"}));
    if (kube::str(kube::as_obj(c), {"restartPolicy"}) == "Always") {
      add(stay, r);
      raise(peak, stay);
    } else {
      Resources at_once = stay;
      add(at_once, r);
      raise(peak, at_once);
    }
  }
  add(running, stay);
  raise(running, peak);
  const Resources overhead = read_resources(kube::obj(spec, {"overhead"}));
  add(running, overhead);
  out.score_cpu = std::max(out.score_cpu, at(running, "cpu"));
  out.score_memory = std::max(out.score_memory, at(running, "memory"));
  std::erase_if(running, [](const auto& e) { return e.second == 0; });
  out.requests = std::move(running);
}

NodeRequirement read_requirement(const Object& o, bool on_name) {
  using Op = NodeRequirement::Op;
  constexpr std::array<std::pair<std::string_view, Op>, 6> kOps{{{"In", Op::kIn},
                                                                 {"NotIn", Op::kNotIn},
                                                                 {"Exists", Op::kExists},
                                                                 {"DoesNotExist", Op::kNotExists},
                                                                 {"Gt", Op::kGt},
                                                                 {"Lt", Op::kLt}}};
  NodeRequirement out{on_name, str(o, "key"), Op::kInvalid, {}};
  for (const auto& [name, op] : kOps)
    if (kube::str(o, {"operator"}) == name) out.op = op;
  for (const Value& v : kube::arr(o, {"values"}))
    if (v.is_string()) out.values.emplace_back(std::string_view(v.get_string()));
  return out;
}

NodeTerm read_node_term(const Object& o) {
  NodeTerm out;
  for (const Value& r : kube::arr(o, {"matchExpressions"}))
    out.requirements.push_back(read_requirement(kube::as_obj(r), false));
  for (const Value& r : kube::arr(o, {"matchFields"}))
    out.requirements.push_back(read_requirement(kube::as_obj(r), true));
  return out;
}

void read_node_affinity(const Object& spec, PodSpec& out) {
  const Object& affinity = kube::obj(spec, {"affinity", "nodeAffinity"});
  const Object& required = kube::obj(affinity, {"requiredDuringSchedulingIgnoredDuringExecution"});
  out.has_required_affinity = !required.empty();
  for (const Value& t : kube::arr(required, {"nodeSelectorTerms"}))
    out.required_affinity.push_back(read_node_term(kube::as_obj(t)));
  for (const Value& t : kube::arr(affinity, {"preferredDuringSchedulingIgnoredDuringExecution"})) {
    NodeTerm term = read_node_term(kube::obj(kube::as_obj(t), {"preference"}));
    term.weight = kube::num(kube::as_obj(t), {"weight"});
    out.preferred_affinity.push_back(std::move(term));
  }
  for (const auto& [k, v] : kube::obj(spec, {"nodeSelector"}))
    if (v.is_string()) out.node_selector.emplace(std::string_view(k), std::string_view(v.get_string()));
}

// A missing selector matches nothing, which an empty object does not: made explicit by a requirement no label can
// fulfil.
kube::LabelSelector read_selector(const Object& o) {
  const Value* v = kube::find(o, {"labelSelector"});
  if (v != nullptr && v->is_object())
    if (auto s = kube::LabelSelector::from_object(v->get_object())) return *s;
  auto nothing = kube::LabelSelector::parse("a,!a");
  return nothing ? *nothing : kube::LabelSelector();
}

PodTerm read_pod_term(const Object& o, const std::string& own_namespace, std::int64_t weight) {
  PodTerm out{read_selector(o), {}, str(o, "topologyKey"), weight};
  for (const Value& n : kube::arr(o, {"namespaces"}))
    if (n.is_string()) out.namespaces.emplace(std::string_view(n.get_string()));
  const Value* selector = kube::find(o, {"namespaceSelector"});
  // An empty namespaceSelector is "all namespaces"; without it and without a list it is the pod's own.
  if (out.namespaces.empty() && (selector == nullptr || selector->is_null())) out.namespaces.insert(own_namespace);
  return out;
}

void read_pod_terms(const Object& spec, const char* field, PodSpec& out, std::vector<PodTerm>& required,
                    std::vector<PodTerm>& preferred) {
  const Object& affinity = kube::obj(spec, {"affinity", field});
  for (const Value& t : kube::arr(affinity, {"requiredDuringSchedulingIgnoredDuringExecution"}))
    required.push_back(read_pod_term(kube::as_obj(t), out.ns, 0));
  for (const Value& t : kube::arr(affinity, {"preferredDuringSchedulingIgnoredDuringExecution"}))
    preferred.push_back(
        read_pod_term(kube::obj(kube::as_obj(t), {"podAffinityTerm"}), out.ns, kube::num(kube::as_obj(t), {"weight"})));
}

void read_host_ports(const Object& spec, PodSpec& out) {
  for (const Value& c : kube::arr(spec, {"containers"})) {
    for (const Value& v : kube::arr(kube::as_obj(c), {"ports"})) {
      const Object& p = kube::as_obj(v);
      if (kube::num(p, {"hostPort"}) == 0) continue;
      HostPort h{str(p, "hostIP"), str(p, "protocol"), kube::num(p, {"hostPort"})};
      if (h.ip == "0.0.0.0" || h.ip == "::") h.ip.clear();
      if (h.protocol.empty()) h.protocol = "TCP";
      out.host_ports.push_back(std::move(h));
    }
  }
}

void read_rest(const Object& spec, PodSpec& out) {
  for (const Value& v : kube::arr(spec, {"tolerations"})) {
    const Object& t = kube::as_obj(v);
    out.tolerations.push_back(
        {str(t, "key"), str(t, "value"), str(t, "effect"), kube::str(t, {"operator"}) == "Exists"});
  }
  for (const Value& v : kube::arr(spec, {"topologySpreadConstraints"})) {
    const Object& c = kube::as_obj(v);
    out.spread.push_back({kube::num(c, {"maxSkew"}, 1), str(c, "topologyKey"),
                          kube::str(c, {"whenUnsatisfiable"}) != "ScheduleAnyway", read_selector(c)});
  }
  for (const Value& c : kube::arr(spec, {"containers"})) out.images.push_back(str(kube::as_obj(c), "image"));
}

}  // namespace

bool Toleration::tolerates(const Taint& t) const {
  if (!effect.empty() && effect != t.effect) return false;
  if (!key.empty() && key != t.key) return false;
  if (exists) return true;
  return !key.empty() && value == t.value;
}

PodSpec PodSpec::from(const ObjectPtr& object) {
  const Object& pod = *object;
  const Object& spec = kube::obj(pod, {"spec"});
  PodSpec out;
  out.object = object;
  out.key = kube::key(pod);
  out.uid = kube::uid(pod);
  out.ns = kube::ns(pod);
  out.name = kube::name(pod);
  out.node_name = str(spec, "nodeName");
  out.scheduler_name = str(spec, "schedulerName");
  if (out.scheduler_name.empty()) out.scheduler_name = "default-scheduler";
  out.priority = kube::num(spec, {"priority"});
  out.gated = !kube::arr(spec, {"schedulingGates"}).empty();
  out.deleting = kube::deleting(pod);
  const std::string_view phase = kube::str(pod, {"status", "phase"});
  out.terminal = phase == "Succeeded" || phase == "Failed";
  out.owner = kube::str(kube::controller_of(pod), {"uid"});
  read_requests(spec, out);
  read_node_affinity(spec, out);
  read_pod_terms(spec, "podAffinity", out, out.affinity, out.preferred_affinity_pods);
  read_pod_terms(spec, "podAntiAffinity", out, out.anti_affinity, out.preferred_anti_affinity_pods);
  read_host_ports(spec, out);
  read_rest(spec, out);
  return out;
}

NodeSpec NodeSpec::from(const Object& node) {
  NodeSpec out;
  out.name = kube::name(node);
  for (const auto& [k, v] : kube::obj(node, {"metadata", "labels"}))
    if (v.is_string()) out.labels.emplace(std::string_view(k), std::string_view(v.get_string()));
  for (const Value& v : kube::arr(node, {"spec", "taints"})) {
    const Object& t = kube::as_obj(v);
    out.taints.push_back({str(t, "key"), str(t, "value"), str(t, "effect")});
  }
  out.unschedulable = kube::flag(node, {"spec", "unschedulable"});
  const Object& allocatable = kube::obj(node, {"status", "allocatable"});
  out.allocatable = read_resources(allocatable.empty() ? kube::obj(node, {"status", "capacity"}) : allocatable);
  if (const auto it = out.allocatable.find("pods"); it != out.allocatable.end()) {
    out.max_pods = it->second;
    out.allocatable.erase(it);
  }
  for (const Value& image : kube::arr(node, {"status", "images"}))
    for (const Value& n : kube::arr(kube::as_obj(image), {"names"}))
      if (n.is_string()) out.images.emplace(std::string_view(n.get_string()));
  return out;
}

bool NodeSpec::operator==(const NodeSpec& o) const {
  const auto same_taint = [](const Taint& a, const Taint& b) {
    return a.key == b.key && a.value == b.value && a.effect == b.effect;
  };
  return name == o.name && labels == o.labels && unschedulable == o.unschedulable && allocatable == o.allocatable &&
         max_pods == o.max_pods && images == o.images && std::ranges::equal(taints, o.taints, same_taint);
}

}  // namespace hawser::scheduler
