// SPDX-License-Identifier: Apache-2.0
// ImageCache: what the runtime says of an image, remembered for a short while, so that thirty pods of one image ask
// once. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "controlplane/agent/cri.h"
#include "lib/base/clock.h"

namespace hawser::agent {

class ImageCache {
 public:
  ImageCache(CriImages& images, Clock& clock) : images_(images), clock_(clock) {}
  // nullopt: not on this node; that answer is never remembered.
  Result<std::optional<Image>> find(const std::string& ref);
  // Something went wrong with it: ask the runtime again next time.
  void forget(const std::string& ref);
  Result<std::string> pull(const std::string& ref);

 private:
  struct Known {
    Image image;
    MonoTime until{};
  };
  CriImages& images_;
  Clock& clock_;
  std::mutex mu_;
  std::map<std::string, Known> known_;  // guarded by mu_
};

}  // namespace hawser::agent
