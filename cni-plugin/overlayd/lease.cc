// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/overlayd/lease.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <sys/socket.h>

#include "lib/base/time_text.h"

namespace hawser::overlay {
namespace {

namespace json = boost::json;

constexpr const char* kCondition = "NetworkUnavailable";
constexpr const char* kReason = "FlannelIsUp";  // what tools that watch flannel clusters look for

// The annotation keys of one underlay family.
struct FamilyKeys {
  int family;
  const char* backend_data;
  const char* public_ip;
  const char* public_ip_overwrite;
  const char* node_public_ip;
};
constexpr std::array<FamilyKeys, 2> kKeys{
    {{AF_INET, "backend-data", "public-ip", "public-ip-overwrite", "node-public-ip"},
     {AF_INET6, "backend-v6-data", "public-ipv6", "public-ipv6-overwrite", "node-public-ipv6"}}};

std::string_view annotation(const kube::Object& node, std::string_view prefix, std::string_view key) {
  return kube::str(node, {"metadata", "annotations", fmt::format("{}/{}", prefix, key)});
}

Vtep read_vtep(const kube::Object& node, std::string_view prefix, const FamilyKeys& keys) {
  Vtep v{.address = overwritten_address(node, prefix, keys.family)};
  auto address = IpAddr::parse(annotation(node, prefix, keys.public_ip));
  if (!v.address && address && address->family() == keys.family) v.address = *address;
  boost::system::error_code ec;
  auto data = json::parse(annotation(node, prefix, keys.backend_data), ec);
  if (ec || !data.is_object()) return v;
  read_backend_data(data.get_object(), v);
  return v;
}

json::object wanted_annotations(const Publication& p) {
  json::object a;
  auto key = [&](std::string_view k) { return fmt::format("{}/{}", p.prefix, k); };
  a[key("kube-subnet-manager")] = "true";
  a[key("backend-type")] = p.lease.backend;
  for (const auto& k : kKeys) {
    const Vtep& v = p.lease.vtep(k.family);
    if (v.address) a[key(k.public_ip)] = v.address.text();
    if (auto data = backend_data(v); !data.is_null()) a[key(k.backend_data)] = json::serialize(data);
  }
  return a;
}

// The Node has that condition; reason and message count only where `whole`.
bool condition_stands(const kube::Object& node, const NodeCondition& want, bool whole) {
  for (const auto& c : kube::arr(node, {"status", "conditions"})) {
    const auto& o = kube::as_obj(c);
    if (kube::str(o, {"type"}) != want.type || kube::str(o, {"status"}) != want.status) continue;
    return !whole || (kube::str(o, {"reason"}) == want.reason && kube::str(o, {"message"}) == want.message);
  }
  return false;
}

json::object condition_json(const NodeCondition& c, const std::string& at) {
  return {{"type", c.type},       {"status", c.status},       {"reason", c.reason},
          {"message", c.message}, {"lastTransitionTime", at}, {"lastHeartbeatTime", at}};
}

}  // namespace

kube::Value backend_data(const Vtep& v) {
  // A key is one for both families: it is told where pods of the family are, though their tunnel may be of the other.
  if (v.public_key) return json::object{{"PublicKey", v.public_key->text()}};
  if (!v.address || !v.mac) return nullptr;
  return json::object{{"VNI", v.vni}, {"VtepMAC", v.mac->text()}};
}

void read_backend_data(const kube::Object& data, Vtep& v) {
  if (auto key = netlink::WgKey::parse(kube::str(data, {"PublicKey"})); key && *key) {
    v.public_key = *key;
    return;
  }
  v.vni = static_cast<std::uint32_t>(kube::num(data, {"VNI"}));
  if (auto mac = MacAddr::parse(kube::str(data, {"VtepMAC"}))) v.mac = *mac;
}

const Vtep& Lease::vtep(int family) const {
  return family == AF_INET ? v4 : v6;
}
Vtep& Lease::vtep(int family) {
  return family == AF_INET ? v4 : v6;
}
Cidr Lease::pod_cidr(int family) const {
  for (const auto& c : pod_cidrs) {
    if (c.family() == family) return c;
  }
  return {};
}

void trim_node(kube::Object& node, std::string_view prefix, bool with_conditions) {
  json::object annotations;
  for (const auto& [key, value] : kube::obj(node, {"metadata", "annotations"})) {
    if (key.starts_with(prefix)) annotations[key] = value;
  }
  // Made anew rather than erased from, which would keep the space.
  json::object metadata, spec, status;
  auto keep = [&](json::object& into, const char* part, const char* field) {
    if (const auto* v = kube::find(node, {part, field})) into[field] = *v;
  };
  for (const char* field : {"name", "uid", "resourceVersion"}) keep(metadata, "metadata", field);
  metadata["annotations"] = std::move(annotations);
  for (const char* field : {"podCIDR", "podCIDRs"}) keep(spec, "spec", field);
  keep(status, "status", "addresses");
  if (with_conditions) keep(status, "status", "conditions");
  node = json::object{{"metadata", std::move(metadata)}, {"spec", std::move(spec)}, {"status", std::move(status)}};
}

IpAddr overwritten_address(const kube::Object& node, std::string_view prefix, int family) {
  const auto& keys = family == AF_INET ? kKeys[0] : kKeys[1];
  for (const char* key : {keys.public_ip_overwrite, keys.node_public_ip}) {
    auto a = IpAddr::parse(annotation(node, prefix, key));
    if (a && a->family() == family) return *a;
  }
  return {};
}

Lease read_lease(const kube::Object& node, std::string_view prefix) {
  Lease l;
  l.node = std::string(kube::name(node));
  auto keep = [&](std::string_view text) {
    auto c = Cidr::parse(text);
    if (c && !l.pod_cidr(c->family())) l.pod_cidrs.push_back(c->network());
  };
  for (const auto& v : kube::arr(node, {"spec", "podCIDRs"})) {
    if (v.is_string()) keep(v.get_string());
  }
  // Servers before 1.16 know only the single form.
  keep(kube::str(node, {"spec", "podCIDR"}));
  l.backend = std::string(annotation(node, prefix, "backend-type"));
  for (const auto& k : kKeys) l.vtep(k.family) = read_vtep(node, prefix, k);
  return l;
}

IpAddr internal_ip(const kube::Object& node, int family) {
  for (const auto& v : kube::arr(node, {"status", "addresses"})) {
    const auto& o = kube::as_obj(v);
    if (kube::str(o, {"type"}) != "InternalIP") continue;
    auto a = IpAddr::parse(kube::str(o, {"address"}));
    if (a && a->family() == family) return *a;
  }
  return {};
}

std::optional<kube::Value> publication_patch(const kube::Object& node, const Publication& p, WallTime now) {
  json::object changed;
  for (const auto& [key, value] : wanted_annotations(p)) {
    if (kube::str(node, {"metadata", "annotations", key}) != value.get_string()) changed[key] = value;
  }
  json::object patch;
  if (!changed.empty()) patch["metadata"] = json::object{{"annotations", changed}};
  const auto at = rfc3339(now);
  const NodeCondition available{kCondition, "False", kReason, "Hawser is running on this node"};
  json::array conditions;
  if (p.network_available && !condition_stands(node, available, false))
    conditions.push_back(condition_json(available, at));
  if (p.condition && !condition_stands(node, *p.condition, true))
    conditions.push_back(condition_json(*p.condition, at));
  if (!conditions.empty()) patch["status"] = json::object{{"conditions", std::move(conditions)}};
  if (patch.empty()) return std::nullopt;
  return patch;
}

}  // namespace hawser::overlay
