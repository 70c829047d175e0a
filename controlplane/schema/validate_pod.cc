// SPDX-License-Identifier: Apache-2.0
// Rules of a pod's spec, alone or in a template. Source: the Kubernetes API reference of Pod.
#include <boost/json/array.hpp>

#include "controlplane/schema/validate.h"
#include "lib/base/ip.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

using kube::Array;

void validate_toleration(const Object& t, const std::string& path, FieldErrors& e) {
  auto key = kube::str(t, {"key"});
  auto op = kube::str(t, {"operator"});
  auto effect = kube::str(t, {"effect"});
  if (!key.empty()) e.invalid(at(path, "key"), key, check_qualified_name(key));
  if (key.empty() && op != "Exists")
    e.invalid(at(path, "operator"), op,
              "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
  if (kube::find(t, {"tolerationSeconds"}) && effect != "NoExecute")
    e.invalid(at(path, "effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
  auto v = kube::str(t, {"value"});
  if (op == "Exists" && !v.empty())
    e.invalid(at(path, "operator"), v, "value must be empty when `operator` is 'Exists'");
  if (op == "Equal" || op.empty()) e.invalid(at(path, "operator"), v, check_label_value(v));
}

void validate_node_requirement(const Object& r, const std::string& path, FieldErrors& e) {
  auto op = kube::str(r, {"operator"});
  std::size_t values = kube::arr(r, {"values"}).size();
  if (op == "In" || op == "NotIn") {
    if (values == 0) e.required(at(path, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
  } else if (op == "Exists" || op == "DoesNotExist") {
    if (values) e.forbidden(at(path, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
  } else if (op == "Gt" || op == "Lt") {
    if (values != 1) e.required(at(path, "values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
  } else {
    e.invalid(at(path, "operator"), op, "not a valid selector operator");
  }
  auto key = kube::str(r, {"key"});
  e.invalid(at(path, "key"), key, check_qualified_name(key));
}

void validate_node_term(const Object& term, const std::string& path, FieldErrors& e) {
  const auto& list = kube::arr(term, {"matchExpressions"});
  for (std::size_t i = 0; i < list.size(); i++)
    validate_node_requirement(kube::as_obj(list[i]), at(at(path, "matchExpressions"), i), e);
  const auto& fields = kube::arr(term, {"matchFields"});
  for (std::size_t i = 0; i < fields.size(); i++) {
    auto key = kube::str(kube::as_obj(fields[i]), {"key"});
    if (key != "metadata.name")
      e.invalid(at(at(at(path, "matchFields"), i), "key"), key, "not a valid field selector key");
  }
}

void check_weight(const Object& o, const std::string& path, FieldErrors& e) {
  auto weight = kube::num(o, {"weight"});
  if (weight < 1 || weight > 100) e.invalid(at(path, "weight"), weight, "must be in the range 1-100");
}

void validate_pod_term(const Object& term, const std::string& path, FieldErrors& e) {
  validate_label_selector(kube::obj(term, {"labelSelector"}), at(path, "labelSelector"), e);
  validate_label_selector(kube::obj(term, {"namespaceSelector"}), at(path, "namespaceSelector"), e);
  auto key = kube::str(term, {"topologyKey"});
  if (key.empty())
    e.required(at(path, "topologyKey"), "can not be empty");
  else
    e.invalid(at(path, "topologyKey"), key, check_qualified_name(key));
}

constexpr auto kRequiredTerms = "requiredDuringSchedulingIgnoredDuringExecution";
constexpr auto kPreferredTerms = "preferredDuringSchedulingIgnoredDuringExecution";

void validate_node_affinity(const Object& a, const std::string& path, FieldErrors& e) {
  if (const auto* required = kube::find(a, {kRequiredTerms})) {
    auto where = at(at(path, kRequiredTerms), "nodeSelectorTerms");
    const auto& terms = kube::arr(kube::as_obj(*required), {"nodeSelectorTerms"});
    if (terms.empty()) e.required(where, "must have at least one node selector term");
    for (std::size_t i = 0; i < terms.size(); i++) validate_node_term(kube::as_obj(terms[i]), at(where, i), e);
  }
  const auto& wishes = kube::arr(a, {kPreferredTerms});
  for (std::size_t i = 0; i < wishes.size(); i++) {
    auto where = at(at(path, kPreferredTerms), i);
    check_weight(kube::as_obj(wishes[i]), where, e);
    validate_node_term(kube::obj(kube::as_obj(wishes[i]), {"preference"}), at(where, "preference"), e);
  }
}

void validate_pod_affinity(const Object& a, const std::string& path, FieldErrors& e) {
  const auto& required = kube::arr(a, {kRequiredTerms});
  for (std::size_t i = 0; i < required.size(); i++)
    validate_pod_term(kube::as_obj(required[i]), at(at(path, kRequiredTerms), i), e);
  const auto& wishes = kube::arr(a, {kPreferredTerms});
  for (std::size_t i = 0; i < wishes.size(); i++) {
    auto where = at(at(path, kPreferredTerms), i);
    check_weight(kube::as_obj(wishes[i]), where, e);
    validate_pod_term(kube::obj(kube::as_obj(wishes[i]), {"podAffinityTerm"}), at(where, "podAffinityTerm"), e);
  }
}

void validate_spread(const Array& list, const std::string& path, FieldErrors& e) {
  for (std::size_t i = 0; i < list.size(); i++) {
    const auto& c = kube::as_obj(list[i]);
    auto skew = kube::num(c, {"maxSkew"});
    if (skew <= 0) e.invalid(at(at(path, i), "maxSkew"), skew, "must be greater than zero");
    validate_label_selector(kube::obj(c, {"labelSelector"}), at(at(path, i), "labelSelector"), e);
  }
}

void validate_dns(const Object& spec, const std::string& path, FieldErrors& e) {
  constexpr std::size_t kMaxNameservers = 3;
  auto where = at(path, "dnsConfig");
  const auto& servers = kube::arr(spec, {"dnsConfig", "nameservers"});
  if (kube::str(spec, {"dnsPolicy"}) == "None" && servers.empty())
    e.required(at(where, "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
  if (servers.size() > kMaxNameservers)
    e.invalid(at(where, "nameservers"), servers,
              fmt::format("must not have more than {} nameservers", kMaxNameservers));
  for (std::size_t i = 0; i < servers.size(); i++)
    if (servers[i].is_string() && !IpAddr::parse(servers[i].get_string()))
      e.invalid(at(at(where, "nameservers"), i), servers[i],
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
}

void validate_host_aliases(const Array& list, const std::string& path, FieldErrors& e) {
  for (std::size_t i = 0; i < list.size(); i++) {
    const auto& alias = kube::as_obj(list[i]);
    auto ip = kube::str(alias, {"ip"});
    if (!IpAddr::parse(ip))
      e.invalid(at(at(path, i), "ip"), ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    const auto& names = kube::arr(alias, {"hostnames"});
    for (std::size_t n = 0; n < names.size(); n++)
      if (names[n].is_string())
        e.invalid(at(at(at(path, i), "hostnames"), n), names[n], check_dns1123_subdomain(names[n].get_string()));
  }
}

void validate_scalars(const Object& spec, const std::string& path, FieldErrors& e) {
  if (const auto* grace = kube::find(spec, {"terminationGracePeriodSeconds"});
      grace && grace->is_int64() && grace->get_int64() < 0)
    e.invalid(at(path, "terminationGracePeriodSeconds"), *grace, "must be greater than or equal to 0");
  if (const auto* limit = kube::find(spec, {"activeDeadlineSeconds"});
      limit && limit->is_int64() && (limit->get_int64() < 1 || limit->get_int64() > 2147483647))
    e.invalid(at(path, "activeDeadlineSeconds"), *limit, "must be between 1 and 2147483647, inclusive");
  struct Rule {
    std::string_view field;
    Reasons (*check)(std::string_view);
  };
  for (const auto& [field, check] :
       {Rule{"serviceAccountName", check_dns1123_subdomain}, Rule{"nodeName", check_dns1123_subdomain},
        Rule{"hostname", check_dns1123_label}, Rule{"subdomain", check_dns1123_label},
        Rule{"priorityClassName", check_dns1123_subdomain}, Rule{"runtimeClassName", check_dns1123_subdomain}}) {
    auto v = kube::str(spec, {field});
    if (!v.empty()) e.invalid(at(path, field), v, check(v));
  }
}

// A copy without what may change after creation.
Object without_mutable(const Object& spec) {
  Object copy = spec;
  for (auto field : {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates",
                     "ephemeralContainers", "nodeName"})
    copy.erase(field);
  for (auto field : {"containers", "initContainers"}) {
    auto* list = copy.if_contains(field);
    if (!list || !list->is_array()) continue;
    for (auto& c : list->get_array())
      if (c.is_object()) c.get_object().erase("image");
  }
  return copy;
}

void validate_new_tolerations(const Object& old, const Object& spec, FieldErrors& e) {
  const auto& now = kube::arr(spec, {"tolerations"});
  for (const auto& t : kube::arr(old, {"tolerations"})) {
    auto matches = [&](const boost::json::value& other) {
      Object a = kube::as_obj(t), b = kube::as_obj(other);
      a.erase("tolerationSeconds");
      b.erase("tolerationSeconds");
      return a == b;
    };
    if (std::ranges::none_of(now, matches)) {
      e.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
      return;
    }
  }
}

}  // namespace

void validate_pod_spec(const Object& spec, const std::string& path, FieldErrors& e) {
  validate_volumes(spec, at(path, "volumes"), e);
  validate_containers(spec, path, e);
  validate_scalars(spec, path, e);
  validate_dns(spec, path, e);
  validate_labels(kube::obj(spec, {"nodeSelector"}), at(path, "nodeSelector"), e);
  const auto& tolerations = kube::arr(spec, {"tolerations"});
  for (std::size_t i = 0; i < tolerations.size(); i++)
    validate_toleration(kube::as_obj(tolerations[i]), at(at(path, "tolerations"), i), e);
  auto affinity = at(path, "affinity");
  validate_node_affinity(kube::obj(spec, {"affinity", "nodeAffinity"}), at(affinity, "nodeAffinity"), e);
  validate_pod_affinity(kube::obj(spec, {"affinity", "podAffinity"}), at(affinity, "podAffinity"), e);
  validate_pod_affinity(kube::obj(spec, {"affinity", "podAntiAffinity"}), at(affinity, "podAntiAffinity"), e);
  validate_spread(kube::arr(spec, {"topologySpreadConstraints"}), at(path, "topologySpreadConstraints"), e);
  validate_host_aliases(kube::arr(spec, {"hostAliases"}), at(path, "hostAliases"), e);
}

void validate_pod_update(const Object& old, const Object& o, FieldErrors& e) {
  const auto& before = kube::obj(old, {"spec"});
  const auto& after = kube::obj(o, {"spec"});
  for (auto field : {"containers", "initContainers"}) {
    const auto& list = kube::arr(after, {field});
    if (list.size() != kube::arr(before, {field}).size()) {
      e.forbidden(at("spec", field), "pod updates may not add or remove containers");
      return;
    }
    for (std::size_t i = 0; i < list.size(); i++)
      if (kube::str(kube::as_obj(list[i]), {"image"}).empty()) e.required(at(at(at("spec", field), i), "image"));
  }
  auto old_node = kube::str(before, {"nodeName"});
  bool bound = old_node.empty() && !kube::str(after, {"nodeName"}).empty();
  if (bound || old_node != kube::str(after, {"nodeName"}) || without_mutable(before) != without_mutable(after)) {
    e.forbidden(
        "spec",
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
    return;
  }
  if (!same(before, after, "terminationGracePeriodSeconds"))
    e.forbidden("spec", "pod updates may not change `spec.terminationGracePeriodSeconds`");
  validate_new_tolerations(before, after, e);
  const auto* limit = kube::find(before, {"activeDeadlineSeconds"});
  const auto* now = kube::find(after, {"activeDeadlineSeconds"});
  if (limit && !now)
    e.invalid("spec.activeDeadlineSeconds", nullptr, "must not update from a positive integer to nil value");
  else if (limit && now->to_number<std::int64_t>() > limit->to_number<std::int64_t>())
    e.invalid("spec.activeDeadlineSeconds", *now, "must be less than or equal to previous value");
}

}  // namespace hawser::schema
