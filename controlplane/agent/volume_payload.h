// SPDX-License-Identifier: Apache-2.0
// Files of the volumes that come from the API: configMap, secret, downwardAPI, projected. payload_of() is pure but for
// its lookups; write_payload() puts a payload into a folder atomically in the layout that pods know from Kubernetes:
// files are symlinks to
// ..data/NAME, and ..data is a symlink that is swapped with one rename, so a reader sees all of the old or all of the
// new.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "controlplane/agent/pod_env.h"

namespace hawser::agent {

struct PayloadFile {
  std::string content;
  unsigned mode = 0644;
  bool operator==(const PayloadFile&) const = default;
};
using Payload = std::map<std::string, PayloadFile>;  // by relative path

struct PayloadInputs {
  ObjectLookup lookup;
  PodFacts facts;
  // A token for the pod's service account; nullopt: the API has no tokens, the file is left out.
  std::function<Result<std::optional<std::string>>(const std::string& audience, std::int64_t seconds)> token;
};

// True for a volume whose content this file makes.
[[nodiscard]] bool has_payload(const kube::Object& volume);
Result<Payload> payload_of(const PodSpec& spec, const kube::Object& volume, const PayloadInputs& in);

// Returns true if it changed something. `gid` < 0: files stay root's.
Result<bool> write_payload(const std::string& dir, const Payload& payload, std::int64_t gid);

}  // namespace hawser::agent
