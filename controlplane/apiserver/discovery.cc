// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/discovery.h"

#include <algorithm>
#include <vector>

#include <boost/json/serialize.hpp>

#include "controlplane/apiserver/continue_token.h"
#include "controlplane/apiserver/router.h"
#include "lib/kube/object.h"

namespace hawser::apiserver {

using kube::Array;
using kube::Object;
using schema::Kind;

namespace {

// 64-bit FNV-1a: stable over builds, which is all that an ETag or a storage version hash needs.
std::uint64_t fnv1a(std::string_view s) {
  std::uint64_t h = 14695981039346656037u;
  for (unsigned char c : s) h = (h ^ c) * 1099511628211u;
  return h;
}

template <class Strings>
Array strings(const Strings& list) {
  Array a;
  for (auto& s : list) a.emplace_back(s);
  return a;
}

struct Sub {
  std::string_view name, group, version, kind;
  Array verbs;
};

std::vector<Sub> subresources_of(const Kind& k) {
  std::vector<Sub> out;
  Array view{"get", "patch", "update"};
  if (k.has_status) out.push_back({"status", k.group, k.version, k.kind, view});
  if (k.has_scale) out.push_back({"scale", "autoscaling", "v1", "Scale", view});
  for (auto& s : subresources()) {
    if (s.group == k.group && s.plural == k.plural)
      out.push_back({s.name, s.kind_group, s.kind_version, s.kind, strings(s.verbs)});
  }
  std::ranges::sort(out, {}, &Sub::name);
  return out;
}

Array all_verbs() {
  return {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};
}

Object resource_entry(const Kind& k) {
  Object o{{"name", k.plural},
           {"singularName", k.singular},
           {"namespaced", k.namespaced},
           {"kind", k.kind},
           {"verbs", all_verbs()}};
  if (!k.short_names.empty()) o["shortNames"] = strings(k.short_names);
  if (!k.categories.empty()) o["categories"] = strings(k.categories);
  auto hash = fnv1a(fmt::format("{}/{}/{}", k.group, k.version, k.kind));
  o["storageVersionHash"] = base64({reinterpret_cast<const char*>(&hash), sizeof hash}, false);
  return o;
}

Array resource_entries(const std::string& group, const std::string& version) {
  Array list;
  for (auto& k : schema::kinds()) {
    if (k.group != group || k.version != version) continue;
    list.push_back(resource_entry(k));
    for (auto& s : subresources_of(k)) {
      Object o{{"name", fmt::format("{}/{}", k.plural, s.name)},
               {"singularName", ""},
               {"namespaced", k.namespaced},
               {"kind", s.kind},
               {"verbs", s.verbs}};
      if (s.group != k.group || s.version != k.version) {
        o["group"] = s.group;
        o["version"] = s.version;
      }
      list.push_back(std::move(o));
    }
  }
  return list;
}

Object response_kind(std::string_view group, std::string_view version, std::string_view kind) {
  return {{"group", group}, {"version", version}, {"kind", kind}};
}

Object aggregated_entry(const Kind& k) {
  Object o{{"resource", k.plural},
           {"responseKind", response_kind(k.group, k.version, k.kind)},
           {"scope", k.namespaced ? "Namespaced" : "Cluster"},
           {"singularResource", k.singular},
           {"verbs", all_verbs()}};
  if (!k.short_names.empty()) o["shortNames"] = strings(k.short_names);
  if (!k.categories.empty()) o["categories"] = strings(k.categories);
  Array subs;
  for (auto& s : subresources_of(k)) {
    subs.push_back(Object{
        {"subresource", s.name}, {"responseKind", response_kind(s.group, s.version, s.kind)}, {"verbs", s.verbs}});
  }
  if (!subs.empty()) o["subresources"] = std::move(subs);
  return o;
}

using GroupVersions = std::vector<std::pair<std::string, std::vector<std::string>>>;

// Groups and their versions, in the table's order.
GroupVersions group_versions() {
  GroupVersions out;
  for (auto& k : schema::kinds()) {
    auto it = std::ranges::find(out, k.group, &GroupVersions::value_type::first);
    if (it == out.end()) it = out.insert(out.end(), {std::string(k.group), {}});
    if (std::ranges::find(it->second, k.version) == it->second.end()) it->second.emplace_back(k.version);
  }
  return out;
}

Object group_entry(const std::string& group, const std::vector<std::string>& versions) {
  Array list;
  for (auto& v : versions) list.push_back(Object{{"groupVersion", fmt::format("{}/{}", group, v)}, {"version", v}});
  return {{"name", group}, {"versions", list}, {"preferredVersion", list[0]}};
}

Object aggregated_group(const std::string& group, const std::vector<std::string>& versions) {
  Array list;
  for (auto& v : versions) {
    Array resources;
    for (auto& k : schema::kinds()) {
      if (k.group == group && k.version == v) resources.push_back(aggregated_entry(k));
    }
    list.push_back(Object{{"version", v}, {"resources", std::move(resources)}, {"freshness", "Current"}});
  }
  Object metadata{{"creationTimestamp", nullptr}};
  if (!group.empty()) metadata["name"] = group;
  return {{"metadata", std::move(metadata)}, {"versions", std::move(list)}};
}

std::string document(std::string_view kind, std::string_view api_version, Object members) {
  Object o{{"kind", kind}, {"apiVersion", api_version}};
  for (auto& [key, value] : members) o[key] = value;
  return boost::json::serialize(o);
}

const std::string& none() {
  static const std::string empty;
  return empty;
}

}  // namespace

Discovery::Discovery(const std::string& server) {
  Array groups, core_items, group_items;
  for (auto& [group, versions] : group_versions()) {
    for (auto& v : versions) {
      auto gv = group.empty() ? v : fmt::format("{}/{}", group, v);
      resources_[gv] =
          document("APIResourceList", "v1", {{"groupVersion", gv}, {"resources", resource_entries(group, v)}});
    }
    auto aggregated = aggregated_group(group, versions);
    if (group.empty()) {
      core_items.push_back(std::move(aggregated));
      core_versions_ = document(
          "APIVersions", "v1",
          {{"versions", strings(versions)},
           {"serverAddressByClientCIDRs", Array{Object{{"clientCIDR", "0.0.0.0/0"}, {"serverAddress", server}}}}});
      continue;
    }
    group_items.push_back(std::move(aggregated));
    by_group_[group] = document("APIGroup", "v1", group_entry(group, versions));
    groups.push_back(group_entry(group, versions));
  }
  groups_ = document("APIGroupList", "v1", {{"groups", std::move(groups)}});
  for (std::string version : {"v2", "v2beta1"}) {
    for (bool core : {true, false}) {
      auto& a = aggregated_[(core ? "core/" : "groups/") + version];
      a.body = document("APIGroupDiscoveryList", "apidiscovery.k8s.io/" + version,
                        {{"metadata", Object()}, {"items", core ? core_items : group_items}});
      a.etag = fmt::format("\"{:016x}\"", fnv1a(a.body));
    }
  }
}

const std::string& Discovery::group(const std::string& name) const {
  auto it = by_group_.find(name);
  return it == by_group_.end() ? none() : it->second;
}

const std::string& Discovery::resources(const std::string& group, const std::string& version) const {
  auto it = resources_.find(group.empty() ? version : group + "/" + version);
  return it == resources_.end() ? none() : it->second;
}

const Discovery::Aggregated& Discovery::aggregated(bool core, const std::string& version) const {
  return aggregated_.at((core ? "core/" : "groups/") + version);
}

}  // namespace hawser::apiserver
