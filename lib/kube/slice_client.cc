// SPDX-License-Identifier: Apache-2.0
#include "lib/kube/slice_client.h"

#include "lib/base/log.h"
#include "lib/kube/object.h"

namespace hawser::kube {
namespace {

constexpr Resource kBeta{"discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice"};
constexpr std::string_view kHostname = "kubernetes.io/hostname";
constexpr std::string_view kZone = "topology.kubernetes.io/zone";

bool is_slices(const Resource& r) {
  return r.group == kEndpointSlices.group && r.plural == kEndpointSlices.plural;
}

void endpoint_to_v1(Object& e) {
  auto* topology = e.if_contains("topology");
  if (!topology || !topology->is_object()) return;
  const Object t = std::move(topology->get_object());  // a new member of `e` may move the others
  e.erase("topology");
  for (auto [from, to] : {std::pair{kHostname, "nodeName"}, {kZone, "zone"}})
    if (const auto v = str(t, {from}); !v.empty() && !e.contains(to)) e[to] = v;
  Object rest;
  for (const auto& [key, v] : t)
    if (key != kHostname && key != kZone) rest[key] = v;
  if (!rest.empty()) e["deprecatedTopology"] = std::move(rest);
}

}  // namespace

ObjectPtr slice_to_v1(const ObjectPtr& v1beta1) {
  Object o = *v1beta1;
  o["apiVersion"] = "discovery.k8s.io/v1";
  if (auto* endpoints = o.if_contains("endpoints"); endpoints && endpoints->is_array())
    for (auto& e : endpoints->get_array())
      if (e.is_object()) endpoint_to_v1(e.get_object());
  return std::make_shared<const Object>(std::move(o));
}

Result<ObjectList> EndpointSliceClient::list(const Resource& r, const ListOptions& o) {
  if (!is_slices(r)) return below_.list(r, o);
  auto found = below_.list(r, o);
  if (found || found.error().code != 404) {
    if (found && beta_.exchange(false)) log::info("the API server has discovery.k8s.io/v1 now");
    return found;
  }
  auto beta = below_.list(kBeta, o);
  // Neither: the error of the one that should be there.
  if (!beta) return beta.error().code == 404 ? std::move(found) : std::move(beta);
  if (!beta_.exchange(true)) log::info("the API server has no discovery.k8s.io/v1: EndpointSlices are read as v1beta1");
  for (auto& item : beta->items) item = slice_to_v1(item);
  return beta;
}

Result<> EndpointSliceClient::watch(const Resource& r, const WatchOptions& o,
                                    const std::function<bool(const WatchEvent&)>& on_event, std::stop_token stop) {
  if (!is_slices(r) || !beta_) return below_.watch(r, o, on_event, std::move(stop));
  return below_.watch(
      kBeta, o,
      [&](const WatchEvent& e) {
        return on_event(e.type == EventType::kBookmark ? e : WatchEvent{e.type, slice_to_v1(e.object)});
      },
      std::move(stop));
}

Result<ObjectPtr> EndpointSliceClient::get(const Resource& r, std::string_view ns, std::string_view name) {
  return below_.get(r, ns, name);
}
Result<ObjectPtr> EndpointSliceClient::create(const Resource& r, std::string_view ns, const Object& o) {
  return below_.create(r, ns, o);
}
Result<ObjectPtr> EndpointSliceClient::update(const Resource& r, const Object& o, std::string_view subresource) {
  return below_.update(r, o, subresource);
}
Result<ObjectPtr> EndpointSliceClient::patch(const Resource& r, std::string_view ns, std::string_view name,
                                             PatchType type, const boost::json::value& body,
                                             std::string_view subresource) {
  return below_.patch(r, ns, name, type, body, subresource);
}
Result<> EndpointSliceClient::remove(const Resource& r, std::string_view ns, std::string_view name,
                                     const DeleteOptions& o) {
  return below_.remove(r, ns, name, o);
}
Result<ObjectPtr> EndpointSliceClient::create_sub(const Resource& r, std::string_view ns, std::string_view name,
                                                  std::string_view subresource, const Object& o) {
  return below_.create_sub(r, ns, name, subresource, o);
}

}  // namespace hawser::kube
