// SPDX-License-Identifier: Apache-2.0
// Metadata rules. Source: the Kubernetes documentation of object names, labels, annotations, finalizers and owners.
#include <array>

#include <boost/json/array.hpp>

#include "controlplane/schema/validate.h"
#include "lib/kube/object.h"

namespace hawser::schema {
namespace {

constexpr std::size_t kMaxAnnotationBytes = 256 * 1024;

using NameCheck = Reasons (*)(std::string_view);
struct KindRule {
  std::string_view kind;
  NameCheck check;
};
constexpr std::array<KindRule, 3> kNameRules{{
    {"Namespace", check_dns1123_label},
    {"Service", check_dns1035_label},
    {"Binding", check_path_segment},
}};

NameCheck name_check(const Kind& k) {
  for (const auto& r : kNameRules)
    if (r.kind == k.kind) return r.check;
  return check_dns1123_subdomain;
}

void validate_owner(const Object& owner, const std::string& path, FieldErrors& e) {
  auto version = kube::str(owner, {"apiVersion"});
  if (version.empty()) e.invalid(at(path, "apiVersion"), version, "version must not be empty");
  for (auto field : {"kind", "name", "uid"})
    if (kube::str(owner, {field}).empty()) e.invalid(at(path, field), "", fmt::format("{} must not be empty", field));
  if (version == "v1" && kube::str(owner, {"kind"}) == "Event")
    e.invalid(path, owner, "v1, Kind=Event is disallowed from being an owner");
}

void validate_owners(const Object& o, FieldErrors& e) {
  const auto& owners = kube::arr(o, {"metadata", "ownerReferences"});
  std::string controller;
  for (std::size_t i = 0; i < owners.size(); i++) {
    const auto& owner = kube::as_obj(owners[i]);
    validate_owner(owner, at("metadata.ownerReferences", i), e);
    if (!kube::flag(owner, {"controller"})) continue;
    auto name = fmt::format("{}/{}", kube::str(owner, {"kind"}), kube::str(owner, {"name"}));
    if (!controller.empty()) {
      e.invalid(
          "metadata.ownerReferences", owners,
          fmt::format("Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                      controller, name));
    }
    controller = name;
  }
}

void validate_finalizers(const Object& o, FieldErrors& e) {
  const auto& list = kube::arr(o, {"metadata", "finalizers"});
  for (std::size_t i = 0; i < list.size(); i++) {
    if (!list[i].is_string()) continue;
    std::string_view name = list[i].get_string();
    auto path = at("metadata.finalizers", i);
    auto reasons = check_qualified_name(name);
    e.invalid(path, list[i], reasons);
    bool standard = name == "kubernetes" || name == "orphan" || name == "foregroundDeletion";
    if (reasons.empty() && name.find('/') == std::string_view::npos && !standard)
      e.invalid(path, list[i], "name is neither a standard finalizer name nor is it fully qualified");
  }
}

void validate_common(const Object& o, FieldErrors& e) {
  validate_labels(kube::obj(o, {"metadata", "labels"}), "metadata.labels", e);
  validate_annotations(kube::obj(o, {"metadata", "annotations"}), "metadata.annotations", e);
  validate_owners(o, e);
  validate_finalizers(o, e);
}

void check_immutable(const Object& old, const Object& meta, std::string_view field, FieldErrors& e) {
  if (same(old, meta, field)) return;
  const auto* v = meta.if_contains(field);
  e.invalid(at("metadata", field), v ? *v : boost::json::value(), "field is immutable");
}

void validate_selector_requirement(const Object& r, const std::string& path, FieldErrors& e) {
  auto op = kube::str(r, {"operator"});
  bool has_values = !kube::arr(r, {"values"}).empty();
  if (op == "In" || op == "NotIn") {
    if (!has_values) e.required(at(path, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
  } else if (op == "Exists" || op == "DoesNotExist") {
    if (has_values)
      e.forbidden(at(path, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
  } else {
    e.invalid(at(path, "operator"), op, "not a valid selector operator");
  }
  auto key = kube::str(r, {"key"});
  e.invalid(at(path, "key"), key, check_qualified_name(key));
  const auto& values = kube::arr(r, {"values"});
  for (std::size_t i = 0; i < values.size(); i++)
    if (values[i].is_string())
      e.invalid(at(at(path, "values"), i), values[i], check_label_value(values[i].get_string()));
}

// What is being deleted must come to an end.
void validate_no_new_finalizers(const Object& old, const Object& o, FieldErrors& e) {
  if (!kube::deleting(old)) return;
  const auto& before = kube::arr(old, {"metadata", "finalizers"});
  std::vector<std::string> added;
  for (const auto& f : kube::arr(o, {"metadata", "finalizers"}))
    if (f.is_string() && std::ranges::find(before, f) == before.end())
      added.push_back(fmt::format("\"{}\"", std::string_view(f.get_string())));
  if (added.empty()) return;
  e.forbidden(
      "metadata.finalizers",
      fmt::format("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                  fmt::join(added, ", ")));
}

}  // namespace

void validate_labels(const Object& labels, const std::string& path, FieldErrors& e) {
  for (const auto& [key, v] : labels) {
    e.invalid(path, std::string_view(key), check_qualified_name(key));
    if (v.is_string()) e.invalid(path, v, check_label_value(v.get_string()));
  }
}

void validate_annotations(const Object& annotations, const std::string& path, FieldErrors& e) {
  std::size_t size = 0;
  for (const auto& [key, v] : annotations) {
    std::string lower(key);
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    e.invalid(path, std::string_view(key), check_qualified_name(lower));
    size += key.size() + (v.is_string() ? v.get_string().size() : 0);
  }
  if (size > kMaxAnnotationBytes) e.too_long(path, fmt::format("may not be more than {} bytes", kMaxAnnotationBytes));
}

void validate_label_selector(const Object& selector, const std::string& path, FieldErrors& e) {
  validate_labels(kube::obj(selector, {"matchLabels"}), at(path, "matchLabels"), e);
  const auto& list = kube::arr(selector, {"matchExpressions"});
  for (std::size_t i = 0; i < list.size(); i++)
    validate_selector_requirement(kube::as_obj(list[i]), at(at(path, "matchExpressions"), i), e);
}

void validate_metadata(const Kind& k, const Object& o, FieldErrors& e) {
  auto name = kube::name(o);
  auto prefix = kube::str(o, {"metadata", "generateName"});
  auto check = name_check(k);
  if (!prefix.empty()) {
    // The prefix is followed by random characters, so it may end in a hyphen.
    std::string whole(prefix);
    if (whole.ends_with('-')) whole.back() = 'a';
    e.invalid("metadata.generateName", prefix, check(whole));
  }
  if (name.empty())
    e.required("metadata.name", "name or generateName is required");
  else
    e.invalid("metadata.name", name, check(name));
  auto ns = kube::ns(o);
  if (k.namespaced) {
    if (ns.empty())
      e.required("metadata.namespace");
    else
      e.invalid("metadata.namespace", ns, check_dns1123_label(ns));
  } else if (!ns.empty()) {
    e.forbidden("metadata.namespace", "not allowed on this type");
  }
  validate_common(o, e);
}

void validate_metadata_update(const Object& old, const Object& o, FieldErrors& e) {
  const auto& before = kube::obj(old, {"metadata"});
  const auto& after = kube::obj(o, {"metadata"});
  for (auto field :
       {"name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"})
    check_immutable(before, after, field, e);
  validate_no_new_finalizers(old, o, e);
  validate_common(o, e);
}

}  // namespace hawser::schema
