// SPDX-License-Identifier: Apache-2.0
// MappedState: a DesiredState with each Service changed by a function. Services that did not change keep their pointers
// in the result too, so that a back end finds what did as cheaply as in the original. One thread.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proxyd/model/desired_state.h"

namespace hawser::proxy {

class MappedState {
 public:
  using Map = std::function<ServiceState(const ServiceState&)>;
  explicit MappedState(Map map) : map_(std::move(map)) {}

  DesiredStatePtr of(const DesiredStatePtr& state) {
    if (given_for_ == state) return given_;
    auto out = std::make_shared<DesiredState>();
    out->generation = state->generation;
    std::vector<ServiceStatePtr> list;
    decltype(cache_) cache;
    for (const auto& s : state->services) {
      const auto it = cache_.find(s.get());
      auto entry =
          it != cache_.end() ? std::move(it->second) : std::pair{s, std::make_shared<const ServiceState>(map_(*s))};
      list.push_back(entry.second);
      cache.emplace(s.get(), std::move(entry));
    }
    out->services = ServiceList(std::move(list));
    cache_ = std::move(cache);
    given_ = std::move(out);
    given_for_ = state;
    return given_;
  }
  // The function gives other results now.
  void forget() {
    cache_.clear();
    given_for_.reset();
  }

 private:
  const Map map_;
  DesiredStatePtr given_, given_for_;
  // By the original, which is kept so that its address stays its own.
  std::unordered_map<const ServiceState*, std::pair<ServiceStatePtr, ServiceStatePtr>> cache_;
};

}  // namespace hawser::proxy
