// SPDX-License-Identifier: Apache-2.0
// Environment variables of a container: envFrom, env with its references, $(VAR) expansion, service variables; and the
// downward API's field and resource references, which volumes use too. Pure but for the lookups passed in. Behaviour:
// Kubernetes documentation, "Define Environment Variables", "Downward API", "Service environment variables".
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "controlplane/agent/cri.h"
#include "controlplane/agent/node_settings.h"
#include "controlplane/agent/pod_spec.h"

namespace hawser::agent {

// Reads a ConfigMap or Secret of the pod's namespace. A missing one is an error whose text names it: `configmap "x" not
// found`.
using ObjectLookup = std::function<Result<kube::ObjectPtr>(const kube::Resource& kind, const std::string& name)>;

struct PodFacts {
  const NodeSettings* node = nullptr;
  std::vector<std::string> pod_ips;
};

using EnvList = std::vector<std::pair<std::string, std::string>>;

// "$(NAME)" from `vars`; "$$" is "$"; an unknown name stays as written.
[[nodiscard]] std::string expand(std::string_view text,
                                 const std::function<const std::string*(std::string_view)>& vars);

// fieldRef: "metadata.labels['app']", "status.podIP", ...
Result<std::string> field_value(const PodSpec& spec, std::string_view path, const PodFacts& facts);
// resourceFieldRef: "limits.cpu" of a container in units of `divisor` ("1", "1m", "1Mi").
Result<std::string> resource_value(const kube::Object& container, std::string_view resource, std::string_view divisor,
                                   const PodFacts& facts);

// The service variables a pod in namespace `ns` sees; `links` false: only those of the API server's service.
[[nodiscard]] StringMap service_env(const std::vector<kube::ObjectPtr>& services, std::string_view ns, bool links);

struct EnvInputs {
  ObjectLookup lookup;
  StringMap services;
  PodFacts facts;
};
Result<EnvList> make_env(const PodSpec& spec, const ContainerSpec& container, const EnvInputs& in);

// The bytes of a Secret's or ConfigMap's key; nullptr-like nullopt if there is none. Decodes base64 where the kind has
// it.
std::optional<std::string> object_key(const kube::Object& object, bool secret, std::string_view key);
// Every key of it.
std::vector<std::string> object_keys(const kube::Object& object);

}  // namespace hawser::agent
