// SPDX-License-Identifier: Apache-2.0
// Seeds name a kind in their first line ("Pod"); any other text stands for some kind too, so that no input is wasted.
#pragma once

#include <algorithm>
#include <string_view>

#include "controlplane/schema/schema.h"

namespace hawser::fuzz {

inline const schema::Kind& kind_of(std::string_view text) {
  auto kinds = schema::kinds();
  auto named = std::ranges::find(kinds, text, &schema::Kind::kind);
  if (named != kinds.end()) return *named;
  std::size_t n = 0;
  for (unsigned char c : text) n += c;
  return kinds[n % kinds.size()];
}

}  // namespace hawser::fuzz
