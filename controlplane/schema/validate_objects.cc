// SPDX-License-Identifier: Apache-2.0
// Rules of the smaller kinds: workloads, ConfigMap and Secret, Endpoints and EndpointSlice, Lease, Node, Event.
#include <charconv>
#include <set>
#include <string>

#include <boost/json/array.hpp>

#include "controlplane/schema/scalar.h"
#include "controlplane/schema/validate.h"
#include "lib/base/ip.h"
#include "lib/kube/object.h"
#include "lib/kube/selector.h"

namespace hawser::schema {
namespace {

constexpr auto kNotAnIp = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

// Number of a count or percentage; a percentage as its number, -1 if neither.
struct Share {
  std::int64_t number = -1;
  bool percent = false;
};
Share share_of(const boost::json::value* v) {
  if (!v) return {0, false};
  if (v->is_int64()) return {v->get_int64(), false};
  if (!v->is_string()) return {};
  std::string_view text = v->get_string();
  std::int64_t n = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end == text.data() || std::string_view(end, text.data() + text.size()) != "%") return {};
  return {n, true};
}

void validate_share(const Object& rolling, std::string_view field, const std::string& path, FieldErrors& e) {
  const auto* v = kube::find(rolling, {field});
  auto share = share_of(v);
  if (v && v->is_string() && share.number < 0)
    e.invalid(at(path, field), *v,
              "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
              "used for validation is '[0-9]+%')");
  else if (v && share.number < 0)
    e.invalid(at(path, field), *v, "must be greater than or equal to 0");
  if (share.percent && share.number > 100 && field == "maxUnavailable")
    e.invalid(at(path, field), *v, "must not be greater than 100%");
}

void validate_strategy(const Object& spec, FieldErrors& e) {
  auto type = kube::str(spec, {"strategy", "type"});
  const auto* rolling = kube::find(spec, {"strategy", "rollingUpdate"});
  const std::string path = "spec.strategy.rollingUpdate";
  if (type == "Recreate" && rolling) e.forbidden(path, "may not be specified when strategy `type` is 'Recreate'");
  if (type != "RollingUpdate") return;
  if (!rolling) return e.required(path, "this should be defaulted and never be nil");
  const auto& r = kube::as_obj(*rolling);
  validate_share(r, "maxUnavailable", path, e);
  validate_share(r, "maxSurge", path, e);
  if (share_of(kube::find(r, {"maxUnavailable"})).number == 0 && share_of(kube::find(r, {"maxSurge"})).number == 0)
    e.invalid(at(path, "maxUnavailable"), *kube::find(r, {"maxUnavailable"}), "may not be 0 when `maxSurge` is 0");
}

void validate_template(const Object& spec, FieldErrors& e) {
  const auto& labels = kube::obj(spec, {"template", "metadata", "labels"});
  const auto* selector = kube::find(spec, {"selector"});
  const auto& s = selector ? kube::as_obj(*selector) : kube::empty_object();
  bool empty = kube::obj(s, {"matchLabels"}).empty() && kube::arr(s, {"matchExpressions"}).empty();
  if (!selector)
    e.required("spec.selector");
  else
    validate_label_selector(s, "spec.selector", e);
  if (selector && empty) e.invalid("spec.selector", s, "empty selector is invalid for deployment");
  if (auto parsed = kube::LabelSelector::from_object(s); selector && !empty && parsed && !parsed->matches(labels))
    e.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
  validate_labels(labels, "spec.template.labels", e);
  validate_annotations(kube::obj(spec, {"template", "metadata", "annotations"}), "spec.template.annotations", e);
  const auto& pod = kube::obj(spec, {"template", "spec"});
  validate_pod_spec(pod, "spec.template.spec", e);
  auto restart = kube::str(pod, {"restartPolicy"});
  if ((restart == "OnFailure" || restart == "Never"))
    e.not_supported("spec.template.spec.restartPolicy", restart, {"Always"});
  if (kube::find(pod, {"activeDeadlineSeconds"}))
    e.forbidden("spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in Deployment is not Supported");
}

void validate_subset(const Object& subset, const std::string& path, FieldErrors& e) {
  const auto& ready = kube::arr(subset, {"addresses"});
  const auto& others = kube::arr(subset, {"notReadyAddresses"});
  if (ready.empty() && others.empty()) e.required(path, "must specify `addresses` or `notReadyAddresses`");
  for (auto field : {"addresses", "notReadyAddresses"}) {
    const auto& list = kube::arr(subset, {field});
    for (std::size_t i = 0; i < list.size(); i++) {
      auto ip = kube::str(kube::as_obj(list[i]), {"ip"});
      if (!IpAddr::parse(ip)) e.invalid(at(at(at(path, field), i), "ip"), ip, kNotAnIp);
    }
  }
  const auto& ports = kube::arr(subset, {"ports"});
  for (std::size_t i = 0; i < ports.size(); i++) {
    auto name = kube::str(kube::as_obj(ports[i]), {"name"});
    if (name.empty() && ports.size() > 1)
      e.required(at(at(at(path, "ports"), i), "name"));
    else if (!name.empty())
      e.invalid(at(at(at(path, "ports"), i), "name"), name, check_dns1123_label(name));
  }
}

void validate_slice_addresses(const Object& o, FieldErrors& e) {
  constexpr std::size_t kMaxEndpoints = 1000;
  constexpr std::size_t kMaxAddresses = 100;
  auto type = kube::str(o, {"addressType"});
  const auto& endpoints = kube::arr(o, {"endpoints"});
  if (endpoints.size() > kMaxEndpoints)
    e.too_long("endpoints", fmt::format("must have at most {} items", kMaxEndpoints));
  for (std::size_t i = 0; i < endpoints.size(); i++) {
    auto path = at(at("endpoints", i), "addresses");
    const auto& list = kube::arr(kube::as_obj(endpoints[i]), {"addresses"});
    if (list.empty()) e.required(path, "must contain at least 1 address");
    if (list.size() > kMaxAddresses) e.too_long(path, fmt::format("must have at most {} items", kMaxAddresses));
    for (std::size_t n = 0; n < list.size(); n++) {
      if (!list[n].is_string()) continue;
      auto ip = IpAddr::parse(list[n].get_string());
      if (type == "IPv4" && !(ip && ip->is_v4())) e.invalid(at(path, n), list[n], "must be an IPv4 address");
      if (type == "IPv6" && !(ip && ip->is_v6())) e.invalid(at(path, n), list[n], "must be an IPv6 address");
      if (type == "FQDN") e.invalid(at(path, n), list[n], check_dns1123_subdomain(list[n].get_string()));
    }
  }
}

}  // namespace

void validate_workload(const Kind& k, const Object& o, FieldErrors& e) {
  const auto& spec = kube::obj(o, {"spec"});
  validate_template(spec, e);
  if (k.kind != "Deployment") return;
  validate_strategy(spec, e);
  auto deadline = kube::num(spec, {"progressDeadlineSeconds"}, 600);
  if (deadline <= kube::num(spec, {"minReadySeconds"}))
    e.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
}

void validate_workload_update(const Object& old, const Object& o, FieldErrors& e) {
  const auto& before = kube::obj(old, {"spec"});
  const auto& after = kube::obj(o, {"spec"});
  if (!same(before, after, "selector"))
    e.invalid("spec.selector", after.contains("selector") ? after.at("selector") : boost::json::value(),
              "field is immutable");
}

void validate_config(const Kind& k, const Object& o, FieldErrors& e) {
  constexpr std::size_t kMaxBytes = 1024 * 1024;
  std::size_t total = 0;
  const auto& data = kube::obj(o, {"data"});
  bool encoded = k.kind == "Secret";
  for (const auto& [key, v] : data) {
    e.invalid(at_key("data", key), std::string_view(key), check_config_key(key));
    if (v.is_string()) total += encoded ? base64_decoded_size(v.get_string()) : v.get_string().size();
  }
  for (const auto& [key, v] : kube::obj(o, {"binaryData"})) {
    e.invalid(at_key("binaryData", key), std::string_view(key), check_config_key(key));
    if (data.contains(key))
      e.invalid(at_key("data", key), std::string_view(key), "duplicate of key present in binaryData");
    if (v.is_string()) total += base64_decoded_size(v.get_string());
  }
  if (total > kMaxBytes) e.too_long(encoded ? "data" : "", fmt::format("may not be more than {} bytes", kMaxBytes));
  if (!encoded) return;
  struct Needed {
    std::string_view type, key;
  };
  for (auto n : {Needed{"kubernetes.io/tls", "tls.crt"}, Needed{"kubernetes.io/tls", "tls.key"},
                 Needed{"kubernetes.io/dockerconfigjson", ".dockerconfigjson"},
                 Needed{"kubernetes.io/dockercfg", ".dockercfg"}, Needed{"kubernetes.io/ssh-auth", "ssh-privatekey"}})
    if (kube::str(o, {"type"}) == n.type && !data.contains(n.key)) e.required(at_key("data", n.key));
}

void validate_config_update(const Kind& k, const Object& old, const Object& o, FieldErrors& e) {
  if (kube::flag(old, {"immutable"})) {
    if (!kube::flag(o, {"immutable"})) e.forbidden("immutable", "field is immutable when `immutable` is set");
    for (auto field : {"data", "binaryData"})
      if (!same(old, o, field)) e.forbidden(field, "field is immutable when `immutable` is set");
  }
  if (k.kind == "Secret" && !same(old, o, "type")) e.invalid("type", kube::str(o, {"type"}), "field is immutable");
}

void validate_endpoints(const Object& o, FieldErrors& e) {
  const auto& subsets = kube::arr(o, {"subsets"});
  for (std::size_t i = 0; i < subsets.size(); i++) validate_subset(kube::as_obj(subsets[i]), at("subsets", i), e);
}

void validate_endpoint_slice(const Object& o, FieldErrors& e) {
  constexpr std::size_t kMaxPorts = 100;
  validate_slice_addresses(o, e);
  const auto& ports = kube::arr(o, {"ports"});
  if (ports.size() > kMaxPorts) e.too_long("ports", fmt::format("must have at most {} items", kMaxPorts));
  std::set<std::string> names;
  for (std::size_t i = 0; i < ports.size(); i++) {
    auto name = kube::str(kube::as_obj(ports[i]), {"name"});
    if (!name.empty()) e.invalid(at(at("ports", i), "name"), name, check_dns1123_label(name));
    if (!names.emplace(name).second) e.duplicate(at(at("ports", i), "name"), name);
  }
}

void validate_lease(const Object& o, FieldErrors& e) {
  const auto& spec = kube::obj(o, {"spec"});
  for (auto [field, least] : {std::pair{"leaseDurationSeconds", 1}, std::pair{"leaseTransitions", 0}}) {
    const auto* v = kube::find(spec, {field});
    if (v && v->is_int64() && v->get_int64() < least)
      e.invalid(at("spec", field), *v, least ? "must be greater than 0" : "must be greater than or equal to 0");
  }
}

void validate_node(const Object& o, FieldErrors& e) {
  const auto& ranges = kube::arr(o, {"spec", "podCIDRs"});
  for (std::size_t i = 0; i < ranges.size(); i++)
    if (ranges[i].is_string() && !Cidr::parse(ranges[i].get_string()))
      e.invalid(at("spec.podCIDRs", i), ranges[i], "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
  std::set<std::string> seen;
  const auto& taints = kube::arr(o, {"spec", "taints"});
  for (std::size_t i = 0; i < taints.size(); i++) {
    const auto& t = kube::as_obj(taints[i]);
    auto key = kube::str(t, {"key"});
    auto path = at("spec.taints", i);
    if (!key.empty()) e.invalid(at(path, "key"), key, check_qualified_name(key));
    e.invalid(at(path, "value"), kube::str(t, {"value"}), check_label_value(kube::str(t, {"value"})));
    if (kube::str(t, {"effect"}).empty()) e.required(at(path, "effect"));
    if (!seen.emplace(fmt::format("{}:{}", key, kube::str(t, {"effect"}))).second) e.duplicate(path, t);
  }
}

void validate_event(const Object& o, FieldErrors& e) {
  auto ns = kube::ns(o);
  auto about = kube::str(o, {"involvedObject", "namespace"});
  // Events of cluster-wide objects live in the default namespace.
  if (about.empty() ? ns != "default" && ns != "kube-system" && !ns.empty() : about != ns)
    e.invalid("involvedObject.namespace", about, "does not match event.namespace");
}

}  // namespace hawser::schema
