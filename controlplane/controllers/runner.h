// SPDX-License-Identifier: Apache-2.0
// Runner: all controllers of the control plane in one process, over one set of caches. start() returns at once; the
// controllers begin when every cache has its first list. May be stopped and destroyed at any time; a new Runner goes on
// from what the API holds.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "controlplane/controllers/options.h"
#include "lib/kube/client.h"

namespace hawser::controllers {

class Runner {
 public:
  Runner(kube::Client& client, Options options);
  ~Runner();  // stops
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  void start();
  void stop();
  // Whether the controllers are at work (every cache is synced).
  [[nodiscard]] bool running() const;
  [[nodiscard]] static std::vector<std::string_view> names();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hawser::controllers
