// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/endpoint_slice_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "controlplane/controllers/ownership.h"
#include "lib/base/time_text.h"

namespace hawser::controllers {
namespace {

Object endpoint_json(const ServiceEndpoint& e) {
  Object o;
  o["addresses"] = Array{text(e.address)};
  Object conditions;
  conditions["ready"] = e.ready;
  conditions["serving"] = e.serving;
  conditions["terminating"] = e.terminating;
  o["conditions"] = std::move(conditions);
  if (!e.hostname.empty()) o["hostname"] = text(e.hostname);
  if (!e.node.empty()) o["nodeName"] = text(e.node);
  if (!e.zone.empty()) o["zone"] = text(e.zone);
  if (!e.pod_name.empty()) o["targetRef"] = pod_reference(e);
  return o;
}

std::vector<EndpointPort> ports_of_slice(const Object& slice) {
  std::vector<EndpointPort> out;
  for (const Value& v : kube::arr(slice, {"ports"})) {
    const Object& p = kube::as_obj(v);
    out.push_back({std::string(kube::str(p, {"name"})), std::string(kube::str(p, {"protocol"})), kube::num(p, {"port"}),
                   std::string(kube::str(p, {"appProtocol"}))});
  }
  std::ranges::sort(out);
  return out;
}

// An endpoint is the same one as long as its address and the object behind it are.
std::string identity(const Object& endpoint) {
  const Array& a = kube::arr(endpoint, {"addresses"});
  std::string out = a.empty() || !a[0].is_string() ? "" : std::string(std::string_view(a[0].get_string()));
  return out + "/" + std::string(kube::str(endpoint, {"targetRef", "uid"}));
}

Object wanted_labels(const SliceInput& in) {
  Object out;
  for (const auto& [k, v] : labels(in.parent)) {
    const std::string_view name = k;
    if (name != kManagedBy && name != kServiceNameLabel && name != kHeadlessLabel) out[k] = v;
  }
  out[kServiceNameLabel] = text(kube::name(in.parent));
  out[kManagedBy] = text(in.managed_by);
  if (in.parent_kind == "Service" && is_headless(in.parent)) out[kHeadlessLabel] = "";
  return out;
}

// One family and one set of ports.
struct Group {
  std::map<std::string, Object> wanted;  // by identity
  std::vector<ObjectPtr> slices;
};
using GroupKey = std::pair<bool, std::vector<EndpointPort>>;

class Planner {
 public:
  explicit Planner(const SliceInput& in) : in_(in), labels_(wanted_labels(in)) {}

  SlicePlan run() {
    std::map<GroupKey, Group> groups;
    for (const ServiceEndpoint& e : in_.endpoints) {
      Object json = endpoint_json(e);
      std::string id = identity(json);
      groups[{e.v6, e.ports}].wanted.insert_or_assign(std::move(id), std::move(json));
    }
    for (const ObjectPtr& s : in_.slices)
      if (!kube::deleting(*s))
        groups[{kube::str(*s, {"addressType"}) == "IPv6", ports_of_slice(*s)}].slices.push_back(s);
    for (bool v6 : in_.families_v6) {
      const bool any =
          std::ranges::any_of(groups, [&](const auto& g) { return g.first.first == v6 && !g.second.wanted.empty(); });
      if (!any) keep_one_empty(groups, v6);
    }
    for (auto& [key, group] : groups) plan_group(key, group);
    reuse();
    return std::move(plan_);
  }

 private:
  // An existing slice with no endpoints and no ports serves as it is; otherwise one is made (out of a slice that goes,
  // see reuse()).
  void keep_one_empty(std::map<GroupKey, Group>& groups, bool v6) {
    auto& group = groups[{v6, {}}];
    for (auto it = group.slices.begin(); it != group.slices.end(); ++it) {
      if (!kube::arr(**it, {"endpoints"}).empty()) continue;
      if (needs_metadata(**it)) plan_.update.push_back(make(v6, {}, {}, it->get()));
      group.slices.erase(it);
      return;
    }
    plan_.create.push_back(make(v6, {}, {}, nullptr));
  }

  [[nodiscard]] bool needs_metadata(const Object& slice) const { return labels(slice) != labels_; }

  Object make(bool v6, const std::vector<EndpointPort>& ports, Array endpoints, const Object* existing) const {
    Object out = existing != nullptr ? *existing : Object();
    out["apiVersion"] = "discovery.k8s.io/v1";
    out["kind"] = "EndpointSlice";
    Object& meta = kube::ensure(out, {"metadata"});
    meta["namespace"] = text(kube::ns(in_.parent));
    if (existing == nullptr) meta["generateName"] = text(std::string(kube::name(in_.parent)) + "-");
    meta["labels"] = labels_;
    const std::string_view api_version = "v1";
    if (existing == nullptr)
      meta["ownerReferences"] = Array{controller_reference(api_version, in_.parent_kind, in_.parent)};
    if (in_.trigger)
      kube::ensure(meta, {"annotations"})[kTriggerTime] = text(rfc3339_micro(*in_.trigger));
    else if (Value* a = meta.if_contains("annotations"); a != nullptr && a->is_object())
      a->get_object().erase(kTriggerTime);
    out["addressType"] = v6 ? "IPv6" : "IPv4";
    out["endpoints"] = std::move(endpoints);
    out["ports"] = ports_json(ports, true);
    return out;
  }

  struct Draft {
    ObjectPtr stored;
    Array endpoints;
    bool changed = false;
  };

  // What stays where it is, in its present form; takes it out of `wanted`.
  Draft keep(const ObjectPtr& slice, std::map<std::string, Object>& wanted) {
    Draft d{slice, {}, needs_metadata(*slice)};
    for (const Value& v : kube::arr(*slice, {"endpoints"})) {
      const auto it = wanted.find(identity(kube::as_obj(v)));
      if (it == wanted.end()) {
        d.changed = true;
        continue;
      }
      if (it->second != kube::as_obj(v)) d.changed = true;
      d.endpoints.push_back(std::move(it->second));
      wanted.erase(it);
    }
    return d;
  }

  void fill(Draft& d, std::map<std::string, Object>& wanted) const {
    while (!wanted.empty() && d.endpoints.size() < in_.per_slice) {
      d.endpoints.push_back(std::move(wanted.begin()->second));
      wanted.erase(wanted.begin());
      d.changed = true;
    }
  }

  void plan_group(const GroupKey& key, Group& group) {
    std::vector<Draft> drafts;
    for (const ObjectPtr& s : group.slices) drafts.push_back(keep(s, group.wanted));
    for (Draft& d : drafts)
      if (d.changed && !d.endpoints.empty()) fill(d, group.wanted);
    for (Draft& d : drafts)
      if (d.changed) fill(d, group.wanted);
    if (!group.wanted.empty()) {
      Draft* best = nullptr;  // the fullest untouched slice with room for all that is left
      for (Draft& d : drafts)
        if (!d.changed && d.endpoints.size() + group.wanted.size() <= in_.per_slice &&
            (best == nullptr || d.endpoints.size() > best->endpoints.size()))
          best = &d;
      if (best != nullptr) fill(*best, group.wanted);
    }
    while (!group.wanted.empty()) {
      Draft d;
      fill(d, group.wanted);
      plan_.create.push_back(make(key.first, key.second, std::move(d.endpoints), nullptr));
    }
    for (Draft& d : drafts) {
      if (d.endpoints.empty())
        plan_.remove.push_back(std::move(d.stored));
      else if (d.changed)
        plan_.update.push_back(make(key.first, key.second, std::move(d.endpoints), d.stored.get()));
    }
  }

  // A slice to create and one to remove of the same family become one update: no moment in which a consumer sees
  // neither.
  void reuse() {
    for (auto c = plan_.create.begin(); c != plan_.create.end();) {
      const auto same_family = [&](const ObjectPtr& s) {
        return kube::str(*s, {"addressType"}) == kube::str(*c, {"addressType"});
      };
      const auto r = std::ranges::find_if(plan_.remove, same_family);
      if (r == plan_.remove.end()) {
        ++c;
        continue;
      }
      const bool v6 = kube::str(*c, {"addressType"}) == "IPv6";
      Object update = make(v6, ports_of_slice(*c), kube::arr(*c, {"endpoints"}), r->get());
      plan_.update.push_back(std::move(update));
      plan_.remove.erase(r);
      c = plan_.create.erase(c);
    }
  }

  const SliceInput& in_;
  Object labels_;
  SlicePlan plan_;
};

}  // namespace

SlicePlan plan_slices(const SliceInput& in) {
  return Planner(in).run();
}

}  // namespace hawser::controllers
