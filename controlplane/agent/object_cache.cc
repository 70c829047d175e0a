// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/object_cache.h"

#include <algorithm>

namespace hawser::agent {

Result<kube::ObjectPtr> ObjectCache::read(const kube::Resource& kind, const std::string& ns, const std::string& name) {
  auto r = client_.get(kind, ns, name);
  if (r || !is_not_found(r.error())) return r;
  std::string word(kind.kind);
  std::ranges::transform(word, word.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::unexpected(Error{r.error().code, fmt::format("{} \"{}\" not found", word, name), r.error().reason});
}

Result<kube::ObjectPtr> ObjectCache::get(const kube::Resource& kind, const std::string& ns, const std::string& name,
                                         Nanos max_age) {
  const std::string key = fmt::format("{}/{}/{}", kind.plural, ns, name);
  const MonoTime now = clock_.now();
  {
    const std::lock_guard l(mu_);
    const auto it = entries_.find(key);
    if (it != entries_.end() && now - it->second.read_at < max_age) {
      it->second.used_at = now;
      return it->second.answer;
    }
  }
  auto answer = read(kind, ns, name);
  const std::lock_guard l(mu_);
  if (answer || is_not_found(answer.error())) entries_.insert_or_assign(key, Entry{answer, now, now});
  return answer;
}

void ObjectCache::drop_unused(Nanos time) {
  const MonoTime now = clock_.now();
  const std::lock_guard l(mu_);
  std::erase_if(entries_, [&](const auto& e) { return now - e.second.used_at >= time; });
}

}  // namespace hawser::agent
