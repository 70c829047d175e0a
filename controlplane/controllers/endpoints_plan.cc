// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/endpoints_plan.h"

#include <algorithm>
#include <map>

#include "controlplane/controllers/endpoint_slice_plan.h"
#include "lib/base/ip.h"
#include "lib/base/time_text.h"

namespace hawser::controllers {
namespace {

constexpr std::string_view kOverCapacity = "endpoints.kubernetes.io/over-capacity";

Object address_json(const ServiceEndpoint& e) {
  Object o;
  o["ip"] = text(e.address);
  if (!e.hostname.empty()) o["hostname"] = text(e.hostname);
  if (!e.node.empty()) o["nodeName"] = text(e.node);
  o["targetRef"] = pod_reference(e);
  return o;
}

struct Subset {
  std::vector<const ServiceEndpoint*> ready, not_ready;
};

Array addresses_json(std::vector<const ServiceEndpoint*> list) {
  std::ranges::sort(list, {}, [](const ServiceEndpoint* e) { return std::pair(e->address, e->pod_uid); });
  Array out;
  for (const ServiceEndpoint* e : list) out.push_back(address_json(*e));
  return out;
}

Array subsets_json(const std::vector<const ServiceEndpoint*>& endpoints) {
  std::map<std::vector<EndpointPort>, Subset> subsets;
  for (const ServiceEndpoint* e : endpoints)
    (e->ready ? subsets[e->ports].ready : subsets[e->ports].not_ready).push_back(e);
  Array out;
  for (auto& [ports, s] : subsets) {
    Object o;
    if (!s.ready.empty()) o["addresses"] = addresses_json(std::move(s.ready));
    if (!s.not_ready.empty()) o["notReadyAddresses"] = addresses_json(std::move(s.not_ready));
    if (!ports.empty()) o["ports"] = ports_json(ports, false);
    out.push_back(std::move(o));
  }
  return out;
}

// Which endpoints are listed: ready ones first when there are too many.
std::vector<const ServiceEndpoint*> listed(const EndpointsInput& in, bool& truncated) {
  const bool v6 = wants_v6(in.service).front();
  std::vector<const ServiceEndpoint*> out;
  for (const ServiceEndpoint& e : in.endpoints)
    if (e.v6 == v6 && (!e.terminating || e.ready) && (!e.ports.empty() || is_headless(in.service))) out.push_back(&e);
  truncated = out.size() > in.limit;
  if (truncated) {
    std::ranges::stable_sort(out, {}, [](const ServiceEndpoint* e) { return !e->ready; });
    out.resize(in.limit);
  }
  return out;
}

}  // namespace

std::optional<Object> plan_endpoints(const EndpointsInput& in) {
  bool truncated = false;
  Array subsets = subsets_json(listed(in, truncated));
  Object wanted_labels = labels(in.service);
  if (is_headless(in.service))
    wanted_labels[kHeadlessLabel] = "";
  else
    wanted_labels.erase(kHeadlessLabel);
  const bool marked = in.stored != nullptr && annotation(*in.stored, kOverCapacity) == "truncated";
  if (in.stored != nullptr && kube::arr(*in.stored, {"subsets"}) == subsets && labels(*in.stored) == wanted_labels &&
      marked == truncated)
    return std::nullopt;

  Object out = in.stored != nullptr ? *in.stored : Object();
  out["apiVersion"] = "v1";
  out["kind"] = "Endpoints";
  Object& meta = kube::ensure(out, {"metadata"});
  meta["name"] = text(kube::name(in.service));
  meta["namespace"] = text(kube::ns(in.service));
  if (wanted_labels.empty())
    meta.erase("labels");
  else
    meta["labels"] = std::move(wanted_labels);
  Object& annotations = kube::ensure(meta, {"annotations"});
  annotations.erase(kTriggerTime);
  annotations.erase(kOverCapacity);
  if (in.trigger) annotations[kTriggerTime] = text(rfc3339(*in.trigger));
  if (truncated) annotations[kOverCapacity] = "truncated";
  if (annotations.empty()) meta.erase("annotations");
  if (subsets.empty())
    out.erase("subsets");
  else
    out["subsets"] = std::move(subsets);
  return out;
}

std::vector<ServiceEndpoint> mirrored_endpoints(const Object& endpoints) {
  std::vector<ServiceEndpoint> out;
  for (const Value& v : kube::arr(endpoints, {"subsets"})) {
    const Object& subset = kube::as_obj(v);
    std::vector<EndpointPort> ports;
    for (const Value& pv : kube::arr(subset, {"ports"})) {
      const Object& p = kube::as_obj(pv);
      EndpointPort port{std::string(kube::str(p, {"name"})), "TCP", kube::num(p, {"port"}),
                        std::string(kube::str(p, {"appProtocol"}))};
      if (const std::string_view proto = kube::str(p, {"protocol"}); !proto.empty()) port.protocol = proto;
      ports.push_back(std::move(port));
    }
    std::ranges::sort(ports);
    for (const char* list : {"addresses", "notReadyAddresses"}) {
      for (const Value& av : kube::arr(subset, {list})) {
        const Object& a = kube::as_obj(av);
        ServiceEndpoint e;
        e.address = kube::str(a, {"ip"});
        auto ip = IpAddr::parse(e.address);
        if (!ip) continue;
        e.v6 = ip->is_v6();
        e.ready = e.serving = list[0] == 'a';
        e.node = kube::str(a, {"nodeName"});
        e.hostname = kube::str(a, {"hostname"});
        if (kube::str(a, {"targetRef", "kind"}) == "Pod") {
          e.pod_name = kube::str(a, {"targetRef", "name"});
          e.pod_namespace = kube::str(a, {"targetRef", "namespace"});
          e.pod_uid = kube::str(a, {"targetRef", "uid"});
        }
        e.ports = ports;
        out.push_back(std::move(e));
      }
    }
  }
  return out;
}

}  // namespace hawser::controllers
