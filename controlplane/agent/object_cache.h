// SPDX-License-Identifier: Apache-2.0
// ObjectCache: ConfigMaps and Secrets as this node last read them, so that many pods that follow one object cost one
// read together. What the API answered is kept, a "not found" too; an API that cannot be reached leaves nothing behind.
// Any thread.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "lib/base/clock.h"
#include "lib/kube/client.h"

namespace hawser::agent {

class ObjectCache {
 public:
  ObjectCache(kube::Client& client, Clock& clock) : client_(client), clock_(clock) {}

  // An answer that is at most `max_age` old; zero: read now. Errors carry the kubelet's wording: `configmap "x" not
  // found`.
  Result<kube::ObjectPtr> get(const kube::Resource& kind, const std::string& ns, const std::string& name,
                              Nanos max_age);
  // Forgets what nobody has asked for during `time`.
  void drop_unused(Nanos time);

 private:
  struct Entry {
    Result<kube::ObjectPtr> answer;
    MonoTime read_at{}, used_at{};
  };
  Result<kube::ObjectPtr> read(const kube::Resource& kind, const std::string& ns, const std::string& name);

  kube::Client& client_;
  Clock& clock_;
  std::mutex mu_;
  std::map<std::string, Entry> entries_;  // guarded by mu_; by PLURAL/NAMESPACE/NAME
};

}  // namespace hawser::agent
