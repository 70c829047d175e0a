// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/log.h"

#include <cerrno>

namespace hawser::store {

std::string prefix_end(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

KeySpan KeySpan::of(const std::string& key, const std::string& end) {
  if (end.empty()) return {key, key + '\0'};
  // Above every key there can be: a plain upper bound keeps engines' range scans free of a special case.
  if (end == std::string_view("\0", 1)) return {key, std::string(kMaxKeyBytes + 1, '\xff')};
  return {key, end};
}

Result<> check_revision(Revision want, Revision now, Revision compacted) {
  if (want < 0) return fail(EINVAL, "revision {}: negative", want);
  if (want > now) return fail(EINVAL, "revision {}: in the future, the store is at {}", want, now);
  if (want != 0 && want < compacted)
    return fail(kCompacted, "revision {}: compacted, the oldest is {}", want, compacted);
  return {};
}

}  // namespace hawser::store
