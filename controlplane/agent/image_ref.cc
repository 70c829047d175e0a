// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/image_ref.h"

#include <algorithm>

namespace hawser::agent {
namespace {

bool lower_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool alnum(char c) {
  return lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}

// One path component: [a-z0-9]+ joined by ".", "_", "__" or dashes.
bool valid_component(std::string_view s) {
  if (s.empty() || !lower_or_digit(s.front()) || !lower_or_digit(s.back())) return false;
  std::size_t i = 0;
  while (i < s.size()) {
    if (lower_or_digit(s[i])) {
      ++i;
      continue;
    }
    std::size_t n = 0;
    const char sep = s[i];
    while (i < s.size() && s[i] == sep) ++i, ++n;
    const bool ok = sep == '-' || (sep == '_' && n <= 2) || (sep == '.' && n == 1);
    if (!ok || !lower_or_digit(s[i])) return false;
  }
  return true;
}

bool valid_host(std::string_view s) {
  const auto colon = s.rfind(':');
  if (colon != std::string_view::npos) {
    const auto port = s.substr(colon + 1);
    if (port.empty() || !std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; })) return false;
    s = s.substr(0, colon);
  }
  return !s.empty() && s.front() != '-' && s.back() != '-' && s.front() != '.' && s.back() != '.' &&
         std::ranges::all_of(s, [](char c) { return alnum(c) || c == '-' || c == '.'; });
}

bool valid_tag(std::string_view s) {
  return !s.empty() && s.size() <= 128 && s.front() != '.' && s.front() != '-' &&
         std::ranges::all_of(s, [](char c) { return alnum(c) || c == '_' || c == '.' || c == '-'; });
}

bool valid_digest(std::string_view s) {
  const auto colon = s.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const auto hex = s.substr(colon + 1);
  return hex.size() >= 32 &&
         std::ranges::all_of(hex, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

struct Parts {
  std::string_view name, tag, digest;
  bool has_tag = false, has_digest = false;
};
Parts split(std::string_view ref) {
  Parts p;
  if (const auto at = ref.find('@'); at != std::string_view::npos) {
    p.has_digest = true;
    p.digest = ref.substr(at + 1);
    ref = ref.substr(0, at);
  }
  const auto slash = ref.rfind('/');
  const auto colon = ref.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    p.has_tag = true;
    p.tag = ref.substr(colon + 1);
    ref = ref.substr(0, colon);
  }
  p.name = ref;
  return p;
}

bool valid_name(std::string_view name) {
  const auto slash = name.find('/');
  if (slash != std::string_view::npos) {
    const auto first = name.substr(0, slash);
    const bool host = first.find_first_of(".:") != std::string_view::npos || first == "localhost" ||
                      std::ranges::any_of(first, [](char c) { return c >= 'A' && c <= 'Z'; });
    if (host) {
      if (!valid_host(first)) return false;
      name = name.substr(slash + 1);
    }
  }
  while (true) {
    const auto next = name.find('/');
    if (!valid_component(name.substr(0, next))) return false;
    if (next == std::string_view::npos) return true;
    name = name.substr(next + 1);
  }
}

}  // namespace

Result<std::string> normal_image_ref(std::string_view ref) {
  const Parts p = split(ref);
  if (!valid_name(p.name) || (p.has_tag && !valid_tag(p.tag)) || (p.has_digest && !valid_digest(p.digest)))
    return fail(
        EINVAL,
        "Failed to apply default image tag \"{}\": couldn't parse image reference \"{}\": invalid reference format",
        ref, ref);
  if (p.has_tag || p.has_digest) return std::string(ref);
  return std::string(ref) + ":latest";
}

bool is_latest(std::string_view ref) {
  const Parts p = split(ref);
  return !p.has_digest && (!p.has_tag || p.tag == "latest");
}

}  // namespace hawser::agent
