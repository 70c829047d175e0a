// SPDX-License-Identifier: Apache-2.0
#include "controlplane/apiserver/negotiate.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace hawser::apiserver {

namespace {

struct MediaRange {
  std::string type;
  std::vector<std::pair<std::string, std::string>> parameters;
  [[nodiscard]] std::string_view parameter(std::string_view name) const {
    for (auto& [key, value] : parameters) {
      if (key == name) return value;
    }
    return {};
  }
};

std::string_view trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front())) != 0) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back())) != 0) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> split(std::string_view s, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    auto end = s.find(at);
    parts.push_back(trim(s.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    s.remove_prefix(end + 1);
  }
}

MediaRange parse_range(std::string_view text) {
  MediaRange m;
  auto parts = split(text, ';');
  m.type = parts[0];
  std::ranges::transform(m.type, m.type.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (std::size_t i = 1; i < parts.size(); ++i) {
    auto eq = parts[i].find('=');
    if (eq != std::string_view::npos) m.parameters.emplace_back(parts[i].substr(0, eq), parts[i].substr(eq + 1));
  }
  return m;
}

// In the order sent: clients list what they prefer first, and kubectl sends no weights.
std::vector<MediaRange> parse_accept(std::string_view accept) {
  std::vector<MediaRange> out;
  if (trim(accept).empty()) accept = "*/*";
  for (auto part : split(accept, ',')) {
    if (!part.empty()) out.push_back(parse_range(part));
  }
  return out;
}

bool is_yaml(std::string_view type) {
  return type == "application/yaml" || type == "application/x-yaml" || type == "text/yaml";
}
bool is_json(std::string_view type) {
  return type == "application/json" || type == "*/*" || type == "application/*";
}

constexpr std::string_view kTypes = "application/json, application/yaml";

}  // namespace

kube::Expected<Accepted> negotiate(std::string_view accept, bool shapes) {
  for (auto& m : parse_accept(accept)) {
    if (!is_json(m.type) && !is_yaml(m.type)) continue;
    Accepted a{.yaml = is_yaml(m.type)};
    auto as = m.parameter("as");
    if (as.empty()) return a;
    auto version = m.parameter("v");
    if (!shapes || m.parameter("g") != "meta.k8s.io" || (version != "v1" && version != "v1beta1")) continue;
    a.meta_version = version;
    if (as == "Table") {
      a.shape = Shape::kTable;
    } else if (as == "PartialObjectMetadata" || as == "PartialObjectMetadataList") {
      a.shape = Shape::kPartial;
    } else {
      continue;
    }
    return a;
  }
  return std::unexpected(kube::not_acceptable(fmt::format("only the following media types are accepted: {}", kTypes)));
}

std::optional<std::string> aggregated_discovery(std::string_view accept) {
  for (auto& m : parse_accept(accept)) {
    if (!is_json(m.type)) continue;
    if (m.parameter("as") != "APIGroupDiscoveryList") {
      if (m.parameter("as").empty()) return std::nullopt;
      continue;
    }
    auto version = m.parameter("v");
    if (m.parameter("g") == "apidiscovery.k8s.io" && (version == "v2" || version == "v2beta1"))
      return std::string(version);
  }
  return std::nullopt;
}

bool accepts(std::string_view accept, std::string_view type) {
  auto ranges = parse_accept(accept);
  return std::ranges::any_of(ranges, [&](auto& m) { return m.type == type; });
}

kube::Expected<schema::MediaType> body_type(std::string_view content_type) {
  auto m = parse_range(content_type);
  if (m.type.empty() || m.type == "application/json") return schema::MediaType::kJson;
  if (is_yaml(m.type)) return schema::MediaType::kYaml;
  return std::unexpected(kube::unsupported_media_type(
      fmt::format("the body of the request was in an unknown format - accepted media types include: {}", kTypes)));
}

kube::Expected<kube::PatchType> patch_type(std::string_view content_type) {
  auto m = parse_range(content_type);
  if (m.type == "application/json-patch+json") return kube::PatchType::kJson;
  if (m.type == "application/merge-patch+json") return kube::PatchType::kMerge;
  if (m.type == "application/strategic-merge-patch+json") return kube::PatchType::kStrategic;
  return std::unexpected(kube::unsupported_media_type(
      "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
      "application/merge-patch+json, application/strategic-merge-patch+json"));
}

}  // namespace hawser::apiserver
