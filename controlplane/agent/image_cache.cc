// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/image_cache.h"

namespace hawser::agent {

constexpr std::chrono::seconds kRemember{30};

Result<std::optional<Image>> ImageCache::find(const std::string& ref) {
  {
    std::lock_guard l(mu_);
    const auto it = known_.find(ref);
    if (it != known_.end() && clock_.now() < it->second.until) return std::optional(it->second.image);
  }
  auto image = images_.image_status(ref);
  if (!image || !*image) return image;
  std::lock_guard l(mu_);
  const MonoTime now = clock_.now();
  std::erase_if(known_, [&](const auto& e) { return now >= e.second.until; });
  known_[ref] = {**image, now + kRemember};
  return image;
}

void ImageCache::forget(const std::string& ref) {
  std::lock_guard l(mu_);
  known_.erase(ref);
}

Result<std::string> ImageCache::pull(const std::string& ref) {
  forget(ref);
  return images_.pull_image(ref);
}

}  // namespace hawser::agent
