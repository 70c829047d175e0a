// SPDX-License-Identifier: Apache-2.0
#include "controlplane/controllers/service_endpoints.h"

#include <algorithm>

#include "lib/base/ip.h"
#include "lib/kube/selector.h"

namespace hawser::controllers {
namespace {

// The number of the container port called `name` with this protocol; 0 if the pod has none.
std::int64_t named_port(const Object& pod, std::string_view name, std::string_view protocol) {
  for (const char* list : {"containers", "initContainers"}) {
    for (const Value& c : kube::arr(pod, {"spec", list})) {
      // Of init containers only those that keep running beside the others can serve.
      if (list[0] == 'i' && kube::str(kube::as_obj(c), {"restartPolicy"}) != "Always") continue;
      for (const Value& p : kube::arr(kube::as_obj(c), {"ports"})) {
        const Object& port = kube::as_obj(p);
        const std::string_view proto = kube::str(port, {"protocol"});
        if (kube::str(port, {"name"}) == name && (proto.empty() ? "TCP" : proto) == protocol)
          return kube::num(port, {"containerPort"});
      }
    }
  }
  return 0;
}

std::vector<EndpointPort> ports_of(const Object& service, const Object& pod) {
  std::vector<EndpointPort> out;
  for (const Value& v : kube::arr(service, {"spec", "ports"})) {
    const Object& p = kube::as_obj(v);
    EndpointPort port;
    port.name = kube::str(p, {"name"});
    if (const std::string_view proto = kube::str(p, {"protocol"}); !proto.empty()) port.protocol = proto;
    port.app_protocol = kube::str(p, {"appProtocol"});
    const std::string_view target_name = kube::str(p, {"targetPort"});
    if (!target_name.empty())
      port.port = named_port(pod, target_name, port.protocol);
    else
      port.port = kube::num(p, {"targetPort"}, 0);
    if (port.port == 0 && target_name.empty()) port.port = kube::num(p, {"port"});
    if (port.port != 0) out.push_back(std::move(port));
  }
  std::ranges::sort(out);
  return out;
}

std::vector<std::string> addresses(const Object& pod) {
  std::vector<std::string> out;
  for (const Value& v : kube::arr(pod, {"status", "podIPs"})) out.emplace_back(kube::str(kube::as_obj(v), {"ip"}));
  if (out.empty())
    if (const std::string_view ip = kube::str(pod, {"status", "podIP"}); !ip.empty()) out.emplace_back(ip);
  return out;
}

}  // namespace

Object pod_reference(const ServiceEndpoint& e) {
  return {{"kind", "Pod"}, {"name", text(e.pod_name)}, {"namespace", text(e.pod_namespace)}, {"uid", text(e.pod_uid)}};
}

Array ports_json(const std::vector<EndpointPort>& ports, bool empty_names) {
  Array out;
  for (const EndpointPort& p : ports) {
    Object o;
    if (empty_names || !p.name.empty()) o["name"] = text(p.name);
    o["port"] = p.port;
    o["protocol"] = text(p.protocol);
    if (!p.app_protocol.empty()) o["appProtocol"] = text(p.app_protocol);
    out.push_back(std::move(o));
  }
  return out;
}

bool has_selector(const Object& service) {
  return !kube::obj(service, {"spec", "selector"}).empty();
}
bool is_headless(const Object& service) {
  return kube::str(service, {"spec", "clusterIP"}) == "None";
}
bool is_external_name(const Object& service) {
  return kube::str(service, {"spec", "type"}) == "ExternalName";
}

std::vector<bool> wants_v6(const Object& service) {
  std::vector<bool> out;
  for (const Value& f : kube::arr(service, {"spec", "ipFamilies"}))
    if (f.is_string()) out.push_back(f.get_string() == "IPv6");
  if (out.empty()) out.push_back(kube::str(service, {"spec", "clusterIP"}).find(':') != std::string_view::npos);
  return out;
}

std::vector<ServiceEndpoint> service_endpoints(const Object& service, std::span<const ObjectPtr> pods,
                                               const ZoneOf& zone) {
  std::vector<ServiceEndpoint> out;
  const auto selector = kube::LabelSelector::from_map(kube::obj(service, {"spec", "selector"}));
  const bool publish_all = kube::flag(service, {"spec", "publishNotReadyAddresses"});
  const std::vector<bool> families = wants_v6(service);
  for (const ObjectPtr& p : pods) {
    const Object& pod = *p;
    if (is_terminal(pod) || !selector.matches(labels(pod))) continue;
    ServiceEndpoint e;
    e.serving = is_ready(pod);
    e.terminating = kube::deleting(pod);
    e.ready = publish_all || (e.serving && !e.terminating);
    e.node = kube::str(pod, {"spec", "nodeName"});
    if (!e.node.empty() && zone) e.zone = zone(e.node);
    if (kube::str(pod, {"spec", "subdomain"}) == kube::name(service)) e.hostname = kube::str(pod, {"spec", "hostname"});
    e.pod_name = kube::name(pod);
    e.pod_namespace = kube::ns(pod);
    e.pod_uid = kube::uid(pod);
    e.ports = ports_of(service, pod);
    for (const std::string& address : addresses(pod)) {
      auto ip = IpAddr::parse(address);
      if (!ip || std::ranges::find(families, ip->is_v6()) == families.end()) continue;
      e.address = address;
      e.v6 = ip->is_v6();
      out.push_back(e);
    }
  }
  return out;
}

bool same_endpoint_input(const Object& a, const Object& b) {
  const auto same = [&](std::initializer_list<std::string_view> path) {
    const Value* va = kube::find(a, path);
    const Value* vb = kube::find(b, path);
    return va == nullptr || vb == nullptr ? va == vb : *va == *vb;
  };
  return labels(a) == labels(b) && same({"status", "podIP"}) && same({"status", "podIPs"}) &&
         is_ready(a) == is_ready(b) && ready_since(a) == ready_since(b) && kube::deleting(a) == kube::deleting(b) &&
         is_terminal(a) == is_terminal(b) && same({"spec", "nodeName"}) && same({"spec", "hostname"}) &&
         same({"spec", "subdomain"});
}

std::optional<WallTime> TriggerTimes::next(const Object& service, std::span<const ObjectPtr> matching_pods) {
  Seen& seen = seen_[kube::key(service)];
  std::optional<WallTime> earliest;
  const auto consider = [&](WallTime t, WallTime before) {
    if (t > before && (!earliest || t < *earliest)) earliest = t;
  };
  std::map<std::string, WallTime> now;
  for (const ObjectPtr& p : matching_pods) {
    const auto t = ready_since(*p);
    if (!t) continue;
    const auto before = seen.pods.find(std::string(kube::name(*p)));
    consider(*t, before == seen.pods.end() ? WallTime{} : before->second);
    now[std::string(kube::name(*p))] = *t;
  }
  const WallTime made = created_at(service).value_or(WallTime{});
  consider(made, seen.service);
  seen.pods = std::move(now);
  seen.service = made;
  return earliest;
}

}  // namespace hawser::controllers
