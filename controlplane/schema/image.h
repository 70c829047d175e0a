// SPDX-License-Identifier: Apache-2.0
// Image references: "registry:5000/team/app:tag@sha256:...". Source: the distribution reference grammar. Pure.
#pragma once

#include <string_view>

namespace hawser::schema {

struct ImageRef {
  std::string_view name;    // without tag and digest
  std::string_view tag;     // "latest" if neither tag nor digest is given
  std::string_view digest;  // "sha256:..."
};
[[nodiscard]] inline ImageRef parse_image(std::string_view image) {
  ImageRef r{.name = image, .tag = {}, .digest = {}};
  if (auto at = r.name.find('@'); at != std::string_view::npos) {
    r.digest = r.name.substr(at + 1);
    r.name = r.name.substr(0, at);
  }
  auto colon = r.name.rfind(':');
  // A colon before a slash belongs to the registry's port.
  if (colon != std::string_view::npos && r.name.find('/', colon) == std::string_view::npos) {
    r.tag = r.name.substr(colon + 1);
    r.name = r.name.substr(0, colon);
  }
  if (r.tag.empty() && r.digest.empty()) r.tag = "latest";
  return r;
}

}  // namespace hawser::schema
