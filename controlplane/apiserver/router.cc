// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/router.h"

#include <algorithm>
#include <array>
#include <vector>

#include "lib/http/message.h"

namespace hawser::apiserver {

namespace {

constexpr std::array<std::string_view, 1> kCreate = {"create"};
constexpr std::array<std::string_view, 1> kGet = {"get"};
constexpr std::array<std::string_view, 1> kUpdate = {"update"};

constexpr std::array<Subresource, 4> kSubresources = {{
    {"", "namespaces", "finalize", "", "v1", "Namespace", kUpdate},
    {"", "pods", "binding", "", "v1", "Binding", kCreate},
    {"", "pods", "eviction", "policy", "v1", "Eviction", kCreate},
    {"", "pods", "log", "", "v1", "Pod", kGet},
}};

struct Fixed {
  std::string_view path;
  Route::Type type;
};
constexpr std::array<Fixed, 7> kFixed = {{
    {"/", Route::Type::kIndex},
    {"/api", Route::Type::kCoreVersions},
    {"/apis", Route::Type::kGroups},
    {"/openapi/v2", Route::Type::kOpenapiV2},
    {"/version", Route::Type::kVersion},
    {"/metrics", Route::Type::kMetrics},
    {"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Route::Type::kCustomResources},
}};

using Segments = std::vector<std::string>;

Segments split(std::string_view path) {
  Segments out;
  while (!path.empty()) {
    auto end = path.find('/');
    if (end != 0) out.push_back(http::percent_decode(path.substr(0, end)));
    if (end == std::string_view::npos) break;
    path.remove_prefix(end + 1);
  }
  return out;
}

bool has_subresource(const schema::Kind& k, std::string_view sub) {
  if (sub.empty() || (sub == "status" && k.has_status) || (sub == "scale" && k.has_scale)) return true;
  return std::ranges::any_of(kSubresources,
                             [&](auto& s) { return s.group == k.group && s.plural == k.plural && s.name == sub; });
}

// What follows the version: [namespaces/NS/]PLURAL[/NAME[/SUB]].
void route_resource(Route& r, std::span<const std::string> s) {
  if (!s.empty() && s[0] == "watch") {
    r.watch_path = true;
    s = s.subspan(1);
  }
  bool in_namespace = s.size() >= 3 && s[0] == "namespaces" && s[2] != "status" && s[2] != "finalize";
  if (in_namespace) {
    r.ns = s[1];
    s = s.subspan(2);
  }
  if (s.empty() || s.size() > 3) return;
  auto* kind = schema::find_resource(r.group, r.version, s[0]);
  if (kind == nullptr) return;
  if (s.size() > 1) r.name = s[1];
  if (s.size() > 2) r.subresource = s[2];
  // A namespaced object is only reached through its namespace, and a cluster-scoped one never.
  if (kind->namespaced != in_namespace && (in_namespace || !r.name.empty())) return;
  if (!has_subresource(*kind, r.subresource)) return;
  r.kind = kind;
  r.type = Route::Type::kResource;
}

bool serves(std::string_view group, std::string_view version) {
  return std::ranges::any_of(schema::kinds(),
                             [&](auto& k) { return k.group == group && (version.empty() || k.version == version); });
}

void route_api(Route& r, const Segments& s) {
  std::size_t at = 1;
  if (s[0] == "apis") r.group = s[at++];
  if (s.size() > at) r.version = s[at++];
  if (!serves(r.group, r.version)) return;
  if (r.version.empty()) {
    r.type = Route::Type::kGroup;
  } else if (s.size() == at) {
    r.type = Route::Type::kResourceList;
  } else {
    route_resource(r, std::span(s).subspan(at));
  }
}

}  // namespace

std::span<const Subresource> subresources() {
  return kSubresources;
}

Route route(std::string_view path) {
  Route r;
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  for (auto& f : kFixed) {
    if (f.path == path) {
      r.type = f.type;
      return r;
    }
  }
  auto s = split(path);
  if (s.empty()) return r;
  if (s[0] == "healthz" || s[0] == "livez" || s[0] == "readyz") {
    if (s.size() > 2) return r;
    r.type = Route::Type::kHealth;
    r.rest = s[0];
    if (s.size() == 2) r.check = s[1];
  } else if (s[0] == "openapi" && s.size() >= 2 && s[1] == "v3") {
    r.type = Route::Type::kOpenapiV3;
    for (std::size_t i = 2; i < s.size(); ++i) r.rest += (i > 2 ? "/" : "") + s[i];
  } else if ((s[0] == "api" || s[0] == "apis") && s.size() >= 2) {
    route_api(r, s);
  }
  return r;
}

}  // namespace hawser::apiserver
