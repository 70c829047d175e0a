// SPDX-License-Identifier: Apache-2.0
// Discovery documents from the schema table, built once: the old ones, a request per group, and the aggregated one.
// Immutable, any thread. Source: Kubernetes API concepts, "Discovery API"; meta/v1 and apidiscovery.k8s.io v2, v2beta1.
#pragma once

#include <map>
#include <string>

namespace hawser::apiserver {

class Discovery {
 public:
  // `server`: "192.0.2.10:6443", named in /api.
  explicit Discovery(const std::string& server);
  [[nodiscard]] const std::string& core_versions() const { return core_versions_; }  // /api
  [[nodiscard]] const std::string& groups() const { return groups_; }                // /apis
  // Empty if unknown.
  [[nodiscard]] const std::string& group(const std::string& name) const;
  [[nodiscard]] const std::string& resources(const std::string& group, const std::string& version) const;
  struct Aggregated {
    std::string body, etag;
  };
  // `core`: the document of /api, else that of /apis. `version`: "v2" or "v2beta1".
  [[nodiscard]] const Aggregated& aggregated(bool core, const std::string& version) const;

 private:
  std::string core_versions_, groups_;
  std::map<std::string, std::string> by_group_, resources_;
  std::map<std::string, Aggregated> aggregated_;
};

}  // namespace hawser::apiserver
